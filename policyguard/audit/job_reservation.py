"""The quota reservation of one allow, from the decision to the end of its job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import parse_statement
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.reservation_events import end, release, start
from policyguard.audit.reservations import amount_of
from policyguard.audit.stores.interface import Store
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import AuditError, EvidenceError
from policyguard.values import Instant

Note = Callable[..., list[bytes]]


@contextmanager
def hold_reservation(
    signed: SignedDecision, path: str, snapshot: Snapshot, log: Log, key: PrivateKey, clock: Callable[[], Instant]
) -> Iterator[Callable[[], None]]:
    """Hold the reservation of an allow while its job runs; see `Guard.reservation_held`.

    Args:
        signed: the allow.
        path: of the number that is reserved.
        snapshot: the policies in force.
        log, key: where the decision is, and the key of the log.
        clock: supplies the current time.

    Yields:
        A function to call just before the job starts.
    """
    if not amount_of(path, snapshot, signed.decision.facts):
        yield lambda: None
        return
    decision_id = parse_statement(signed.envelope.payload).predicate.decision_id
    how_it_ends: list[Note] = [release]

    def note(event: Note) -> None:
        stores: list[Store] = []
        log.append_after(
            lambda store, _, __: stores.append(store), lambda: event(stores[-1].claims, decision_id, clock(), key)
        )

    def note_start() -> None:
        how_it_ends.clear()
        note(start)
        how_it_ends.append(end)

    try:
        yield note_start
    finally:
        for event in how_it_ends:
            # What cannot be logged now ends at the decision's expiry, or at the next figure of the scheduler.
            with suppress(AuditError, EvidenceError):
                note(event)
