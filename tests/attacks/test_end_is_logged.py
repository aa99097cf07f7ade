"""The log says how each job ended, also one that somebody killed, and without a watch."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import parse_statement
from policyguard.audit.entries import DECISION_ENTRY, JOB_END_ENTRY
from policyguard.audit.job_end import JobEnded, job_end
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.verbs.audit_.entries import parse_entry
from policyguard.errors import AuditError, PolicyGuardError
from policyguard.hooks.launcher.launch import WatchOptions, launch
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def leaves(lab: Lab) -> list[bytes]:
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        last = store.last()
        assert last is not None
        return [row.leaf for row in store.read(0, last.entry + 1)]


def ends(lab: Lab) -> list[JobEnded]:
    return [job_end(leaf, 0) for leaf in leaves(lab) if JOB_END_ENTRY.matches(leaf)]


def reasons(lab: Lab) -> list[tuple[str, ...]]:
    entries = [leaf for leaf in leaves(lab) if DECISION_ENTRY.matches(leaf)]
    return [parse_statement(parse(leaf).payload).predicate.reason_codes for leaf in entries[1:]]


def run(lab: Lab, source: str) -> int:
    (lab.job / "train.py").write_text(source)
    commit_all(lab.job)
    with lab.guard() as guard:
        return launch(guard, request(), lab.inputs(), lab.trust, audience="node-1")


@pytest.mark.parametrize("status", [0, 3])
def test_each_end_is_an_entry(lab: Lab, status: int) -> None:
    """Of the decision that started it: status, times, pid; and no alert."""
    source = "import os, sys, time\ntime.sleep(0.2)\nopen(sys.argv[1], 'w').write(str(os.getpid()))\n"
    assert run(lab, f"{source}sys.exit({status})") == status
    (end,) = ends(lab)
    decision = parse_statement(parse(leaves(lab)[0]).payload).predicate
    assert (end.decision_id, end.status, end.signal, end.outlived) == (decision.decision_id, status, "", 0)
    assert end.pid == int(lab.ran.read_text())
    assert 200 <= end.duration_ms < 60_000
    assert decision.issued_at < end.started < end.at
    assert reasons(lab) == []


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGSEGV", "SIGRTMIN"])
def test_a_job_that_dies_by_a_signal_leaves_an_entry_without_a_watch(lab: Lab, name: str) -> None:
    """An alert for what others send; the end for every signal, a crash included."""
    number = getattr(signal, name)
    source = f"import os, signal\nsignal.signal({int(number)}, signal.SIG_DFL) if {int(number)} != 9 else None\n"
    assert run(lab, source + f"os.kill(os.getpid(), {int(number)})\n") == 128 + number
    (end,) = ends(lab)
    assert (end.status, end.signal) == (128 + number, name)
    assert reasons(lab) == ([("drift.killed",)] if name in ("SIGKILL", "SIGTERM", "SIGHUP") else [])


def test_the_end_is_printed_to_auditors(lab: Lab) -> None:
    """`audit tail` and `audit show` read it."""
    run(lab, "")
    entry = len(leaves(lab)) - 1
    text = parse_entry(leaves(lab)[entry], entry)
    assert "ENDED" in text.line
    assert (text.kind, text.subject) == ("job-end", "user:alice")
    assert (text.data["event"], text.data["resource"]) == ("job.ended", "job:team/vision/run-17")


def test_an_end_that_cannot_be_logged_is_reported_and_changes_no_status(lab: Lab) -> None:
    """The log is gone when the job ends: the job's exit status stays, and the problem is said."""
    problems: list[PolicyGuardError] = []
    source = f"import os, sys\nos.rename({str(lab.folder / 'audit.db')!r}, {str(lab.folder / 'gone')!r})\nsys.exit(5)"
    (lab.job / "train.py").write_text(source)
    commit_all(lab.job)
    with lab.guard() as guard:
        watch = WatchOptions(on_problem=problems.append)
        assert launch(guard, request(), lab.inputs(), lab.trust, audience="node-1", watch=watch) == 5
    assert isinstance(problems[-1], AuditError)


def test_what_is_no_end_is_not_read(lab: Lab) -> None:
    """An entry of another kind, or with a field too many."""
    run(lab, "")
    with pytest.raises(AuditError, match="holds no end of a job"):
        job_end(leaves(lab)[0], 0)
