"""Attacks on the watch itself: whoever stops the launcher leaves an entry that says for how long nobody watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import parse_statement
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.evidence.processes import is_supported
from policyguard.hooks.watch.gaps import MIN_GAP_S
from tests.e2e.watch_lab import eventually

pytestmark = pytest.mark.skipif(not is_supported(), reason="these are processes of Linux")

ROOT = Path(__file__).parents[2]
WITHIN_S = 60

WAITING = """
import os, sys, time
open(sys.argv[1], "w").write(str(os.getpid()))
while not os.path.exists(sys.argv[1] + ".enough"):
    time.sleep(0.05)
"""

WATCHING = f"""
import sys
from pathlib import Path
from policyguard.hooks.launcher.launch import WatchOptions, launch
from tests.e2e.launcher_lab import commit_all, make_lab, request
lab = make_lab(Path(sys.argv[1]))
(lab.job / "train.py").write_text({WAITING!r})
commit_all(lab.job)
with lab.guard() as guard:
    watch = WatchOptions(period_s=0.2)
    sys.exit(launch(guard, request(), lab.inputs(), lab.trust, audience="node-1", watch=watch))
"""


def reasons(log: Path) -> list[tuple[str, ...]]:
    """List the reasons of the decisions in a log."""
    with SqliteStore.open(log, read_only=True) as store:
        last = store.last()
        assert last is not None
        leaves = [row.leaf for row in store.read(0, last.entry + 1) if DECISION_ENTRY.matches(row.leaf)]
    return [parse_statement(parse(leaf).payload).predicate.reason_codes for leaf in leaves]


@pytest.mark.parametrize("stopped_s", [MIN_GAP_S + 1.5, 0.2])
def test_a_stopped_launcher_is_an_alert(tmp_path: Path, stopped_s: float) -> None:
    """SIGSTOP to the launcher, sabotage, SIGCONT: the log says from when to when; a moment is no gap (twin)."""
    ran = tmp_path / "ran"
    words = [sys.executable, "-c", WATCHING, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, cwd=ROOT) as launcher:
        assert eventually(lambda: ran.exists() and ran.read_text() != "", WITHIN_S)
        time.sleep(0.5)
        os.kill(launcher.pid, signal.SIGSTOP)
        time.sleep(stopped_s)
        os.kill(launcher.pid, signal.SIGCONT)
        (tmp_path / "ran.enough").touch()
        assert launcher.wait(WITHIN_S) == 0
    assert reasons(tmp_path / "audit.db").count(("watch.gap",)) == (1 if stopped_s > MIN_GAP_S else 0)
