"""Attacks on quotas: submissions at one moment are allowed as far as there is room, and the room comes back."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import parse_statement
from policyguard.audit.check import check_log
from policyguard.audit.entries import RESERVATION_ENTRY
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.reservation_events import reservation_event
from policyguard.audit.stores.claims import RESERVATION
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.verbs.audit_.entries import parse_entry
from policyguard.config.measurement import MeasurementConfig, with_section
from policyguard.errors import AuditError, ConfigurationError, EvidenceError
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy_store.folder import snapshot_of_text
from policyguard.values import NANOSECONDS_PER_S, FrozenMap, Instant

KEY = PrivateKey.generate(b"q" * 32)
SECOND: Instant = NANOSECONDS_PER_S
NOW: Instant = 1_900_000_000 * SECOND
LIFETIME_S = 900
GPUS, LIMIT, USAGE = "resource.gpus", "resource.team_limit", "resource.team_usage"

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit, logs]
    attributes:
      gpus: {type: int, unit: gpu}
      nodes: {type: int, optional: true, unit: node}
      team_limit: {type: int, unit: gpu, assurance: observed}
      team_usage: {type: int, unit: gpu, assurance: observed}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: researcher}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings: [{subject: "user:alice", role: researcher, domain: "*"}, {subject: "user:bob", role: researcher, domain: "*"}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: may, effect: allow, roles: [researcher], actions: [job:submit, job:logs], resources: {type: job}}
  - id: team-quota
    effect: deny
    actions: [job:submit]
    resources: {type: job}
    when: resource.team_usage + resource.gpus > resource.team_limit
    reason: quota.team_limit
"""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> Instant:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(clock: Clock) -> Guard:
    return Guard.in_memory(POLICIES, clock=clock, lifetime_s=LIFETIME_S, reserve=GPUS)


def submission(
    gpus: int = 64,
    *,
    used: int = 448,
    team: str = "vision",
    observed_at: Instant = NOW - 60 * SECOND,
    assurance: Assurance = Assurance.OBSERVED,
    action: str = "job:submit",
    who: str = "user:alice",
) -> Facts:
    """A request of so many GPUs, where the team's limit is 512."""
    request = Request.of(who, action, f"job:team/{team}/run-1", gpus=gpus)
    entries = {
        GPUS: Fact(gpus, Assurance.CLAIMED, "request", observed_at),
        LIMIT: Fact(512, assurance, "quota", observed_at),
        USAGE: Fact(used, assurance, "quota", observed_at),
    }
    return Facts(request, entries)


def outcomes(guard: Guard, *facts: Facts) -> list[bool]:
    return [guard.issue(request_facts).decision.allowed for request_facts in facts]


def store_of(guard: Guard) -> MemoryStore:
    store = guard._log._store
    assert isinstance(store, MemoryStore)
    return store


def test_two_at_one_moment_with_room_for_one(guard: Guard) -> None:
    """Both read the same figure; the second is denied by the rule of the quota, which names what is reserved."""
    first, second = guard.issue(submission()), guard.issue(submission(who="user:bob"))
    assert first.decision.allowed
    assert not second.decision.allowed
    assert second.decision.reason_codes == ("quota.team_limit",)
    recorded = parse_statement(second.envelope.payload).predicate.facts[USAGE]
    assert recorded.source == "quota, 64 of it reserved"
    assert bytes(recorded.value or b"") == b"512"
    # Twins: as much as there is room for, and another team.
    assert outcomes(guard, submission(1, used=447), submission(team="speech")) == [True, True]


def test_without_reservations_both_pass(clock: Clock) -> None:
    """What `quota.reserve` is for."""
    assert outcomes(Guard.in_memory(POLICIES, clock=clock), submission(), submission()) == [True, True]


def test_two_in_one_batch(guard: Guard) -> None:
    """Decisions that are logged together see each other's reservations."""
    signed = guard.issue_many([submission(), submission(32), submission(team="speech")])
    assert [one.decision.allowed for one in signed] == [True, False, True]
    assert [one.receipt.index for one in signed] == [0, 1, 2]


