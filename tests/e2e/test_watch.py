"""The second look on real processes: what is edited while the job runs is told, logged, and may end the job."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.entries import JOB_END_ENTRY
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import PolicyGuardError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.guard import Guard
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.hooks.launcher.start_check import DELAYS_S
from policyguard.hooks.watch.diff import difference
from policyguard.hooks.watch.watch import MAX_UNMEASURED, Watch, drifted
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.values import FrozenMap, Instant, Value
from policyguard.verify import verify, verify_origin
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import LOGIN
from tests.e2e.launcher_lab import Lab, make_lab, request
from tests.e2e.watch_lab import PERIOD_S, eventually

WAITING = """
import os, sys, time
open(sys.argv[1], "w").write(str(os.getpid()))
for _ in range(int(float(sys.argv[2]) * 20)):
    time.sleep(0.05)
    if os.path.exists(sys.argv[1] + ".enough"):
        break
"""
START = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from policyguard.cli.main import main; main()"
)
"""Starts the command line without PYTHONPATH, which would be an open door of the job."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab whose job writes its process id and waits until it is told that it is enough."""
    made = make_lab(tmp_path)
    (made.job / "train.py").write_text(WAITING)
    git(made.job, "add", ".")
    git(made.job, "commit", "-qm", "wait")
    return made


def policies_that_stop(lab: Lab) -> None:
    path = lab.folder / "policies" / "jobs.yaml"
    path.write_text(path.read_text().rstrip() + "\n    obligations: [stop.on_drift]\n")


def entries(lab: Lab) -> list[Predicate]:
    """What an auditor reads in the log, oldest first, each verified."""
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        last = store.last()
        assert last is not None
        leaves = [row.leaf for row in store.read(0, last.entry + 1) if not JOB_END_ENTRY.matches(row.leaf)]
        return [parse_statement(parse(leaf).payload).predicate for leaf in leaves]


