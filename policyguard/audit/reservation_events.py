"""The entries of a reservation, and the claim that says what it reserves: made, read, and changed as its job goes on.

Each entry is signed by the log's key. The functions that change a claim run inside the transaction of their entry.
"""

from __future__ import annotations

import msgspec

from policyguard.attest.keys import PrivateKey
from policyguard.audit.entries import RESERVATION_ENTRY
from policyguard.audit.stores.claims import RESERVATION, Claim
from policyguard.audit.stores.interface import Claims
from policyguard.errors import AuditError, EvidenceError
from policyguard.values import Instant, format_instant, parse_instant

_AGAIN = "submit the job again"


class ReservationEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One log entry about a reservation: made by a decision, or its job started or ended."""

    decision_id: str
    event: str
    at: str
    scope: str = ""
    amount: int = 0
    expires: str = ""


class ReservedAmount(msgspec.Struct, frozen=True):
    """What the claim of a reservation says beside its decision and scope."""

    amount: int
    expires: Instant
    started: Instant | None = None


DETAIL = msgspec.json.Decoder(ReservedAmount)
_EVENT = msgspec.json.Decoder(ReservationEvent)
encode = msgspec.json.Encoder(order="sorted").encode


def start(claims: Claims, decision_id: str, now: Instant, key: PrivateKey) -> list[bytes]:
    """Record that the job of a reservation starts. Call it inside the transaction.

    Args:
        claims: of the log.
        decision_id: of the allow that reserved.
        now: the current time.
        key: the log's key.

    Returns:
        The entry.

    Raises:
        EvidenceError: the reservation has ended, or its job was started already.
    """
    claim, detail = _held(claims, decision_id)
    if now >= detail.expires:
        ended = format_instant(detail.expires)
        raise EvidenceError(
            f"the reservation of decision `{decision_id}` ended at `{ended}`, expected one that holds", help=_AGAIN
        )
    started = msgspec.structs.replace(detail, started=now)
    claims.replace(RESERVATION, msgspec.structs.replace(claim, detail=encode(started).decode()))
    return [_leaf("start", decision_id, now, key)]


def end(claims: Claims, decision_id: str, now: Instant, key: PrivateKey) -> list[bytes]:
    """Delete a reservation whose job has ended, and return its log entry. Call it inside the transaction.

    Args:
        claims: of the log.
        decision_id: of the allow that reserved.
        now: the current time.
        key: the log's key.
    """
    claims.remove(RESERVATION, decision_id)
    return [_leaf("end", decision_id, now, key)]


def release(claims: Claims, decision_id: str, now: Instant, key: PrivateKey) -> list[bytes]:
    """Delete a reservation whose job will not start, and return its log entry. Call it inside the transaction.

    Args:
        claims: of the log.
        decision_id: of the allow that reserved.
        now: the current time.
        key: the log's key.

    Raises:
        EvidenceError: the reservation has ended, or its job was started.
    """
    _held(claims, decision_id)
    return end(claims, decision_id, now, key)


def _held(claims: Claims, decision_id: str) -> tuple[Claim, ReservedAmount]:
    claim = claims.find(RESERVATION, (decision_id,)).get(decision_id)
    if claim is None:
        raise EvidenceError(
            f"the reservation of decision `{decision_id}` has ended, expected one that holds", help=_AGAIN
        )
    detail = DETAIL.decode(claim.detail)
    if detail.started is not None:
        raise EvidenceError(f"the job of decision `{decision_id}` was started already, expected one start", help=_AGAIN)
    return claim, detail


def _leaf(event: str, decision_id: str, now: Instant, key: PrivateKey) -> bytes:
    return reservation_leaf(ReservationEvent(decision_id=decision_id, event=event, at=format_instant(now)), key)


def reservation_leaf(event: ReservationEvent, key: PrivateKey) -> bytes:
    """Build the log entry of an event, signed by the log's key."""
    return RESERVATION_ENTRY.leaf(encode(event), (key,))


def reservation_event(leaf: bytes, entry: int) -> ReservationEvent:
    """Parse the reservation event in a log entry.

    Raises:
        AuditError: it holds none.
    """
    payload = RESERVATION_ENTRY.payload(leaf, entry)
    try:
        event = _EVENT.decode(payload)
        parse_instant(event.at)
        if event.event == "reserve":
            parse_instant(event.expires)
    except ValueError as problem:
        raise AuditError(f"entry {entry}: reservation: {problem}", entry=entry) from problem
    return event


def states_event(claim: Claim, event: ReservationEvent) -> bool:
    """Return True if a claim matches the event that created it; its start is not compared."""
    try:
        detail = DETAIL.decode(claim.detail)
    except msgspec.DecodeError:
        return False
    reserved = claim.scope, detail.amount, detail.expires
    return reserved == (event.scope, event.amount, parse_instant(event.expires))
