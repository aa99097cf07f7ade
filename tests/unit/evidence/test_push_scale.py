"""A long push costs a handful of git processes, and memory does not grow with the number of commits."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import MeasuredUpdate, RefUpdate


def history(folder: Path, commits: int) -> tuple[str, str]:
    """Fill a new bare repository and return the ids of main and of a topic with so many commits on it."""
    folder.mkdir()
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(folder)], check=True)
    stream = [b"commit refs/heads/main\ncommitter a <a@lab> 1 +0000\ndata 1\nx\n"]
    stream += [b"M 100644 inline src/d%d/f%d.py\ndata 1\nx\n" % (i % 20, i) for i in range(200)]
    for number in range(commits):
        stream.append(b"commit refs/heads/topic\ncommitter a <a%d@lab> 1 +0000\ndata 1\nx\n" % (number % 5))
        stream += [b"from refs/heads/main\n"] if number == 0 else []
        stream += [b"M 100644 inline src/d%d/f%d.py\ndata 4\n%04d\n" % (number % 20, number % 200, number)]
    subprocess.run(["git", "-C", str(folder), "fast-import", "--quiet"], input=b"".join(stream), check=True)
    ids = [
        subprocess.run(["git", "-C", str(folder), "rev-parse", name], capture_output=True, check=True).stdout
        for name in ("main", "topic")
    ]
    return ids[0].decode().strip(), ids[1].decode().strip()


def measured(folder: Path, old: str, new: str) -> MeasuredUpdate:
    with PushSession(str(folder), {}, {os.geteuid(), 0}) as session:
        (seen,) = session.measure((RefUpdate(old=old, new=new, ref="refs/heads/main"),))
    return seen


def test_a_thousand_commits_cost_four_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit and every changed path is seen, through two open doors to git's objects and two walks."""
    old, new = history(tmp_path / "r", 1_000)
    started = []
    real: Any = subprocess.Popen.__init__

    def counting(process: object, *given: Any, **more: Any) -> None:
        started.append(given)
        real(process, *given, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", counting)
    seen = measured(tmp_path / "r", old, new)
    assert len(started) == 4
    assert (seen.commits, len(seen.paths)) == (1_000, 200)
    assert seen.accounts == {f"unknown:a{number}@lab" for number in range(5)}


def test_memory_does_not_grow_with_the_number_of_commits(tmp_path: Path) -> None:
    """Three times the commits, the same peak within a tenth of a mebibyte and the ids that are listed."""
    peaks = []
    for commits in (100, 300):
        old, new = history(tmp_path / str(commits), commits)
        tracemalloc.start()
        measured(tmp_path / str(commits), old, new)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 300_000