class Run:
    """A job under the launcher, in a thread of this process."""

    def __init__(self, lab: Lab, guard: Guard, seconds: float = 20) -> None:
        self.lab, self.alerts, self.problems = lab, list[SignedDecision](), list[PolicyGuardError]()
        self.status: int | None = None
        inputs = lab.inputs((sys.executable, "train.py", str(lab.ran), str(seconds)))

        def run() -> None:
            self.status = launch(
                guard,
                request(),
                inputs,
                lab.trust,
                audience="node-1",
                watch=WatchOptions(period_s=PERIOD_S, on_alert=self.alerts.append, on_problem=self.problems.append),
            )

        self.thread = threading.Thread(target=run)

    def __enter__(self) -> Run:
        self.thread.start()
        assert eventually(lambda: self.lab.ran.exists() and self.lab.ran.read_text() != "")
        # Until then, an edit of the program is one of what was started.
        time.sleep(sum(DELAYS_S) + PERIOD_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.enough()

    def enough(self) -> None:
        Path(f"{self.lab.ran}.enough").touch()
        self.thread.join(20)
        assert not self.thread.is_alive()


def test_an_edit_while_the_job_runs_is_a_logged_alert(lab: Lab) -> None:
    """The alert is signed, in the log, names the file and the decision; the job goes on, as the policy says nothing."""
    with lab.guard() as guard, Run(lab, guard) as run:
        (lab.job / "optimizer.py").write_text("step = None\n")
        assert eventually(lambda: bool(run.alerts))
        run.enough()
        assert run.status == 0
    (alert,) = run.alerts
    predicate = verify_origin(alert.to_json(), lab.trust).predicate
    assert predicate.decision == "deny"
    assert predicate.action == "job:drift"
    assert predicate.reason_codes == ("drift.code",)
    assert "+ optimizer.py" in predicate.missing["resource.code"]
    allowed, logged = entries(lab)
    assert logged == predicate
    assert bytes(logged.facts["resource.decision_id"].value).decode() == f'"{allowed.decision_id}"'  # type: ignore[arg-type]
    assert "optimizer.py" in alert.decision.explain()


def test_a_job_that_nobody_touches_leaves_no_alert(lab: Lab) -> None:
    """Looking again and again at what stays the same tells nothing."""
    with lab.guard() as guard, Run(lab, guard) as run:
        time.sleep(6 * PERIOD_S)
        run.enough()
    assert (run.status, run.alerts) == (0, [])
    assert len(entries(lab)) == 1


def test_drift_is_reported_once_and_so_is_the_way_back(lab: Lab) -> None:
    """Sabotage that is put back between two looks of people stands in the log twice: when it came, when it went."""
    train = lab.job / "train.py"
    clean = train.read_bytes()
    with lab.guard() as guard, Run(lab, guard) as run:
        train.write_bytes(clean + b"# slow\n")
        assert eventually(lambda: reasons_of(run)[-1:] == [("drift.code", "drift.files")])
        time.sleep(3 * PERIOD_S)
        train.write_bytes(clean)
        assert eventually(lambda: reasons_of(run)[-1:] == [("drift.reverted",)])
    # The repository and the files are measured one after the other, so one check may see a change in one of them only.
    partly: list[list[tuple[str, ...]]] = [[], [("drift.code",)], [("drift.files",)]]
    both, reverted = ("drift.code", "drift.files"), ("drift.reverted",)
    assert reasons_of(run) in [[*before, both, *after, reverted] for before in partly for after in partly]


def reasons_of(run: Run) -> list[tuple[str, ...]]:
    return [alert.decision.reason_codes for alert in run.alerts]


def test_drift_ends_the_job_if_the_policy_says_so(lab: Lab) -> None:
    """With the obligation the whole process group gets SIGTERM, after the alert is in the log; the launcher says 77."""
    policies_that_stop(lab)
    with lab.guard() as guard, Run(lab, guard) as run:
        pid = int(lab.ran.read_text())
        (lab.job / "optimizer.py").write_text("step = None\n")
        run.thread.join(15)
        assert run.status == 77
    assert not Path(f"/proc/{pid}").exists()
    assert entries(lab)[-1].obligations == ("stop.on_drift",)


def test_the_job_ends_even_if_the_alert_cannot_be_logged(lab: Lab) -> None:
    """Filling the disk under the log does not buy a sabotaged job more time."""
    policies_that_stop(lab)
    with lab.guard() as guard, Run(lab, guard) as run:
        breaking = sqlite3.connect(lab.folder / "audit.db")
        breaking.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        breaking.commit()
        breaking.close()
        (lab.job / "optimizer.py").write_text("step = None\n")
        run.thread.join(15)
        assert run.status == 77
    assert run.problems
    assert run.alerts == []


class Failing:
    """A collector that can be broken while the job runs."""

    name = "repository"
    declares = ("resource.code",)

    def __init__(self) -> None:
        self.broken = False

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:
        if self.broken:
            raise OSError("stale file handle")
        return RepositoryCollector().collect(request, inputs, now)


@pytest.fixture
def blind(lab: Lab) -> tuple[Watch, Failing]:
    """A watch, not running, over a job whose repository can become unreadable."""
    policies_that_stop(lab)
    collector = Failing()
    guard = Guard.open(
        lab.folder / "policies",
        key=lab.folder / "guard.key",
        log=lab.folder / "audit.db",
        audience="node-1",
        collectors=(IdentityCollector(), JobCollector(), collector),
    )
    signed = guard.decide(request(), lab.inputs())
    bound = guard.gather(request(), lab.inputs()).bound
    verified = verify(signed.to_json(), lab.trust, request(), audience="node-1", now=time.time_ns(), bound=bound)
    return Watch(guard, request(), lab.inputs(), verified, bound, period_s=1), collector


def test_what_cannot_be_measured_is_distinguished_from_what_changed(blind: tuple[Watch, Failing]) -> None:
    """A failed look is `drift.unmeasured` at once, and ends the job only when it goes on."""
    watch, collector = blind
    assert watch.check() is None
    collector.broken = True
    first = watch.check()
    assert first is not None
    assert first.decision.reason_codes == ("drift.unmeasured",)
    assert not watch.stopped
    for _ in range(MAX_UNMEASURED - 1):
        watch.check()
    assert watch.stopped


def test_a_kill_that_nobody_asked_for_is_a_logged_alert(lab: Lab) -> None:
    """Somebody who kills a colleague's processes leaves an entry that says so, with the signal and the decision."""
    with lab.guard() as guard, Run(lab, guard) as run:
        os.kill(int(lab.ran.read_text()), signal.SIGKILL)
        run.thread.join(15)
        assert run.status == 128 + signal.SIGKILL
    assert entries(lab)[-1].reason_codes == ("drift.killed",)
    assert "SIGKILL" in entries(lab)[-1].missing["resource.process"]


def test_one_failed_measurement_does_not_end_the_job(blind: tuple[Watch, Failing]) -> None:
    """A busy file server is no saboteur: what is seen again is told, and the job goes on."""
    watch, collector = blind
    collector.broken = True
    watch.check()
    collector.broken = False
    back = watch.check()
    assert back is not None
    assert back.decision.reason_codes == ("drift.reverted",)
    assert not watch.stopped


def test_only_denials_are_issued_without_rules(lab: Lab) -> None:
    """I4: the guard's key signs no allow that the policies did not make."""
    with lab.guard() as guard:
        decision = guard.consider(guard.gather(request(), lab.inputs()))
        assert decision.allowed
        with pytest.raises(ValueError, match="expected a denial"):
            guard.issue_denial(decision)
        denied = guard.consider(Facts(request()))
        assert isinstance(denied, Decision)
        assert guard.issue_denial(denied).receipt.index == 0


def test_the_command_line_watches(lab: Lab, tmp_path: Path) -> None:
    """`policyguard run --watch` says ALERT with the log entry, and exits with the status of the job."""
    job = tmp_path / "job.yaml"
    job.write_text("subject: user:alice\nresource: job:team/vision/run-17\nproperties: {gpus: 8}\n")
    config = lab.folder / "operator.yaml"
    config.write_text(f"speakFor: [{LOGIN}]\n")
    words = [
        sys.executable,
        "-P",
        "-c",
        START,
        "run",
        "--config",
        str(config),
        "--subject",
        "user:alice",
        "--policies",
        str(lab.folder / "policies"),
        "--key",
        str(lab.folder / "guard.key"),
        "--log",
        str(lab.folder / "audit.db"),
        "--job",
        str(job),
        "--watch",
        "0.1",
        "-q",
        "--",
        sys.executable,
        "train.py",
        str(lab.ran),
        "20",
    ]
    with subprocess.Popen(
        words, cwd=lab.job, env={"PATH": os.environ["PATH"]}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert eventually(lab.ran.exists)
        (lab.job / "optimizer.py").write_text("step = None\n")
        assert eventually(lambda: len(entries(lab)) == 2)
        Path(f"{lab.ran}.enough").touch()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "ALERT    log entry 1" in err
    assert "optimizer.py" in err


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (None, "x", "was not measured at the decision"),
        (("a",), ("a", "b"), "+ b"),
        (("a",), (), "- a"),
        (FrozenMap(tree="1", dirty=False), FrozenMap(tree="2", dirty=False), "tree: was 1, is 2"),
        ((FrozenMap(path="m.pt", digest="1"),), (FrozenMap(path="m.pt", digest="2"),), "~ m.pt"),
        (tuple("a"), tuple("bcdefgh"), "+ b; + c; + d; + e; + f; and 3 more"),
    ],
)
def test_differences_name_what_differs(before: FrozenMap | None, after: FrozenMap, words: str) -> None:
    """A difference says which member came, went or changed, and how many more did."""
    assert words == difference(before, after)


