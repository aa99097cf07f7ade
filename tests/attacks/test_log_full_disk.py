"""The disk is full: nothing is acknowledged, nothing acknowledged is lost, and the log goes on when there is space."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyguard.errors import AuditError
from tests.attacks.test_log_continuity import Lab, ask, entries

ROOT = Path(__file__).parents[2]
ENOUGH = 400
"""More decisions than fit."""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; only root can mount one."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def fill(folder: Path) -> Path:
    """Take what space is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65_536, 4096):
            try:
                while file.write(b"\1" * size):
                    pass
            except OSError:
                continue
    return filler


def test_a_log_on_a_full_disk_refuses_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    """The guard that met the full disk goes on, and a new one does."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        lab = Lab(disk)
        with lab.guard() as guard:
            last = ask(guard)
            filler = fill(disk)
            problems: list[str] = []
            for _ in range(ENOUGH):
                try:
                    last = ask(guard)
                except AuditError as problem:
                    problems.append(problem.message)
                if len(problems) == 3:
                    break
            assert len(problems) == 3
            assert all("full" in line or "no space left" in line for line in problems), problems
            assert entries(lab.log) >= last + 1
            with pytest.raises(AuditError):
                lab.decide()
            filler.unlink()
            assert ask(guard) >= last + 1
            last = ask(guard)
        assert lab.decide(2) == [last + 1, last + 2]
        assert entries(lab.log) == last + 3


def test_a_head_file_alone_on_a_full_disk_releases_nothing(tmp_path: Path) -> None:
    """The log has space, its head does not: an entry without its head is in the log and is not acknowledged."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        # A head is written to the second slot with the first entry: there is no page for it then.
        lab = Lab(tmp_path, "disk")
        guard = lab.guard()
        filler = fill(disk)
        for _ in range(2):
            with pytest.raises(AuditError, match=r"head file .* cannot be written: no space left"):
                ask(guard)
        with pytest.raises(AuditError, match=r"head file .* cannot be written: no space left"):
            lab.decide()
        filler.unlink()
        last = ask(guard)
        assert last >= 2
        guard.close()
        assert lab.decide() == [last + 1]
        assert entries(lab.log) == last + 2


def test_a_full_disk_of_the_head_file_makes_no_log_that_a_guard_later_refuses(tmp_path: Path) -> None:
    """A new log whose head cannot be begun."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        lab = Lab(tmp_path, "disk")
        filler = fill(disk)
        with pytest.raises(AuditError, match="no space left"):
            lab.decide()
        filler.unlink()
        assert lab.decide(2) == [0, 1]


def test_a_head_that_is_written_in_part_releases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system writes what fits and reports no error; the other slot still holds the head before."""
    lab = Lab(tmp_path)
    write = os.pwrite
    with lab.guard() as guard:
        last = ask(guard)
        monkeypatch.setattr(os, "pwrite", lambda handle, data, at: write(handle, data[:100], at))
        with pytest.raises(AuditError, match=r"head file .* cannot be written: no space left"):
            ask(guard)
        monkeypatch.undo()
        assert ask(guard) == last + 2
    assert lab.decide() == [last + 3]


LIMITED = """
import resource, signal, sys
from pathlib import Path
from policyguard.errors import AuditError
from tests.attacks.test_log_continuity import Lab, ask
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lab = object.__new__(Lab)
lab.folder, lab.log, lab.state = folder, folder / "logs" / "audit.db", None
with lab.guard() as guard:
    last = ask(guard)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    refused = 0
    for _ in range(400):
        try:
            last = ask(guard)
        except AuditError as problem:
            refused += 1
            if refused == 3:
                break
    assert refused == 3, refused
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert ask(guard) >= last + 1
    print(ask(guard))
"""


@pytest.mark.parametrize("limit", [8_000, 70_000, 100_000])
def test_files_that_may_not_grow_are_a_full_disk(tmp_path: Path, limit: int) -> None:
    """Without root: the limit of the process on the size of its files; the smallest one stops the head file, too."""
    lab = Lab(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    last = int(ended.stdout)
    assert entries(lab.log) == last + 1
    assert lab.decide() == [last + 1]
