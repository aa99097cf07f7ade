"""Single-use approvals: which of them the log has consumed, and decisions without those.

A quorum with `once: true` is met by approvals that no logged allow has counted yet. The allow itself is the record, so
it cannot be lost or taken back without the log showing it. Where a decision may consume approvals, it is made inside
the transaction that logs it, on the approvals that are still unused at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import structs

from policyguard.audit.stores import Store
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.values import Instant


class PendingStatement(msgspec.Struct, frozen=True):
    """A decision before it is signed: its payload, and whether a quorum that applied is single-use."""

    decision: Decision
    payload: bytes
    single_use: bool

    @property
    def consumed(self) -> tuple[str, ...]:
        """The digests of the approvals that this decision consumes: all that were submitted, if it is an allow.

        That includes approvals beyond the required number: two approvals of one request allow it once, not twice.
        """
        if not self.single_use or not self.decision.allowed:
            return ()
        return tuple([approval.approval_digest for approval in self.decision.facts.approvals])


class ApprovalConsumption:
    """The approvals that pending decisions may consume. `used` says which are consumed already, and by what."""

    def __init__(self, snapshot: Snapshot, facts: Iterable[Facts]) -> None:
        self._approvals = {
            approval.approval_digest: approval.approved_at
            for request_facts in facts
            if request_facts.approvals and request_facts.request.action in snapshot.single_use_actions
            for approval in request_facts.approvals
        }
        self.used: dict[str, str] = {}

    @property
    def is_possible(self) -> bool:
        """True if a decision may consume an approval; otherwise the log need not be read."""
        return bool(self._approvals)

    def read(self, store: Store, start: int, stop: int) -> None:
        """Add to `used` the approvals that entries from `start` to before `stop` have consumed.

        Args:
            store: the store of the log.
            start: the first entry.
            stop: the entry after the last one.

        Raises:
            AuditError: an entry cannot be read; which approvals it consumed is not known.
        """
        # Imported here, so that only single-use approvals pay for it and not the start of every hook.
        from policyguard.audit.approval_use_scan import find_used_approvals

        entries = find_used_approvals(store, start, stop, self._approvals)
        self.used |= {digest: f"entry {entry} of the log" for digest, entry in entries.items()}


def is_single_use(snapshot: Snapshot, decision: Decision) -> bool:
    """Check whether a quorum that applied to this decision is single-use."""
    quorums = (snapshot.by_id[rule_id].quorum for rule_id in decision.requiring)
    return any(snapshot.quorums[quorum].once for quorum in quorums if quorum is not None)


def state_sequentially(
    facts: Iterable[Facts], used: Mapping[str, str], state: Callable[[Facts], PendingStatement]
) -> list[PendingStatement]:
    """Decide about each request in order, each without the approvals that are consumed already.

    Args:
        facts: of each request.
        used: digest of each consumed approval, and what consumed it.
        state: decides and prepares the statement.

    Returns:
        One statement for each request. An approval that one consumes does not count for those after it.
    """
    taken = dict(used)
    statements: list[PendingStatement] = []
    for submitted in facts:
        unused = drop_used_approvals(submitted, taken)
        statement = state(unused)
        if unused is not submitted and not statement.single_use:
            # The quorums that apply count approvals until they expire, so that a used one still counts.
            statement = state(submitted)
        taken |= dict.fromkeys(statement.consumed, "another decision made together with this one")
        statements.append(statement)
    return statements


def drop_used_approvals(facts: Facts, used: Mapping[str, str]) -> Facts:
    """Remove the approvals whose digests `used` lists, and add a line that says what consumed each."""
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
    """Preview the decision, treating approvals already consumed in this log as absent. Nothing is signed or logged.

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
