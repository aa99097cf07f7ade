"""An entry is of the kind that its envelope's payload type names, and of no other."""

from __future__ import annotations

import json

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.audit.approvals import approval_leaves
from policyguard.audit.entries import (
    APPROVAL_ENTRY,
    DECISION_ENTRY,
    HANDOVER_ENTRY,
    LINK_ENTRY,
    RESERVATION_ENTRY,
    EntryType,
)
from policyguard.audit.links import OldLog, link_leaf, parse_link
from policyguard.audit.log import Log
from policyguard.audit.stores.memory import MemoryStore
from policyguard.errors import AuditError

KEY = PrivateKey.generate(bytes(32))
KINDS = (DECISION_ENTRY, APPROVAL_ENTRY, HANDOVER_ENTRY, LINK_ENTRY, RESERVATION_ENTRY)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
def test_a_leaf_is_of_its_own_kind_only(kind: EntryType) -> None:
    leaf = kind.leaf(b"{}", (KEY,))
    assert [other for other in KINDS if other.matches(leaf)] == [kind]
    assert kind.payload(leaf, 7) == b"{}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
def test_a_payload_type_elsewhere_in_an_entry_changes_nothing(kind: EntryType) -> None:
    other = APPROVAL_ENTRY if kind is not APPROVAL_ENTRY else LINK_ENTRY
    envelope = {**json.loads(other.leaf(b"{}", (KEY,))), "x": {"payloadType": kind.payload_type}}
    leaf = json.dumps(envelope, separators=(",", ":")).encode()
    assert not kind.matches(leaf)
    assert not kind.matches(b"no JSON " + leaf)


def test_an_envelope_in_another_encoding_is_no_entry_of_ours() -> None:
    """One value has one form: what a reader of other spellings took for a decision, ours would pass over."""
    leaf = DECISION_ENTRY.leaf(b"{}", (KEY,))
    for spelling in (leaf.replace(b'":"', b'": "'), leaf.replace(b"/vnd", rb"\/vnd")):
        assert json.loads(spelling) == json.loads(leaf)
        assert not DECISION_ENTRY.matches(spelling)


def test_a_link_in_an_entry_of_another_kind_is_refused() -> None:
    link = link_leaf("rotated", OldLog(log="", origin="o", root="", size=0), KEY, reason="r", now=0)
    other = RESERVATION_ENTRY.leaf(LINK_ENTRY.payload(link, 0), (KEY,))
    with pytest.raises(AuditError, match="entry 3 holds no link"):
        parse_link(other, 3)


def test_a_malformed_entry_is_refused() -> None:
    with pytest.raises(AuditError, match="entry 3: approval: not an envelope"):
        APPROVAL_ENTRY.payload(b"{}", 3)


def test_approvals_are_found_among_other_entries() -> None:
    """Each with its number, the oldest first; a log without entries has none."""
    store = MemoryStore("lab.example")
    assert list(approval_leaves(store)) == []
    leaves = [kind.leaf(b"{}", (KEY,)) for kind in (APPROVAL_ENTRY, DECISION_ENTRY, APPROVAL_ENTRY, LINK_ENTRY)]
    Log.open(store, KEY).append_many(leaves)
    assert list(approval_leaves(store)) == [(0, leaves[0]), (2, leaves[2])]
