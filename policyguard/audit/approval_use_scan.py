"""Finds consumed approvals: a logged allow names those it needed, and the log is append-only.

An allow spends the approvals that it names if rules asked for approvals (`requiring` is not empty). Entries are read
from the newest back, until a whole page of decisions was made `CLOCK_SLACK_S` before the oldest approval asked about:
no decision can have counted an approval before it was made. A page, so that one wrong clock hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.audit.stores import Row, Store
from policyguard.errors import AuditError
from policyguard.values import NANOSECONDS_PER_S, Instant, format_instant

CLOCK_SLACK_S = 3600
_PAGE = 256


def find_used_approvals(store: Store, start: int, stop: int, approvals: Mapping[str, Instant]) -> dict[str, int]:
    """Find the approvals that an allow among the entries from `start` to before `stop` has consumed.

    Args:
        approvals: approval digest to when it was made.

    Returns:
        The digest of each that is used up, and the entry of the newest allow that names it.

    Raises:
        AuditError: an entry cannot be read; what it used up is not known.
    """
    used: dict[str, int] = {}
    if not approvals:
        return used
    oldest = _seconds(min(approvals.values()) - CLOCK_SLACK_S * NANOSECONDS_PER_S)
    for page in _newest_first(store, start, stop):
        decisions = [(entry, decision) for entry, decision in page if decision is not None]
        for entry, decision in decisions:
            for digest in decision.spent & approvals.keys():
                used.setdefault(digest, entry)
        if decisions and all(decision.issued_at[:19] < oldest for _, decision in decisions):
            break
    return used


class _Leaf(msgspec.Struct, frozen=True, rename="camel"):
    payload: bytes
    payload_type: str


class _Counted(msgspec.Struct, frozen=True):
    digest: str


class _Said(msgspec.Struct, frozen=True):
    approvals: tuple[_Counted, ...]
    decision: str
    issued_at: str
    requiring: tuple[str, ...]

    @property
    def spent(self) -> frozenset[str]:
        """The approvals that this decision consumed."""
        used = self.approvals if self.decision == "allow" and self.requiring else ()
        return frozenset(approval.digest for approval in used)


class _Statement(msgspec.Struct, frozen=True):
    predicate: _Said


_LEAF = msgspec.json.Decoder(_Leaf)
_STATEMENT = msgspec.json.Decoder(_Statement)


def _said(row: Row) -> _Said | None:
    """Decode the part of a decision about approvals; None for an entry that is not a decision."""
    try:
        leaf = _LEAF.decode(row.leaf)
        return _STATEMENT.decode(leaf.payload).predicate if leaf.payload_type == PAYLOAD_TYPE else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        # INVARIANT I2: an entry that cannot be read may have used an approval up, so nothing is allowed on top of it.
        raise AuditError(
            f"entry {row.entry} cannot be read, so which approvals it used up is not known", entry=row.entry
        ) from problem


def _newest_first(store: Store, start: int, stop: int) -> Iterator[list[tuple[int, _Said | None]]]:
    while start < stop:
        first = max(start, stop - _PAGE)
        yield [(row.entry, _said(row)) for row in reversed(list(store.read(first, stop)))]
        stop = first


def _seconds(instant: Instant) -> str:
    return format_instant(max(instant, 0) // NANOSECONDS_PER_S * NANOSECONDS_PER_S)[:19]
