"""Reads from a log entry which policies decided. Pure; `policy_epochs.py` keeps the newest of each set."""

from __future__ import annotations

import msgspec

from policyguard.audit.entries import DECISION_ENTRY
from policyguard.model.static_explanation import NO_POLICIES


class _Leaf(msgspec.Struct, frozen=True):
    payload: bytes


class PolicyRecord(msgspec.Struct, frozen=True):
    """The policies as a statement names them; `name` is empty in statements of version 0.1.0."""

    digest: str
    epoch: int
    name: str = ""


class _Predicate(msgspec.Struct, frozen=True):
    policy: PolicyRecord


class _Statement(msgspec.Struct, frozen=True):
    predicate: _Predicate


_LEAF = msgspec.json.Decoder(_Leaf)
_STATEMENT = msgspec.json.Decoder(_Statement)


def policies_of(leaf: bytes) -> PolicyRecord | None:
    """Return the policies that an entry names; None if the entry is not a decision made by policies."""
    if not DECISION_ENTRY.matches(leaf):
        return None
    try:
        policy = _STATEMENT.decode(_LEAF.decode(leaf).payload).predicate.policy
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not written by a guard: the guard's entries are checked before they are written.
        return None
    return None if policy.digest == NO_POLICIES else policy
