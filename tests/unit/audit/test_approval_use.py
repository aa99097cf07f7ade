"""Approvals that count once: the logged allow uses them up, for every guard on that log, in one transaction."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PAYLOAD_TYPE, parse_statement
from policyguard.audit.approval_use import PendingStatement, drop_used_approvals, preview_decision, used_approvals
from policyguard.audit.approval_use_scan import approvals_used_by, find_used_approvals
from policyguard.audit.log import Log
from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import APPROVAL
from policyguard.audit.stores.interface import Store
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.decide.engine import Engine
from policyguard.errors import AuditError
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from policyguard.model.decision import Decision
from policyguard.model.facts import Approval, Assurance, Facts
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot
from policyguard.values import NANOSECONDS_PER_S, Instant, canonical
from tests.attest_lab import decision_of

KEY = PrivateKey.generate(b"o" * 32)
NOW: Instant = 1_900_000_000 * NANOSECONDS_PER_S
HOUR: Instant = 3600 * NANOSECONDS_PER_S
REQUEST = Request.of("user:ines", "job:breakglass-kill", "job:team/vision/run-21")

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [breakglass-kill, stop, submit]}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: engineer}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings:
  - {subject: "user:ines", role: engineer, domain: "*"}
  - {subject: "user:omar", role: engineer, domain: "*"}
  - {subject: "user:tess", role: engineer, domain: "*"}
---
apiVersion: policyguard/v1
kind: Persons
persons:
  - {id: ines, accounts: ["user:ines"]}
  - {id: omar, accounts: ["user:omar"]}
  - {id: tess, accounts: ["user:tess"]}
---
apiVersion: policyguard/v1
kind: Quorums
quorums:
  - {id: second, approvers: [{count: 1, roles: [engineer]}], of: request, once: true}
  - {id: lasting, approvers: [{count: 1, roles: [engineer]}], of: request}
  - {id: work, approvers: [{count: 1, roles: [engineer]}], of: work, once: false}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: may, effect: allow, roles: [engineer], actions: ["*"], resources: {type: job}}
  - {id: kill, effect: require, actions: ["job:breakglass-kill"], resources: {type: job}, quorum: second}
  - {id: stop, effect: require, actions: ["job:stop"], resources: {type: job}, quorum: lasting}
  - {id: submit, effect: require, actions: ["job:submit"], resources: {type: job}, quorum: work}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the policies and the guard's key."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "lab.yaml").write_text(POLICIES)
    write_private_key(tmp_path / "guard.key", KEY)
    return tmp_path


def guard_in(folder: Path, now: Instant = NOW) -> Guard:
    snapshot = load_snapshot(folder / "policies", ())
    store = SqliteStore.open(folder / "audit.db", create_as="lab.example/decisions")
    return Guard(snapshot, KEY, Log.open(store, KEY), clock=lambda: now, close=store.close)


def approved(number: int = 1, who: str = "omar", *, request: Request = REQUEST, made: Instant = NOW - 60) -> Facts:
    """Return facts with one verified approval; its number stands for what was signed."""
    approval = Approval(f"user:{who}", Assurance.ATTESTED, f"{who}-{number}.json", made, made + HOUR, f"{number:064x}")
    return Facts(request, approvals=(approval,), contributors=("user:ines",))


def without_claims(folder: Path) -> None:
    """Make the log one of version 0.1.0."""
    with contextlib.closing(sqlite3.connect(folder / "audit.db")) as connection:
        connection.execute("DROP TABLE claims")


def test_the_first_allow_uses_an_approval_up(folder: Path) -> None:
    """The second decision is a denial that names the approval and the entry that counted it; a new approval helps."""
    with guard_in(folder) as guard:
        first = guard.issue(approved())
        assert first.decision.allowed
        assert parse_statement(first.envelope.payload).predicate.approvals[0].digest == f"{1:064x}"
        second = guard.issue(approved())
        assert not second.decision.allowed
        assert (
            "approval.used: `omar-1.json` counts once, and counted for entry 0 of the log" in second.decision.explain()
        )
        assert parse_statement(second.envelope.payload).predicate.approvals == ()
        assert guard.issue(approved(2)).decision.allowed


def test_another_process_knows_what_is_used_up(folder: Path) -> None:
    """The log is the record: a guard that was opened later, and one that explains without logging, say the same."""
    with guard_in(folder) as guard:
        assert guard.issue(approved()).decision.allowed
    with guard_in(folder) as later:
        assert not later.issue(approved()).decision.allowed
        with SqliteStore.open(folder / "audit.db", read_only=True) as store:
            assert not preview_decision(later.snapshot, approved(), NOW, store).allowed
            assert preview_decision(later.snapshot, approved(2), NOW, store).allowed


@pytest.mark.parametrize("action", ["job:stop", "job:submit"])
def test_where_the_quorum_does_not_say_once_an_approval_lasts(folder: Path, action: str) -> None:
    """The same approval counts until it expires."""
    request = Request.of("user:ines", action, "job:team/vision/run-21")
    with guard_in(folder) as guard:
        assert [guard.issue(approved(request=request)).decision.allowed for _ in range(3)] == [True] * 3


def test_a_denial_uses_nothing_up(folder: Path) -> None:
    """An approval by the requester, or one that expired, is denied; the good one still counts afterwards."""
    with guard_in(folder) as guard:
        assert not guard.issue(approved(1, "ines")).decision.allowed
        assert not guard.issue(approved(2, made=NOW - 2 * HOUR)).decision.allowed
        assert guard.issue(approved(1)).decision.allowed


def test_all_approvals_given_for_a_request_are_used_up(folder: Path) -> None:
    """Two said yes where one is enough: that is one kill and not two."""
    both = Facts(REQUEST, approvals=approved(1).approvals + approved(2, "tess").approvals, contributors=("user:ines",))
    with guard_in(folder) as guard:
        assert guard.issue(both).decision.allowed
        assert not guard.issue(approved(2, "tess")).decision.allowed


def test_decisions_of_one_push_share_no_approval(folder: Path) -> None:
    """Issued together, the first is allowed and the second denied; with an approval each, both are allowed."""
    with guard_in(folder) as guard:
        signed = guard.issue_many([approved(), approved()])
        assert [each.decision.allowed for each in signed] == [True, False]
        assert "made together with this one" in signed[1].decision.explain()
        assert "entry 0 of the log" in guard.issue(approved()).decision.explain()
        assert [each.decision.allowed for each in guard.issue_many([approved(2), approved(3)])] == [True, True]


def test_of_guards_that_race_on_one_log_one_allows(folder: Path) -> None:
    """I9: eight guards with connections of their own ask at the same time; exactly one decision is an allow."""
    guards = [guard_in(folder) for _ in range(8)]
    start = threading.Barrier(len(guards))
    allowed: list[bool] = []

    def ask(guard: Guard) -> None:
        start.wait()
        allowed.append(guard.issue(approved()).decision.allowed)

    threads = [threading.Thread(target=ask, args=(guard,)) for guard in guards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for guard in guards:
        guard.close()
    assert sorted(allowed) == [False] * 7 + [True]


def test_entries_that_came_meanwhile_are_read_inside_the_transaction(folder: Path) -> None:
    """I9: another process appends after our first reading; the leaves are made once its entry was read, too."""
    ours = Log.open(folder / "audit.db", KEY, create=True)
    theirs = Log.open(folder / "audit.db", KEY)
    ranges: list[tuple[int, int]] = []
    read_leaves: list[bytes] = []

    def read(store: Store, start: int, stop: int) -> None:
        ranges.append((start, stop))
        read_leaves.extend(row.leaf for row in store.read(start, stop))
        if len(ranges) == 1:
            theirs.append(b"theirs")

    with ours, theirs:
        (receipt,) = ours.append_after(read, lambda: [b"after " + read_leaves[-1]])
        assert ranges == [(0, 0), (0, 1)]
        assert receipt.index == 1
        assert [row.leaf for row in ours._store.read(0, 2)] == [b"theirs", b"after theirs"]


@pytest.mark.parametrize("failing", ["read", "build"])
def test_a_failure_inside_the_transaction_adds_nothing(folder: Path, failing: str) -> None:
    """The log goes on as if nobody had asked."""

    def fail(*_: object) -> list[bytes]:
        raise AuditError("cannot tell")

    def read(store: Store, start: int, stop: int) -> None:
        if failing == "read":
            fail()

    with Log.open(folder / "audit.db", KEY, create=True) as log:
        with pytest.raises(AuditError, match="cannot tell"):
            log.append_after(read, fail)
        assert log.append(b"next").index == 0


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """The facts of each evaluation, in order."""
    evaluated: list[Facts] = []
    decide = Engine.decide

    def counting(engine: Engine, facts: Facts, now: Instant) -> Decision:
        evaluated.append(facts)
        return decide(engine, facts, now)

    monkeypatch.setattr(Engine, "decide", counting)
    return evaluated


def test_each_request_is_evaluated_once(folder: Path, evaluations: list[Facts]) -> None:
    """Whether its approvals are unused, used up, shared with another request, missing, or count until they expire."""
    stop = Request.of("user:ines", "job:stop", "job:team/vision/run-21")
    with guard_in(folder) as guard:
        for facts in (approved(), approved(), Facts(REQUEST), approved(request=stop)):
            guard.issue(facts)
            assert len(evaluations) == 1
            evaluations.clear()
        guard.issue_many([approved(2), approved(2), approved(3)])
        assert len(evaluations) == 3


MIXED = (
    POLICIES
    + """  - id: stop-often
    effect: require
    actions: ["job:stop"]
    resources: {type: job}
    when: subject.id == "user:tess"
    quorum: second