def test_many_small_jobs(guard: Guard) -> None:
    """Each fits by the figure; together they do not."""
    assert outcomes(guard, *[submission(8)] * 12) == [True] * 8 + [False] * 4


@pytest.mark.parametrize("gpus", [-512, 0])
def test_a_negative_amount_makes_no_room(guard: Guard, gpus: int) -> None:
    """The twin is the next submission of as much as there is."""
    assert outcomes(guard, submission(gpus), submission(65), submission(64)) == [True, False, True]


def test_a_denied_job_and_another_action_reserve_nothing(guard: Guard) -> None:
    """Nobody can fill the quota of a team with requests that take no GPUs."""
    assert outcomes(guard, submission(65), submission(512, action="job:logs"), submission()) == [False, True, True]


def test_a_decision_that_never_starts_a_job_gives_its_room_back(guard: Guard, clock: Clock) -> None:
    """A crash between allow and start: until the decision expires nobody else may have the room."""
    assert outcomes(guard, submission()) == [True]
    clock.now = NOW + LIFETIME_S * SECOND - 1
    assert outcomes(guard, submission()) == [False]
    clock.now += 1
    assert outcomes(guard, submission()) == [True]


def test_the_end_of_a_job_gives_its_room_back(guard: Guard, clock: Clock) -> None:
    """While it runs the reservation holds, far beyond the decision's expiry."""
    with guard.reservation_held(guard.issue(submission())) as note_start:
        note_start()
        clock.now += 10 * LIFETIME_S * SECOND
        assert outcomes(guard, submission()) == [False]
    assert outcomes(guard, submission()) == [True]


def test_a_job_that_is_not_started_after_all_gives_its_room_back(guard: Guard) -> None:
    """It had changed since the decision."""
    with pytest.raises(RuntimeError), guard.reservation_held(guard.issue(submission())):
        raise RuntimeError
    assert outcomes(guard, submission()) == [True]


@pytest.mark.parametrize("facts", [submission(0), submission(8, action="job:logs")], ids=["no GPUs", "no quota"])
def test_a_job_without_a_reservation_starts_and_leaves_no_entry(guard: Guard, facts: Facts) -> None:
    """Nothing was reserved for it, so that nothing has ended either."""
    signed = guard.issue(facts)
    with guard.reservation_held(signed) as note_start:
        note_start()
    assert len(store_of(guard).rows) == 1


def test_a_newer_figure_includes_the_job(guard: Guard, clock: Clock) -> None:
    """What the scheduler saw after the start counts once, not twice; what it saw before does not include the job."""
    with guard.reservation_held(guard.issue(submission())) as note_start:
        clock.now = start = NOW + 5 * SECOND
        note_start()
        clock.now += 60 * SECOND
        assert outcomes(guard, submission(observed_at=start), submission(observed_at=start - 1)) == [False, False]
        assert outcomes(guard, submission(used=512, observed_at=start + 1)) == [False]
        assert outcomes(guard, submission(used=448, observed_at=start + 1)) == [True]


@pytest.mark.parametrize("assurance", list(Assurance))
def test_a_claimed_figure_ends_no_reservation(guard: Guard, clock: Clock, assurance: Assurance) -> None:
    """Otherwise the requester would; the twins are those of the platform."""
    with guard.reservation_held(guard.issue(submission())) as note_start:
        note_start()
        clock.now += 60 * SECOND
        guard.issue(submission(512, observed_at=clock.now, assurance=assurance))
        expected = assurance is not Assurance.CLAIMED
        assert outcomes(guard, submission()) == [expected]


def test_a_reservation_that_ended_cannot_be_started(guard: Guard, clock: Clock) -> None:
    """A clock that jumps ahead and back: whoever got the room keeps it, and the first job does not start."""
    first = guard.issue(submission())
    clock.now += 2 * LIFETIME_S * SECOND
    second = guard.issue(submission(observed_at=clock.now))
    assert second.decision.allowed
    clock.now = NOW
    with guard.reservation_held(first) as note_start, pytest.raises(EvidenceError, match="has ended, expected"):
        note_start()
    with guard.reservation_held(second) as note_start:
        note_start()


