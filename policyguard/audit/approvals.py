"""Approvals as entries of a log: its operator cannot withdraw one, or deny that it existed.

A leaf is an envelope of the log's own key; its payload is the approval as it came, one line:

    line = envelope / %s"{" payload "," signature "}"      ; as in a git note (`evidence/approvals`)

The log's signature says that the approval was taken in, and nothing about who approved: the line carries that itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.attest.dsse import parse, sign
from policyguard.attest.keys import PrivateKey
from policyguard.audit.stores import Store
from policyguard.errors import AuditError, VerificationError

APPROVAL_ENTRY_TYPE = "application/vnd.policyguard.approval.v1+json"

MAX_RECENT_ENTRIES = 20_000
"""Approvals are searched among this many of the newest entries. A log of approvals alone never comes near it."""

_PAGE = 512
_MARK = f'"payloadType":"{APPROVAL_ENTRY_TYPE}"'.encode()


def approval_leaf(line: bytes, key: PrivateKey) -> bytes:
    """Build the leaf with this line, signed by the log's key."""
    # INVARIANT I9: the payload type is one of its own, so that no approval passes for a decision.
    return sign(line, APPROVAL_ENTRY_TYPE, (key,)).to_bytes()


def is_approval(leaf: bytes) -> bool:
    """Check whether a leaf holds an approval. Base64 has no quotes, so no other envelope contains this text."""
    return _MARK in leaf


def approval_line(leaf: bytes, entry: int) -> bytes:
    """Read the line in the leaf of this entry.

    Raises:
        AuditError: the entry is malformed or holds no approval.
    """
    try:
        envelope = parse(leaf)
    except VerificationError as problem:
        raise AuditError(f"entry {entry}: {problem.message}", entry=entry) from problem
    if envelope.payload_type != APPROVAL_ENTRY_TYPE:
        raise AuditError(f"entry {entry} holds no approval", entry=entry)
    return envelope.payload


def approval_leaves(store: Store) -> Iterator[tuple[int, bytes]]:
    """Yield the approvals among the newest entries, oldest first, each with its entry."""
    last = store.last()
    stop = 0 if last is None else last.entry + 1
    for start in range(max(0, stop - MAX_RECENT_ENTRIES), stop, _PAGE):
        yield from ((row.entry, row.leaf) for row in store.read(start, min(start + _PAGE, stop)) if _MARK in row.leaf)