"""
)


def test_where_only_lasting_quorums_apply_a_used_approval_still_counts(folder: Path) -> None:
    """A twin by requester: for tess a quorum that counts once applies as well, and her second request is denied."""
    (folder / "policies" / "lab.yaml").write_text(MIXED)
    with guard_in(folder) as guard:
        for who, expected in (("ines", [True, True, True]), ("tess", [True, False, False])):
            request = Request.of(f"user:{who}", "job:stop", "job:team/vision/run-21")
            facts = approved(ord(who[0]), request=request)
            assert [guard.issue(facts).decision.allowed for _ in range(3)] == expected


def test_on_top_of_an_entry_that_cannot_be_read_nothing_is_allowed_once(folder: Path) -> None:
    """I2: in a log without claims it might have used the approval up; nothing is added. The twin has no approvals."""
    with Log.open(folder / "audit.db", KEY, "lab.example/decisions", create=True) as other:
        other.append(b"not an envelope")
    without_claims(folder)
    with guard_in(folder) as guard:
        with pytest.raises(AuditError, match="entry 0 cannot be read"):
            guard.issue(approved())
        assert guard.issue(Facts(REQUEST)).receipt.index == 1
    with SqliteStore.open(folder / "audit.db", read_only=True) as store:
        assert used_approvals(store, ()) == {}
        with pytest.raises(AuditError, match="entry 0 cannot be read"):
            used_approvals(store, ("f00d",))


@pytest.mark.parametrize(
    ("changes", "counted"),
    [({}, ("cd" * 32,)), ({"requiring": ()}, ()), ({"allowed": False}, ())],
    ids=["an allow that needs approvals", "an allow that needs none", "a denial"],
)
def test_an_approval_that_nobody_asked_for_is_not_used_up(changes: dict[str, object], counted: tuple[str, ...]) -> None:
    """Submitted with a request that is allowed without it, it is there for the one that needs it."""
    decision = structs.replace(decision_of(), **{"requiring": ("kill",), **changes})
    assert PendingStatement(decision, b"", single_use=True).counted == counted


def test_a_long_log_without_claims_is_read_whole_once(folder: Path) -> None:
    """An allow of version 0.1.0 is found, however many entries from a slow clock follow; then the log has claims."""
    with guard_in(folder) as guard, guard_in(folder, NOW - 5 * HOUR) as slow:
        assert guard.issue(approved()).decision.allowed
        slow.issue_many([Facts(REQUEST)] * 600)
    without_claims(folder)
    with SqliteStore.open(folder / "audit.db", read_only=True) as store:
        assert not store.claims.is_complete
        assert find_used_approvals(store, 0, 601) == {f"{1:064x}": 0}
        assert find_used_approvals(store, 1, 601) == {}
        assert used_approvals(store, {f"{1:064x}", f"{2:064x}"}) == {f"{1:064x}": 0}
        assert used_approvals(store, {f"{2:064x}"}) == {}
    with guard_in(folder) as guard:
        assert "entry 0 of the log" in guard.issue(approved()).decision.explain()
        assert guard.issue(approved(2)).decision.allowed
        assert not guard.issue(approved(2)).decision.allowed
    with SqliteStore.open(folder / "audit.db", read_only=True) as store:
        assert store.claims.is_complete
        assert used_approvals(store, {f"{1:064x}", f"{2:064x}"}) == {f"{1:064x}": 0, f"{2:064x}": 602}


def test_an_approval_that_counts_once_has_a_unique_key(folder: Path) -> None:
    """I9: a second allow that names it is not logged, even if the decision had missed it."""
    with guard_in(folder) as guard:
        assert guard.issue(approved()).decision.allowed
    with SqliteStore.open(folder / "audit.db") as store:
        taken = store.claims.find(APPROVAL, [f"{1:064x}"])[f"{1:064x}"]

        def again(last: Row | None) -> list[Row]:
            store.claims.add(APPROVAL, taken)
            return []

        with pytest.raises(AuditError, match="is taken already"):
            store.append(again)

        def other(last: Row | None) -> list[Row]:
            store.claims.add(APPROVAL, structs.replace(taken, name="other"))
            return []

        def failing(last: Row | None) -> list[Row]:
            store.claims.add(APPROVAL, structs.replace(taken, name="third"))
            raise AuditError("no leaf")

        store.append(other)
        with pytest.raises(AuditError, match="no leaf"):
            store.append(failing)
        assert sorted(store.claims.find(APPROVAL, ["other", "third"])) == ["other"]


def test_actions_are_approved_alone_only_if_every_quorum_says_so(folder: Path) -> None:
    """I9: one quorum over work is enough to ask for a look at the work."""
    assert load_snapshot(folder / "policies", ()).request_only_actions == {"job:breakglass-kill", "job:stop"}
    both = POLICIES + '  - {id: stop-2, effect: require, actions: ["job:stop"], resources: {type: job}, quorum: work}\n'
    (folder / "policies" / "lab.yaml").write_text(both)
    assert load_snapshot(folder / "policies", ()).request_only_actions == {"job:breakglass-kill"}
    every = POLICIES + '  - {id: every, effect: require, actions: ["*"], resources: {type: job}, quorum: work}\n'
    (folder / "policies" / "lab.yaml").write_text(every)
    assert load_snapshot(folder / "policies", ()).request_only_actions == frozenset()


def test_quorums_that_say_nothing_compile_to_what_they_were(folder: Path) -> None:
    """`of: work` and `once: false` are what is meant without them, so the policy's digest is the same."""
    digests = set()
    for text in (POLICIES, POLICIES.replace(", of: work, once: false", "")):
        (folder / "policies" / "lab.yaml").write_text(text)
        digests.add(load_snapshot(folder / "policies", ()).policy_digest)
    assert len(digests) == 1


