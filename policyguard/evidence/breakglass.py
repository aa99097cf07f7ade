"""Lists uses of break-glass in the decision log, and whether they were reviewed.

A use is an allow with the obligation `review.within_<n>h`. Its review is a later allow of `breakglass:review` on the id
of that decision; like every decision it is made by the policies, signed and logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from policyguard.attest.dsse import parse
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.entries import (
    APPROVAL_ENTRY,
    JOB_END_ENTRY,
    LINK_ENTRY,
    RESERVATION_ENTRY,
    REVOCATIONS_ENTRY,
)
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError, EvidenceError, VerificationError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.model.facts import Assurance, Fact
from policyguard.model.policy import Person
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S, Instant, parse_instant

REVIEW_ACTION, RESOURCE_TYPE, INVOLVED_ACCOUNTS = "breakglass:review", "breakglass", "resource.involved_accounts"

_OBLIGATION = re.compile(r"review\.within_([1-9][0-9]{0,3})h")


class BreakGlassUse(msgspec.Struct, frozen=True, kw_only=True):
    """One use of break-glass: its log entry, and who used, acknowledged and reviewed it."""

    entry: int
    decision_id: str
    requester: str
    acknowledged_by: tuple[str, ...]
    action: str
    resource: str
    used_at: Instant
    due_at: Instant
    reviewed_by: str = ""
    review_entry: int | None = None

    def is_overdue(self, now: Instant) -> bool:
        """Return True if the deadline for the review has passed without one."""
        return self.review_entry is None and now > self.due_at


def list_uses(store: SqliteStore, report: Callable[[AuditError], object] | None = None) -> list[BreakGlassUse]:
    """List every use of break-glass, oldest first, each with its first review.

    Args:
        store: the log.
        report: takes what cannot be read; the entry is skipped. A guard writes no such entry.
    """
    uses: dict[str, BreakGlassUse] = {}
    for entry, predicate in _decisions(store, report):
        if not predicate.allowed:
            continue
        reviewed = uses.get(predicate.resource.partition(":")[2]) if predicate.action == REVIEW_ACTION else None
        if reviewed is not None and reviewed.review_entry is None:
            uses[reviewed.decision_id] = msgspec.structs.replace(
                reviewed, reviewed_by=predicate.requester, review_entry=entry
            )
        elif (within_s := _within_s(predicate)) is not None:
            used_at = parse_instant(predicate.issued_at)
            uses[predicate.decision_id] = BreakGlassUse(
                entry=entry,
                decision_id=predicate.decision_id,
                requester=predicate.requester,
                action=predicate.action,
                acknowledged_by=tuple(sorted({approval.account for approval in predicate.approvals})),
                resource=predicate.resource,
                used_at=used_at,
                due_at=used_at + within_s * NANOSECONDS_PER_S,
            )
    return list(uses.values())


class ReviewCollector:
    """Supplies `resource.involved_accounts`: the accounts of all persons involved in this use of break-glass."""

    name = "reviews"
    measures_contributors = False
    declares = (INVOLVED_ACCOUNTS,)

    def __init__(self, log: Path, people: Sequence[Person]) -> None:
        self._log = log
        self._accounts = {account: person.accounts for person in people for account in person.accounts}

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Read the involved accounts from the log.

        Raises:
            EvidenceError: the log holds no such use.
        """
        with SqliteStore.open(self._log, read_only=True) as store:
            uses = {use.decision_id: use for use in list_uses(store)}
        use = uses.get(request.resource.id)
        if use is None:
            raise EvidenceError(f"the log holds no use of break-glass with the decision id `{request.resource.id}`")
        # INVARIANT I8: nobody reviews their own use of break-glass, whichever of their accounts they take.
        involved_accounts = {
            account
            for person in (use.requester, *use.acknowledged_by)
            for account in (person, *self._accounts.get(person, ()))
        }
        fact = Fact(tuple(sorted(involved_accounts)), Assurance.MEASURED, self.name, now)
        return Collected(entries={INVOLVED_ACCOUNTS: fact})


def _within_s(predicate: Predicate) -> int | None:
    matches = [match for name in predicate.obligations if (match := _OBLIGATION.fullmatch(name))]
    return min(int(match[1]) for match in matches) * 3600 if matches else None


_OTHERS = (APPROVAL_ENTRY, JOB_END_ENTRY, RESERVATION_ENTRY, REVOCATIONS_ENTRY, LINK_ENTRY)


def _decisions(store: SqliteStore, report: Callable[[AuditError], object] | None) -> Iterator[tuple[int, Predicate]]:
    last = store.last()
    if last is None:
        return
    for row in store.read(0, last.entry + 1):
        if any(kind.matches(row.leaf) for kind in _OTHERS):
            continue
        try:
            yield row.entry, parse_statement(parse(row.leaf).payload).predicate
        except VerificationError as problem:
            # A log may hold statements of other types.
            if problem.step == "V5":
                continue
            if report is not None:
                report(AuditError(f"entry {row.entry}: {problem.message}", entry=row.entry))
