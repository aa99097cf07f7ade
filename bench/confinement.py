"""Confined start and start from the commit: what each adds to starting a job."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Section, Target, us
from policyguard.confinement.landlock import abi_version
from policyguard.confinement.profile import Profile
from policyguard.confinement.start import start_confined
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import PRIVATE, confinement_record
from policyguard.evidence.from_commit import exported

PROGRAM = ("/bin/true",)


def confinement(runs: int) -> Section:
    """Measure the time of starting and ending `/bin/true`, as it is and confined, alternately."""
    section = Section("Confined start (wall time)", ("", "min", "median"))
    abi, reason = abi_version()
    if abi < 1:
        section.notes.append(f"not measured: {reason}")
        return section
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as canary:
        inputs = JobInputs(argv=(sys.executable, "train.py"), directory=folder, environment={"PATH": os.defpath})

        def confined() -> None:
            profile = Profile.from_record(confinement_record(inputs, {}), {PRIVATE: folder})
            start_confined(profile, canary.name, lambda: subprocess.Popen(PROGRAM)).wait()

        ways: dict[str, Callable[[], object]] = {
            "as it is": lambda: subprocess.run(PROGRAM, check=True),
            "confined": confined,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, start in ways.items():
                began = time.perf_counter()
                start()
                times[name].append((time.perf_counter() - began) * 1e6)
    section.rows = [(name, us(min(taken)), us(statistics.median(taken))) for name, taken in times.items()]
    added = statistics.median(times["confined"]) - statistics.median(times["as it is"])
    section.targets = [Target("confining adds, ms", added / 1e3, 5)]
    section.notes.append(f"{runs} runs each; the profile is made and taken on each time; Landlock ABI {abi}")
    return section


FILES = 5_000


def from_commit(runs: int) -> Section:
    """Measure the time of exporting a commit of 5,000 files and removing the export."""
    section = Section(f"Start from a commit of {FILES:,} files (wall time)", ("", "min", "median"))
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = JobInputs(
            argv=(sys.executable, "train.py"), directory=folder, environment={"PATH": os.defpath}, from_commit=True
        )
        _commit(folder)
        taken["creating as many files, without git"] = [_created() for _ in range(runs)]
        for stored in ("loose objects", "packed"):
            if stored == "packed":
                _git(folder, "gc", "-q")
            for _ in range(runs):
                began = time.perf_counter()
                with exported(inputs):
                    pass
                taken.setdefault(stored, []).append((time.perf_counter() - began) * 1e6)
    section.rows = [(name, us(min(times)), us(statistics.median(times))) for name, times in taken.items()]
    section.targets = [Target("exporting adds, s", statistics.median(taken["packed"]) / 1e6, 0.5)]
    section.notes.append(f"{runs} runs each, on the file system of TMPDIR; each exports, checks and removes all files")
    return section


def _created() -> float:
    """Measure what the file system takes for creating and removing these files; microseconds."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        _write_files(folder)
    return (time.perf_counter() - began) * 1e6


def _commit(folder: str) -> None:
    _write_files(folder)
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "add", ".")
    _git(folder, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-qm", "files")


def _write_files(folder: str) -> None:
    for number in range(FILES - 1):
        path = Path(folder, f"package_{number % 50}", f"module_{number}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# module {number}\n" * 100)
    Path(folder, "train.py").write_text("print('trained')\n")


def _git(folder: str, *arguments: str) -> None:
    subprocess.run(["git", "-c", "commit.gpgsign=false", *arguments], cwd=folder, check=True)