def test_an_expired_reservation_cannot_be_started(guard: Guard, clock: Clock) -> None:
    """Also where nobody else has asked since; the twin is the moment before."""
    for late, expected in ((0, False), (1, True)):
        clock.now = NOW + late * 10_000 * SECOND
        signed = guard.issue(submission(observed_at=clock.now))
        clock.now += LIFETIME_S * SECOND - late
        with guard.reservation_held(signed) as note_start:
            if expected:
                note_start()
            else:
                with pytest.raises(EvidenceError, match="expected one that holds"):
                    note_start()


def test_one_reservation_starts_one_job(guard: Guard) -> None:
    """The same signed decision, twice."""
    signed = guard.issue(submission())
    with guard.reservation_held(signed) as first:
        first()
        with guard.reservation_held(signed) as second, pytest.raises(EvidenceError, match="was started already"):
            second()
        with guard.reservation_held(signed):
            pass
        assert outcomes(guard, submission()) == [False]
    assert outcomes(guard, submission()) == [True]


def test_an_auditor_sees_each_step(guard: Guard) -> None:
    """Reservation, start and end are entries, signed by the log's key, and the log adds up."""
    signed = guard.issue(submission())
    with guard.reservation_held(signed) as note_start:
        note_start()
    store = store_of(guard)
    leaves = [row.leaf for row in store.read(0, 9)]
    assert [RESERVATION_ENTRY.matches(leaf) for leaf in leaves] == [False, True, True, True]
    events = [reservation_event(leaf, entry) for entry, leaf in enumerate(leaves) if entry]
    assert [event.event for event in events] == ["reserve", "start", "end"]
    decision_id = parse_statement(signed.envelope.payload).predicate.decision_id
    assert {event.decision_id for event in events} == {decision_id}
    assert (events[0].scope, events[0].amount) == ("vision", 64)
    assert "RESERVE" in parse_entry(leaves[1], 1).line
    assert parse_entry(leaves[1], 1).data["amount"] == 64
    assert check_log(store, (guard.log_key,)).checkpoint.size == 4
    with pytest.raises(AuditError, match="holds no reservation"):
        reservation_event(leaves[0], 0)


