"""Quota reservations: GPUs that an allow has promised but the scheduler does not report as used yet.

Without them two submissions at the same moment could both get the last free GPUs.

    quota: {reserve: resource.gpus, by: resource.domain}

A configured quota reserves `resource.gpus` unless it says otherwise; `reserve: none` reserves nothing. An allow of a
job reserves the requested amount for the team, in the transaction that logs the decision. Every later decision on the
same log adds open reservations to the team's usage. A reservation ends

    when the job that `policyguard run` started ends, or did not start after all;
    at the decision's expiry, if no start was logged;
    when a decision reads a usage that the scheduler observed after the start, because that includes the job.

Each step is a log entry with its own payload type, signed by the log's key; the claims list the open reservations. A
reservation that has ended cannot be started.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from policyguard.attest.keys import PrivateKey
from policyguard.audit.reservation_events import DETAIL, ReservationEvent, ReservedAmount, encode, reservation_leaf
from policyguard.audit.stores.claims import RESERVATION, Claim
from policyguard.audit.stores.interface import Claims
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Facts
from policyguard.model.request import Request
from policyguard.values import MAX_INTEGER, Instant, Value, format_instant, parse_instant

USAGE = "resource.team_usage"

DEFAULT_AMOUNT = "resource.gpus"
"""The amount that a quota reserves unless configured otherwise."""


def check_path(path: str, snapshot: Snapshot) -> None:
    """Raise unless the schema declares the path that `quota.reserve` names on some resource type.

    Raises:
        ConfigurationError: there is no such attribute.
    """
    if any(path in admission.rules for admission in snapshot.admissions_by_type.values()):
        return
    if path != DEFAULT_AMOUNT or actions_with_quota(snapshot):
        raise ConfigurationError(
            f"quota.reserve: `{path}` is in no resource of the schema, expected a number that jobs ask for",
            help="name it under `quota:`, as in `reserve: resource.gpus`; `reserve: none` reserves nothing",
        )


def actions_with_quota(snapshot: Snapshot) -> list[str]:
    """List the actions that a rule about the team's use decides: without reservations, two at one moment both pass."""
    return sorted({action for action, _ in snapshot.rule_indexes if USAGE in snapshot.facts_read_at(action)})


def amount_of(path: str, snapshot: Snapshot, facts: Facts) -> int:
    """Return the amount that an allow of this request reserves; 0 if no quota applies to the action.

    Args:
        path: of the number that is reserved.
        snapshot: the policies.
        facts: of the request.
    """
    if USAGE not in snapshot.facts_read_at(facts.request.action):
        return 0
    fact = facts.entries.get(path)
    value: Value = fact.value if fact is not None else 0
    # A negative amount would make room for others.
    return min(max(value, 0), MAX_INTEGER) if type(value) is int else 0


class _Predicate(msgspec.Struct, frozen=True):
    decision_id: str
    expires: str


class _Statement(msgspec.Struct, frozen=True):
    predicate: _Predicate


_STATEMENT = msgspec.json.Decoder(_Statement)


class Reservations:
    """The open reservations of a log, together with those that the current transaction adds.

    `is_possible` says whether a quota applies to any of the requests; where none does, the rest is not asked.
    """

    def __init__(self, path: str, snapshot: Snapshot, facts: Sequence[Facts], now: Instant) -> None:
        self._path = path
        self._snapshot = snapshot
        self._now = now
        self._claims: Claims | None = None
        self._added: list[tuple[str, ReservationEvent, Instant]] = []
        self.is_possible = any(USAGE in snapshot.facts_read_at(request_facts.request.action) for request_facts in facts)

    def read(self, claims: Claims) -> None:
        """Start over from these claims, forgetting what was added."""
        self._claims, self._added = claims, []

    def add_to_usage(self, facts: Facts) -> Facts:
        """Return the facts with the open reservations of the request's domain added to the reported usage."""
        usage = facts.entries.get(USAGE)
        if usage is None or type(usage.value) is not int:
            return facts
        scope = _scope(self._snapshot, facts.request)
        observed_at = self._figure_of(facts)
        reserved = sum(event.amount for event_scope, event, _ in self._added if event_scope == scope)
        for claim in self._claims.list_scope(RESERVATION, scope) if self._claims is not None else ():
            detail = DETAIL.decode(claim.detail)
            if _counts(detail, self._now, observed_at):
                reserved += detail.amount
        if not reserved:
            return facts
        value = min(usage.value + reserved, MAX_INTEGER)
        changed = msgspec.structs.replace(usage, value=value, source=f"{usage.source}, {reserved} of it reserved")
        return msgspec.structs.replace(facts, entries={**facts.entries, USAGE: changed})

    def reserve_stated(self, decision: Decision, payload: bytes) -> None:
        """Reserve what the decision allows; id and expiry come from its encoded statement."""
        predicate = _STATEMENT.decode(payload).predicate
        self.reserve(decision, predicate.decision_id, parse_instant(predicate.expires))

    def reserve(self, decision: Decision, decision_id: str, expires: Instant) -> None:
        """Add a reservation if the decision is an allow and a quota applies to it.

        Args:
            decision: only an allow reserves.
            decision_id: of its statement.
            expires: when the decision does.
        """
        amount = amount_of(self._path, self._snapshot, decision.facts)
        if decision.allowed and amount:
            scope = _scope(self._snapshot, decision.facts.request)
            event = ReservationEvent(
                decision_id=decision_id,
                event="reserve",
                at=format_instant(self._now),
                scope=scope,
                amount=amount,
                expires=format_instant(expires),
            )
            self._added.append((scope, event, expires))

    def write(self, claims: Claims, facts: Sequence[Facts], first: int, key: PrivateKey) -> list[bytes]:
        """Store the new claims, delete ended ones, and return the log entries. Call it inside the transaction.

        Args:
            claims: of the log.
            facts: of the requests.
            first: the entry that follows the decisions.
            key: the log's key.
        """
        for request_facts in facts:
            self._forget(claims, request_facts)
        for number, (scope, event, expires) in enumerate(self._added):
            detail = encode(ReservedAmount(amount=event.amount, expires=expires)).decode()
            claims.add(RESERVATION, Claim(event.decision_id, scope, first + number, detail))
        return [reservation_leaf(event, key) for _, event, _ in self._added]

    def _figure_of(self, facts: Facts) -> Instant | None:
        """Return when the usage was observed; None if it is only claimed, and so ends no reservation."""
        usage = facts.entries.get(USAGE)
        if usage is None or usage.assurance < Assurance.OBSERVED or usage.observed_at > self._now:
            return None
        return usage.observed_at

    def _forget(self, claims: Claims, facts: Facts) -> None:
        observed_at = self._figure_of(facts)
        for claim in claims.list_scope(RESERVATION, _scope(self._snapshot, facts.request)):
            # What does not count now must not be started later, when a clock has gone back.
            if not _counts(DETAIL.decode(claim.detail), self._now, observed_at):
                claims.remove(RESERVATION, claim.name)


def _counts(detail: ReservedAmount, now: Instant, observed_at: Instant | None) -> bool:
    if detail.started is None:
        return now < detail.expires
    return observed_at is None or observed_at <= detail.started


def _scope(snapshot: Snapshot, request: Request) -> str:
    admission = snapshot.admissions_by_type.get((request.subject.type, request.resource.type))
    segments = request.resource.id.split("/")
    at = admission.domain_at if admission is not None else None
    return segments[at] if at is not None and at < len(segments) else ""