def seen(*checkpoints: FrozenMap) -> Facts:
    """Facts with these checkpoints measured and bound."""
    fact = Fact(checkpoints, Assurance.MEASURED, "checkpoints", 1, bound=True)
    return Facts(request(), {"resource.checkpoints": fact})


def test_what_a_job_writes_is_no_drift() -> None:
    """A checkpoint that came since the start is output; one that was there and changed, or went, is told."""
    old, new = FrozenMap(path="a.pt", digest="1"), FrozenMap(path="out.pt", digest="9")
    bound = seen(old).bound
    assert drifted(bound, seen(old, new)) == ()
    assert [each.description for each in drifted(bound, seen(FrozenMap(path="a.pt", digest="2"), new))] == ["~ a.pt"]
    assert [each.description for each in drifted(bound, seen(new))] == ["- a.pt"]


def test_a_sensitive_fact_is_reported_without_its_values() -> None:
    """I14 holds for alerts, too: that it changed is told, not what it was or is."""
    bound = seen(FrozenMap(path="a.pt", digest="1")).bound
    found = seen(FrozenMap(path="a.pt", digest="2"))
    assert [each.description for each in drifted(bound, found, frozenset({"resource.checkpoints"}))] == ["changed"]


def test_a_field_for_trace_is_reported_without_its_values() -> None:
    """I14 holds for alerts, too: which checkpoint changed is told, not what it imported before or imports now."""

    def hide(value: Value) -> Value:
        assert isinstance(value, tuple)
        return tuple(FrozenMap(path="a.pt") for _ in value)

    bound = seen(FrozenMap(path="a.pt", imports=("os.system",))).bound
    found = seen(FrozenMap(path="a.pt", imports=("posix.system",)))
    assert [each.description for each in drifted(bound, found, redactions={"resource.checkpoints": hide})] == [
        "changed"
    ]
    assert [each.description for each in drifted(bound, found)] == ["~ a.pt"]
