"""Approvals stored as log entries, so that the log's operator cannot withdraw or deny them unnoticed.

A leaf is an envelope of the log's own key. Its payload is the approval as submitted, in one line:

    line = envelope / %s"{" payload "," signature "}"      ; as in a git note (`evidence/approvals`)

The log's signature proves that the approval was added, not who approved; the line has its own signature.
"""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.attest.keys import PrivateKey
from policyguard.audit.entries import APPROVAL_ENTRY
from policyguard.audit.stores.interface import Store

MAX_RECENT_ENTRIES = 20_000
"""Only this many of the newest entries are searched for approvals; a separate log of approvals stays far below."""

_PAGE = 512


def approval_leaf(line: bytes, key: PrivateKey) -> bytes:
    """Build the log entry that contains an approval line, signed by the log's key."""
    return APPROVAL_ENTRY.leaf(line, (key,))


def approval_line(leaf: bytes, entry: int) -> bytes:
    """Read the approval line from a log entry.

    Raises:
        AuditError: the entry is malformed or holds no approval.
    """
    return APPROVAL_ENTRY.payload(leaf, entry)


def approval_leaves(store: Store) -> Iterator[tuple[int, bytes]]:
    """Yield the approvals among the newest entries, oldest first, each with its entry number."""
    last = store.last()
    stop = 0 if last is None else last.entry + 1
    for start in range(max(0, stop - MAX_RECENT_ENTRIES), stop, _PAGE):
        rows = store.read(start, min(start + _PAGE, stop))
        yield from ((row.entry, row.leaf) for row in rows if APPROVAL_ENTRY.matches(row.leaf))
