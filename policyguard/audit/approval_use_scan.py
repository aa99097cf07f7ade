"""Finds consumed approvals by reading the entries of a log, for logs of 0.1.0 that have no claims.

An allow consumes the approvals that it names if rules required approvals (`requiring` is not empty). Every entry is
read, because no time limit would be safe.
"""

from __future__ import annotations

import msgspec

from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.audit.stores import Row
from policyguard.audit.stores.interface import Store
from policyguard.errors import AuditError

_PAGE = 256


def find_used_approvals(store: Store, start: int, stop: int) -> dict[str, int]:
    """Map each approval that the entries from `start` to before `stop` consumed to its entry.

    Args:
        store: the entries.
        start: the first entry.
        stop: the entry after the last one.

    Returns:
        The digest of each approval that is used up, and the entry of the newest allow that names it.

    Raises:
        AuditError: an entry cannot be read; what it used up is not known.
    """
    used: dict[str, int] = {}
    for first in range(start, stop, _PAGE):
        for row in store.read(first, min(first + _PAGE, stop)):
            used |= dict.fromkeys(approvals_used_by(row), row.entry)
    return used


class _Leaf(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str


class _Counted(msgspec.Struct, frozen=True):
    digest: str


class _Predicate(msgspec.Struct, frozen=True):
    approvals: tuple[_Counted, ...]
    decision: str
    requiring: tuple[str, ...]


class _Statement(msgspec.Struct, frozen=True):
    predicate: _Predicate


_LEAF = msgspec.json.Decoder(_Leaf)
_STATEMENT = msgspec.json.Decoder(_Statement)


def approvals_used_by(row: Row) -> list[str]:
    """List the digests of the approvals that one entry consumed.

    Raises:
        AuditError: it cannot be read.
    """
    try:
        leaf = _LEAF.decode(row.leaf)
        if leaf.payload_type != PAYLOAD_TYPE:
            return []
        predicate = _STATEMENT.decode(leaf.payload).predicate
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        # INVARIANT I2: an entry that cannot be read may have used an approval up, so nothing is allowed on top of it.
        raise AuditError(
            f"entry {row.entry} cannot be read, so which approvals it used up is not known", entry=row.entry
        ) from problem
    if predicate.decision != "allow" or not predicate.requiring:
        return []
    return [approval.digest for approval in predicate.approvals]
