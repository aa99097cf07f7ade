"""Single-use approvals: finds the ones that the log has already counted, and decides without them.

A quorum with `once: true` only accepts approvals that no logged allow has counted yet. The logged allow is the record,
so it cannot be lost or withdrawn unnoticed. A decision that may consume approvals is made inside the transaction that
logs it, with the approvals that are unused at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import APPROVAL, Claim
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.values import Instant

if TYPE_CHECKING:
    from policyguard.audit.stores.interface import Claims, Store


class PendingStatement(msgspec.Struct, frozen=True):
    """A decision with its unsigned payload; `single_use` is True if a quorum that applied is single-use.

    `digest_key` is the key of the digests in the payload, empty if it hides nothing.
    """

    decision: Decision
    payload: bytes
    single_use: bool
    digest_key: bytes = b""

    @property
    def counted(self) -> tuple[str, ...]:
        """The digests of all submitted approvals if this is an allow that needed any, else nothing.

        That includes approvals beyond the required number: two approvals of one request allow it once, not twice.
        """
        if not self.decision.allowed or not self.decision.requiring:
            return ()
        return tuple([approval.approval_digest for approval in self.decision.facts.approvals])


class ApprovalConsumption:
    """Tracks which approvals the decisions of one transaction consume.

    `used` maps the digest of each consumed approval to the entry that consumed it.
    """

    def __init__(self, snapshot: Snapshot, facts: Iterable[Facts]) -> None:
        approved = [request_facts for request_facts in facts if request_facts.approvals]
        self._digests = {
            approval.approval_digest
            for request_facts in approved
            if request_facts.request.action in snapshot.single_use_actions
            for approval in request_facts.approvals
        }
        self._scanned: dict[str, int] = {}
        self.is_possible = bool(approved)
        """False if no decision can count an approval, so that the log need not be read."""
        self.used: dict[str, str] = {}

    def read(self, store: Store, start: int, stop: int) -> None:
        """Add to `used` the approvals that the entries from `start` to before `stop` consumed.

        Args:
            store: the store of the log.
            start: the first entry.
            stop: the entry after the last one.

        Raises:
            AuditError: the log was written without claims, and an entry cannot be read.
        """
        if store.claims.is_complete:
            entries = used_approvals(store, self._digests)
        else:
            self._scanned |= _scan(store, start, stop)
            entries = self._scanned
        self.used |= {digest: f"entry {entry} of the log" for digest, entry in entries.items()}

    def write(self, claims: Claims, statements: Sequence[PendingStatement], first: int) -> None:
        """Record what the decisions consume, starting at entry `first`. Call it inside the transaction.

        Args:
            claims: of the log.
            statements: the decisions.
            first: the entry of the first of them.

        Raises:
            AuditError: an approval that counts once is consumed already.
        """
        if not claims.is_complete:
            claims.begin()
            for digest, entry in self._scanned.items():
                claims.replace(APPROVAL, Claim(digest, "", entry, ""))
        for entry, statement in enumerate(statements, first):
            for digest in statement.counted:
                # INVARIANT I9: the unique key refuses what counts once and was counted.
                note = claims.add if statement.single_use else claims.replace
                note(APPROVAL, Claim(digest, "", entry, ""))


def used_approvals(store: Store, digests: Collection[str]) -> dict[str, int]:
    """Map each of these digests that the log has consumed to the newest entry that counted it.

    Raises:
        AuditError: the log was written without claims, and an entry cannot be read.
    """
    if not digests:
        return {}
    if store.claims.is_complete:
        return {digest: claim.entry for digest, claim in store.claims.find(APPROVAL, digests).items()}
    last = store.last()
    scanned = _scan(store, 0, 0 if last is None else last.entry + 1)
    return {digest: entry for digest, entry in scanned.items() if digest in digests}


def carry_claims(old: Store, new: Store) -> None:
    """Copy the claims of a log to its successor, so that approvals and reservations carry over.

    Raises:
        AuditError: the old log was written without claims, and an entry cannot be read.
    """
    if old.claims.is_complete:
        claims = old.claims.list_all()
    else:
        last = old.last()
        scanned = _scan(old, 0, 0 if last is None else last.entry + 1)
        claims = [(APPROVAL, Claim(digest, "", entry, "")) for digest, entry in scanned.items()]

    def copy(_: Row | None) -> Sequence[Row]:
        for kind, claim in claims:
            new.claims.replace(kind, claim)
        return ()

    new.append(copy)


def _scan(store: Store, start: int, stop: int) -> dict[str, int]:
    # Only a log of version 0.1.0 pays for this import.
    from policyguard.audit.approval_use_scan import find_used_approvals

    return find_used_approvals(store, start, stop)


def is_single_use(snapshot: Snapshot, decision: Decision) -> bool:
    """Return True if a quorum that applied to this decision is single-use."""
    if not decision.requiring:
        return False
    quorums = (snapshot.by_id[rule_id].quorum for rule_id in decision.requiring)
    return any(snapshot.quorums[quorum].once for quorum in quorums if quorum is not None)


def state_sequentially(
    facts: Iterable[Facts],
    used: Mapping[str, str],
    state: Callable[[Facts], PendingStatement],
    on_statement: Callable[[PendingStatement], None] | None = None,
) -> list[PendingStatement]:
    """Decide the requests in order, each without the approvals that earlier ones consumed.

    Args:
        facts: of each request.
        used: digest of each consumed approval, and what consumed it.
        state: decides and prepares the statement.
        on_statement: called with each statement, before the next request is decided.

    Returns:
        One statement for each request. An approval that one consumes does not count for those after it.
    """
    taken = dict(used)
    statements: list[PendingStatement] = []
    for submitted in facts:
        unused = drop_used_approvals(submitted, taken) if taken else submitted
        statement = state(unused)
        if unused is not submitted and not statement.single_use:
            # The quorums that apply count approvals until they expire, so that a used one still counts.
            statement = state(submitted)
        if counted := statement.counted:
            taken |= dict.fromkeys(counted, "another decision made together with this one")
        statements.append(statement)
        if on_statement is not None:
            on_statement(statement)
    return statements


def drop_used_approvals(facts: Facts, used: Mapping[str, str]) -> Facts:
    """Remove the approvals listed in `used`, and add a line for each that says what consumed it."""
    dropped = [approval for approval in facts.approvals if approval.approval_digest in used]
    if not dropped:
        return facts
    lines = [
        f"approval.used: `{approval.source}` counts once, and counted for {used[approval.approval_digest]}"
        for approval in dropped
    ]
    unused = tuple([approval for approval in facts.approvals if approval.approval_digest not in used])
    return structs.replace(facts, approvals=unused, unusable=(*lines, *facts.unusable))


def preview_decision(snapshot: Snapshot, facts: Facts, now: Instant, store: Store) -> Decision:
    """Preview a decision, treating approvals already consumed in this log as absent.

    Signs and logs nothing.

    Args:
        snapshot: the policies.
        facts: of the request.
        now: the time of the decision.
        store: the log's entries.

    Raises:
        AuditError: the log cannot be read.
    """
    engine = Engine(snapshot)

    def state(unused: Facts) -> PendingStatement:
        decision = engine.decide(unused, now)
        return PendingStatement(decision, b"", is_single_use(snapshot, decision))

    consumption = ApprovalConsumption(snapshot, (facts,))
    last = store.last() if consumption.is_possible else None
    if last is not None:
        consumption.read(store, 0, last.entry + 1)
    return state_sequentially((facts,), consumption.used, state)[0].decision
