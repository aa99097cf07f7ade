"""Decisions issued together: each verifies alone, all are in the log or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.statement import parse_statement
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.check import check_log
from policyguard.audit.log import Log
from policyguard.audit.stores import Row
from policyguard.audit.stores.memory import MemoryStore
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import AuditError
from policyguard.guard import Guard
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot
from policyguard.verify import verify_origin
from tests.attest_lab import NOW, ORIGIN, SIGNER

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return load_snapshot(POLICIES, (SIGNER.public,))


class Desk:
    """A guard over the example policies with a log in memory, and five questions for it."""

    def __init__(self, snapshot: Snapshot, store: MemoryStore) -> None:
        self.store = store
        self.guard = Guard(snapshot, SIGNER, Log.open(store, SIGNER), audience="cluster-a", clock=lambda: NOW)
        self.trust = Trust(
            keys=(TrustedKey(key=SIGNER.public),),
            logs=(self.guard.log_key,),
            audiences=frozenset({"cluster-a"}),
            policy_digests=frozenset({snapshot.policy_digest}),
        )

    def facts(self, count: int = 5) -> list[Facts]:
        asked = [Request.of("user:alice", "job:submit", f"job:team/vision/run-{n}", gpus=n) for n in range(count)]
        return [self.guard.gather(request) for request in asked]


@pytest.fixture
def desk(snapshot: Snapshot) -> Desk:
    return Desk(snapshot, MemoryStore(ORIGIN))


@pytest.mark.parametrize("one_root", [True, False], ids=["one root", "signed each"])
def test_each_of_a_group_verifies_alone(desk: Desk, one_root: bool) -> None:
    """As text, with nothing of the others beside it, and each is about its own request."""
    given = desk.facts()
    issued = desk.guard.issue_many(given, one_root=one_root)
    verified = [verify_origin(signed.to_json(), desk.trust) for signed in issued]
    assert [each.index for each in verified] == [0, 1, 2, 3, 4]
    assert [parse_statement(signed.envelope.payload).predicate.resource for signed in issued] == [
        facts.request.resource.ref for facts in given
    ]
    assert len({signed.envelope.signatures for signed in issued}) == (1 if one_root else 5)
    assert check_log(desk.store, (desk.guard.log_key,)).checkpoints == 1


def test_tools_that_know_only_dsse_read_what_they_can(desk: Desk) -> None:
    """One decision alone, and a group signed each, are plain DSSE; under one root every envelope says so."""
    plain = [desk.guard.issue(desk.facts()[0]), *desk.guard.issue_many(desk.facts(1))]
    plain += desk.guard.issue_many(desk.facts(3), one_root=False)
    assert [signed.envelope.batch for signed in plain] == [None] * 5
    assert None not in [signed.envelope.batch for signed in desk.guard.issue_many(desk.facts(2))]
    assert desk.guard.issue_many([]) == ()


class FullStore(MemoryStore):
    """A store without space."""

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        grow(self.last())
        raise AuditError("no space left")


@pytest.mark.parametrize("one_root", [True, False], ids=["one root", "signed each"])
def test_group_that_cannot_be_logged_is_not_issued(snapshot: Snapshot, one_root: bool) -> None:
    """Invariant I12: no decision of the group leaves, and none is in the log."""
    desk = Desk(snapshot, FullStore(ORIGIN))
    with pytest.raises(AuditError, match="no space left"):
        desk.guard.issue_many(desk.facts(), one_root=one_root)
    assert desk.store.rows == []


def test_what_the_policies_did_not_decide_is_never_an_allow(desk: Desk) -> None:
    """A host's own decision is signed only if it denies; the allow is not in the log either."""
    denial = structs.replace(desk.guard.consider(desk.facts(1)[0]), allowed=False)
    with pytest.raises(ValueError, match="expected a denial"):
        desk.guard.issue_denial(structs.replace(denial, allowed=True))
    assert desk.store.rows == []
    assert not desk.guard.issue_denial(denial).decision.allowed
