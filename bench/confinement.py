"""Confined start: what restricting a job by Landlock adds to starting it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from bench.report import Section, Target, us
from policyguard.confinement.landlock import abi_version
from policyguard.confinement.profile import Profile
from policyguard.confinement.start import start_confined
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import PRIVATE, confinement_record

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