def test_a_guard_with_a_wrong_clock_hides_nothing(folder: Path) -> None:
    """Its entry says that it is hours old; what stands before it is looked at all the same."""
    with guard_in(folder) as guard, guard_in(folder, NOW - 5 * HOUR) as wrong:
        assert guard.issue(approved()).decision.allowed
        assert not wrong.issue(Facts(REQUEST)).decision.allowed
        assert not guard.issue(approved()).decision.allowed


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, ["f00d"]),
        ({"decision": "deny"}, []),
        ({"requiring": []}, []),
        ({"payload_type": "application/vnd.policyguard.approval.v1+json"}, []),
    ],
    ids=["an allow that needed approvals", "a denial", "an allow that needed none", "an entry of another kind"],
)
def test_in_a_log_without_claims_an_allow_says_what_it_used_up(changes: dict[str, object], used: list[str]) -> None:
    """Other entries use nothing up, whatever they hold."""
    predicate = {"approvals": [{"digest": "f00d"}], "decision": "allow", "requiring": ["kill"], **changes}
    payload_type = str(predicate.pop("payload_type", PAYLOAD_TYPE))
    leaf = sign(canonical({"predicate": predicate}), payload_type, (KEY,)).to_bytes()
    assert approvals_used_by(Row(7, leaf, b"", None)) == used


def test_facts_without_used_approvals_stay_as_they_are() -> None:
    """The same object: a decision on them is made once. The twin loses the used one, and says so."""
    facts = approved()
    (digest,) = (approval.approval_digest for approval in facts.approvals)
    assert drop_used_approvals(facts, {"other": "entry 1"}) is facts
    unused = drop_used_approvals(facts, {digest: "entry 1"})
    assert (unused.approvals, len(unused.unusable)) == ((), 1)