def test_a_failed_append_reserves_nothing(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the room is there afterwards."""
    store = store_of(guard)
    with monkeypatch.context() as patched:
        patched.setattr(guard._log, "_sign", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            guard.issue(submission())
    assert store.claims.list_scope(RESERVATION, "vision") == []
    assert outcomes(guard, submission()) == [True]


@pytest.mark.parametrize("path", ["resource.gpu", "subject.gpus", "gpus"])
def test_a_path_that_no_job_has_reserves_nothing_in_silence(path: str) -> None:
    """A mistake in the configuration is refused; the twin is an attribute of the schema."""
    with pytest.raises(ConfigurationError, match="is in no resource of the schema"):
        Guard.in_memory(POLICIES, reserve=path)
    Guard.in_memory(POLICIES, reserve="resource.nodes")


def test_the_default_is_no_mistake_only_where_no_rule_reads_the_use() -> None:
    """A schema whose jobs count something else needs `reserve:`; without a rule about the quota nothing is missing."""
    accelerators = POLICIES.replace("gpus:", "accelerators:").replace("resource.gpus", "resource.accelerators")
    with pytest.raises(ConfigurationError, match=r"`resource.gpus` is in no resource"):
        Guard.in_memory(accelerators, reserve=GPUS)
    Guard.in_memory(accelerators.replace("resource.team_usage + ", ""), reserve=GPUS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"file": "q"}, GPUS),
        ({"command": ("q",)}, GPUS),
        ({"file": "q", "by": "resource.domain"}, GPUS),
        ({"reserve": GPUS}, GPUS),
        ({"file": "q", "reserve": "resource.nodes"}, "resource.nodes"),
        ({"file": "q", "reserve": "none"}, None),
        ({"reserve": "none"}, None),
    ],
)
def test_a_configured_quota_reserves(text: dict[str, Any], expected: str | None) -> None:
    """Nobody has to ask for it; `none` is a word that a reader of the configuration sees."""
    configured = with_section(MeasurementConfig(), "quota", FrozenMap(text), Path("policyguard.yaml"))
    assert configured.reserve == expected
    assert (configured.quota is None) == ("file" not in text and "command" not in text)


def test_newer_policies_without_the_number_are_not_used(tmp_path: Path) -> None:
    """Renamed while the guard runs, nothing would be reserved: the policies in use stay."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICIES)
    write_private_key(tmp_path / "guard.key", KEY)
    log = tmp_path / "audit.db"
    with Guard.open(tmp_path / "policies", key=tmp_path / "guard.key", log=log, reserve="resource.nodes") as guard:
        (tmp_path / "policies" / "p.yaml").write_text(POLICIES.replace("nodes:", "hosts:"))
        with pytest.raises(ConfigurationError, match=r"`resource.nodes` is in no resource"):
            guard.reload()
        (tmp_path / "policies" / "p.yaml").write_text(POLICIES.replace("hosts:", "nodes:"))
        guard.reload()


# ---- threads and processes


@contextlib.contextmanager
def guard_in(folder: Path) -> Iterator[Guard]:
    store = SqliteStore.open(folder / "audit.db", create_as="lab.example/decisions")
    log = Log.open(store, KEY)
    with Guard(snapshot_of_text(POLICIES), KEY, log, clock=lambda: NOW, close=store.close, reserve=GPUS) as guard:
        yield guard


def _race(count: int, work: Callable[[], SignedDecision]) -> list[bool]:
    start, allowed = threading.Barrier(count), list[bool]()

    def run() -> None:
        start.wait()
        allowed.append(work().decision.allowed)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(allowed)


def test_threads_of_one_guard_at_one_moment(tmp_path: Path) -> None:
    """Room for two of eight."""
    with guard_in(tmp_path) as guard:
        assert _race(8, lambda: guard.issue(submission(32))) == [False] * 6 + [True] * 2


def test_guards_on_one_file_at_one_moment(tmp_path: Path) -> None:
    """Each thread has a guard of its own."""
    with contextlib.ExitStack() as opened:
        guards = [opened.enter_context(guard_in(tmp_path)) for _ in range(6)]
        assert _race(6, lambda: guards.pop().issue(submission())) == [False] * 5 + [True]


OTHER = """
import sys
from pathlib import Path
from tests.attacks.test_quota_race import guard_in, submission
with guard_in(Path(sys.argv[1])) as guard:
    print("ready", flush=True)
    sys.stdin.readline()
    print(guard.issue(submission()).decision.allowed)
"""


def test_processes_at_one_moment(tmp_path: Path) -> None:
    """One of three has the room, also if it is killed before it starts its job."""
    write_private_key(tmp_path / "guard.key", KEY)
    others = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    for other in others:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
    assert sorted(other.communicate(timeout=60)[0] for other in others) == ["False\n", "False\n", "True\n"]
    with guard_in(tmp_path) as guard:
        assert outcomes(guard, submission()) == [False]


def test_a_log_of_an_earlier_version_takes_reservations(tmp_path: Path) -> None:
    """The table is made by the first decision that needs it."""
    with guard_in(tmp_path) as guard:
        assert guard.issue(submission(512)).decision.allowed is False
    with contextlib.closing(sqlite3.connect(tmp_path / "audit.db")) as connection:
        connection.execute("DROP TABLE claims")
    with guard_in(tmp_path) as guard:
        assert outcomes(guard, submission(), submission()) == [True, False]
        with SqliteStore.open(tmp_path / "audit.db", read_only=True) as store:
            (claim,) = store.claims.list_scope(RESERVATION, "vision")
            assert json.loads(claim.detail)["amount"] == 64
