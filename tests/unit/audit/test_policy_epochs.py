"""Policies do not go back in a log: what the log says to each writer, inside the transaction that would add to it."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.audit.entries import APPROVAL_ENTRY, DECISION_ENTRY
from policyguard.audit.head import Head, PolicyHead
from policyguard.audit.log import Log
from policyguard.audit.policy_epoch_scan import PolicyRecord, policies_of
from policyguard.audit.policy_epochs import PoliciesMovedOn, PolicyUse, SeenEntries
from policyguard.audit.stores.memory import MemoryStore
from policyguard.errors import ConfigurationError
from policyguard.model.static_explanation import NO_POLICIES
from policyguard.values import canonical
from tests.attest_lab import LOG_KEY, ORIGIN


def use(**changes: Any) -> PolicyUse:
    return PolicyUse(**{"name": "lab", "epoch": 2, "digest": "d" * 64, "is_signed": True, **changes})


@pytest.fixture
def log() -> Log:
    """A log in which policies of epoch 2 have decided."""
    log = Log.open(MemoryStore(ORIGIN), LOG_KEY)
    log.append_many((b"{}",), use())
    return log


OUTDATED = [
    pytest.param(use(epoch=1), ConfigurationError, id="an older epoch"),
    pytest.param(use(digest="e" * 64), ConfigurationError, id="another signed snapshot of the epoch"),
    pytest.param(use(digest="e" * 64, is_signed=False), PoliciesMovedOn, id="an edited folder that does not say so"),
    pytest.param(use(edited=True), PoliciesMovedOn, id="the same policies that say they were edited"),
]


@pytest.mark.parametrize(("outdated", "problem"), OUTDATED)
def test_a_decision_on_approvals_or_a_quota_is_not_logged_for_outdated_policies(
    log: Log, outdated: PolicyUse, problem: type[Exception]
) -> None:
    """Such a decision is made inside the transaction: another process may have used newer policies just before it."""
    with pytest.raises(problem):
        log.append_after(lambda *_: None, lambda: (b"{}",), outdated)
    assert log.append_after(lambda *_: None, lambda: (b"{}",), use())[0].index == 1


@pytest.mark.parametrize(("outdated", "problem"), OUTDATED)
def test_a_plain_decision_is_not_logged_for_outdated_policies(
    log: Log, outdated: PolicyUse, problem: type[Exception]
) -> None:
    with pytest.raises(problem):
        log.append_many((b"{}",), outdated)
    assert log.append_many((b"{}",), use())[0].index == 1


def test_a_head_takes_back_neither_an_epoch_nor_a_revocation_list() -> None:
    """Whatever it says: the entries that were read are the record. What is new in it is taken over."""
    seen = SeenEntries()
    seen.add_head(Head(policies={"lab": PolicyHead(5, "e")}, revocations={"k": 5}), 1)
    seen.add_head(Head(policies={"lab": PolicyHead(4, "d"), "b": PolicyHead(1, "b")}, revocations={"k": 4, "m": 1}), 2)
    assert (seen.policies, seen.size) == ({"lab": PolicyHead(5, "e"), "b": PolicyHead(1, "b")}, 2)
    assert seen.revocations == {"k": 5, "m": 1}
    seen.add_head(Head(policies={"lab": PolicyHead(6, "f")}, revocations={"k": 6}), 1)
    assert (seen.policies["lab"].epoch, seen.revocations["k"], seen.size) == (5, 5, 2)


def test_an_approval_that_names_an_epoch_raises_none() -> None:
    """An entry of another kind holds what somebody sent: it must not make the policies in use look old."""
    payload = canonical({"predicate": {"policy": {"digest": "d", "epoch": 9, "name": "lab"}}})
    record = policies_of(DECISION_ENTRY.leaf(payload, (LOG_KEY,)))
    assert record == PolicyRecord(digest="d", epoch=9, name="lab")
    assert policies_of(APPROVAL_ENTRY.leaf(payload, (LOG_KEY,))) is None
    assert policies_of(DECISION_ENTRY.leaf(b"{}", (LOG_KEY,))) is None
    assert policies_of(DECISION_ENTRY.leaf(payload.replace(b'"d"', b'"%b"' % NO_POLICIES.encode()), (LOG_KEY,))) is None
