"""Theorem: an approval that counts once is named by one allow at most, however decisions are grouped and repeated."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.attest.statement import parse_statement
from policyguard.audit.log import Log
from policyguard.audit.stores.memory import MemoryStore
from policyguard.decide.snapshot import Snapshot
from policyguard.guard import Guard
from policyguard.model.facts import Facts
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from tests.unit.audit.test_approval_use import KEY, NOW, POLICIES, REQUEST, approved

POLICY_SET = load({"lab.yaml": POLICIES.encode()})
SNAPSHOT = Snapshot.of(POLICY_SET, grants_of(POLICY_SET))

GIVEN = st.sets(st.integers(1, 4), max_size=3)
"""The approvals that one request is presented with."""


def facts_with(numbers: set[int]) -> Facts:
    approvals = tuple(approved(number, ("omar", "tess")[number % 2]).approvals[0] for number in sorted(numbers))
    return Facts(REQUEST, approvals=approvals, contributors=("user:ines",))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(GIVEN, min_size=1, max_size=3)), max_size=5))
def test_an_approval_is_used_up_by_one_allow(groups: list[tuple[bool, list[set[int]]]]) -> None:
    """A decision is an allow if and only if it is given an approval that no earlier allow was given."""
    guard = Guard(SNAPSHOT, KEY, Log.open(MemoryStore("lab.example/once"), KEY), clock=lambda: NOW)
    used: set[int] = set()
    for one_root, group in groups:
        for signed, numbers in zip(
            guard.issue_many([facts_with(each) for each in group], one_root=one_root), group, strict=True
        ):
            assert signed.decision.allowed == bool(numbers - used)
            named = parse_statement(signed.envelope.payload).predicate.approvals
            assert {int(each.digest, 16) for each in named} == numbers - used
            used |= numbers
