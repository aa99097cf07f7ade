"""Compares the claims table of a log with its entries: both must list the same approvals and reservations.

Claims follow from the entries and are not signed. Without its claim, an approval could count again, or a quota would
have too much room; an added claim takes either away. A rotated log also has the claims of its predecessor, which are
compared if that file is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from policyguard.audit.approval_use_scan import approvals_used_by
from policyguard.audit.entries import RESERVATION_ENTRY
from policyguard.audit.links import is_rotated
from policyguard.audit.reservation_events import ReservationEvent, reservation_event, states_event
from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import APPROVAL, RESERVATION, Claim
from policyguard.audit.stores.interface import Store
from policyguard.errors import AuditError
from policyguard.values import Instant, parse_instant

_PAGE = 512

Rows = dict[tuple[str, str], Claim]
"""Claims by kind and name."""


class _Taken(NamedTuple):
    """A claim that an entry implies; `needed` is False if it may have been removed since."""

    entry: int
    needed: bool = True
    event: ReservationEvent | None = None


Taken = dict[tuple[str, str], _Taken]


def check_claims(stores: Sequence[Store], now: Instant) -> None:
    """Compare claims with entries over rotated logs, oldest first, or over a single log.

    Args:
        stores: the logs, whose entries are known to add up. Logs of version 0.1.0 have no claims and are passed over.
        now: the current time; a reservation that has expired may be forgotten.

    Raises:
        AuditError: a claim has no entry, or an entry has no claim.
    """
    before: Rows | None = None
    for store in stores:
        if not store.claims.is_complete:
            before = None
            continue
        size = _size(store)
        claims = {(kind, claim.name): claim for kind, claim in store.claims.list_all()}
        # What is appended meanwhile is passed over, but nothing may name an entry that is not there.
        meanwhile = range(size, _size(store))
        carried = is_rotated(store)
        taken = _approvals(store, size) | _reservations(store, size, now)
        _check_each_entry(taken, claims, meanwhile)
        _check_each_claim(taken, claims, meanwhile, before if carried else {})
        if carried and before is not None:
            _check_carried(before, claims)
        before = claims


def _size(store: Store) -> int:
    last = store.last()
    return 0 if last is None else last.entry + 1


def _check_carried(before: Rows, claims: Rows) -> None:
    """Refuse a log that lost an approval claim of its predecessor; reservations may have ended since."""
    for kind, name in before:
        # INVARIANT I9: an approval that counted in the old log counts no second time in the new one.
        if kind == APPROVAL and (kind, name) not in claims:
            raise AuditError(f"approval `{name[:16]}` counted in the older log, and this log has no claim of it")


def _check_each_entry(taken: Taken, claims: Rows, meanwhile: range) -> None:
    for (kind, name), (entry, needed, event) in taken.items():
        claim = claims.get((kind, name))
        if claim is None and not needed:
            continue
        if claim is None:
            raise AuditError(
                f"entry {entry} takes {kind} `{name[:16]}`, and no claim says so: it was removed from the table",
                entry=entry,
            )
        if claim.entry != entry and claim.entry not in meanwhile:
            raise AuditError(
                f"entry {entry} takes {kind} `{name[:16]}`, and its claim names entry {claim.entry}", entry=entry
            )
        if event is not None and not states_event(claim, event):
            raise AuditError(
                f"entry {entry} reserves {event.amount} for `{event.scope}`, and its claim says something else: "
                "it was changed in the table",
                entry=entry,
            )


def _check_each_claim(taken: Taken, claims: Rows, meanwhile: range, before: Rows | None) -> None:
    """Refuse a claim that neither an entry of this log nor the previous log accounts for.

    Pass None if the previous log is not available.
    """
    for (kind, name), claim in claims.items():
        if (kind, name) in taken or claim.entry in meanwhile or before is None:
            continue
        older = before.get((kind, name))
        if older is not None and older.entry == claim.entry:
            continue
        raise AuditError(
            f"a claim says that entry {claim.entry} takes {kind} `{name[:16]}`, and no such entry does: "
            "it was added to the table",
            entry=claim.entry,
        )


def _approvals(store: Store, size: int) -> Taken:
    taken: Taken = {}
    for row in _rows(store, size):
        # What cannot be read was not written by a guard, and has no claim; `audit show` and `tail` report it.
        with suppress(AuditError):
            taken |= {(APPROVAL, name): _Taken(row.entry) for name in approvals_used_by(row)}
    return taken


def _reservations(store: Store, size: int, now: Instant) -> Taken:
    """Map each reservation to its entry, and to whether its claim must exist: not started, ended or expired."""
    taken: Taken = {}
    for entry, event in _events(store, size):
        key = (RESERVATION, event.decision_id)
        if event.event == "reserve":
            taken[key] = _Taken(entry, parse_instant(event.expires) > now, event)
        elif event.event == "end":
            taken.pop(key, None)
        elif key in taken:
            # A figure of the scheduler that was observed since may have ended it.
            taken[key] = taken[key]._replace(needed=False)
    return taken


def _events(store: Store, size: int) -> Iterator[tuple[int, ReservationEvent]]:
    for row in _rows(store, size):
        if RESERVATION_ENTRY.matches(row.leaf):
            yield row.entry, reservation_event(row.leaf, row.entry)


def _rows(store: Store, size: int) -> Iterator[Row]:
    for start in range(0, size, _PAGE):
        yield from store.read(start, min(start + _PAGE, size))
