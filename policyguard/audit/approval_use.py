"""Approvals that count once: what a decision uses up, and appending it only if nothing has used that up before.

A quorum with `once: true` is met by approvals that no logged allow has counted yet. The allow itself is the record, so
it cannot be lost or taken back without the log showing it. `preview_decision` decides
without adding to the log, for explanations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import structs

from policyguard.audit.log import Log
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores import Store
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.values import Instant


class PendingStatement(msgspec.Struct, frozen=True):
    """A decision, the payload that states it, and the approvals that it uses up: digest to when each was made."""

    decision: Decision
    payload: bytes
    spends: Mapping[str, Instant]


class ApprovalConsumption:
    """The approvals that decisions about to be logged use up. `used` says of those that are used up already by what."""

    def __init__(self, approvals: Mapping[str, Instant]) -> None:
        self._approvals = approvals
        self.used: dict[str, str] = {}

    def append(self, log: Log, leaves: Sequence[bytes]) -> tuple[Receipt, ...] | None:
        """Return the receipts once the leaves are durable; None, and nothing is added, if an approval is used up.

        Raises:
            AuditError: the log cannot be written or read; nothing was added.
        """
        if not self._approvals:
            return log.append_many(leaves)
        # INVARIANT I198: an approval that counts once is used up in the transaction that logs the allow, or not at all.
        return log.append_if(leaves, self._is_unspent)

    def _is_unspent(self, store: Store, start: int, stop: int) -> bool:
        # Only what counts once pays for this import, not the start of every hook.
        from policyguard.audit.approval_use_scan import find_used_approvals

        self.used |= _words(find_used_approvals(store, start, stop, self._approvals))
        return not self.used


def approvals_to_consume(snapshot: Snapshot, decision: Decision) -> dict[str, Instant]:
    """Return the approvals that this decision uses up: all that were given for it, where a quorum counts them once.

    Also those that it did not need: who was asked for more approvals than enough has approved one request, not two.
    """
    if not decision.requiring or not snapshot.spends(decision):
        return {}
    return {each.approval_digest: each.approved_at for each in decision.facts.approvals}


def state_sequentially(facts: Sequence[Facts], state: Callable[[Facts], PendingStatement]) -> list[PendingStatement]:
    """Return a statement on each, in order; an approval that one of them uses up counts for none after it."""
    taken: dict[str, str] = {}
    found: list[PendingStatement] = []
    for each in facts:
        stated = state(each)
        if not taken.keys().isdisjoint(stated.spends):
            stated = state(drop_used_approvals(each, taken))
        taken |= dict.fromkeys(stated.spends, "another decision made together with this one")
        found.append(stated)
    return found


def drop_used_approvals(facts: Facts, used: Mapping[str, str]) -> Facts:
    """Return the facts without the approvals that `used` names by digest, and with a line that says what used each."""
    kept = tuple([each for each in facts.approvals if each.approval_digest not in used])
    lines = [
        f"approval.used: `{each.source}` counts once, and counted for {used[each.approval_digest]}"
        for each in facts.approvals
        if each.approval_digest in used
    ]
    return structs.replace(facts, approvals=kept, unusable=(*lines, *facts.unusable))


def preview_decision(snapshot: Snapshot, facts: Facts, now: Instant, store: Store | None) -> Decision:
    """Return what would be decided, with what is used up by now in this log; nothing is signed or logged.

    Raises:
        AuditError: the log cannot be read.
    """
    from policyguard.audit.approval_use_scan import find_used_approvals

    while True:
        decision = Engine(snapshot).decide(facts, now)
        spends = approvals_to_consume(snapshot, decision)
        if store is None or not spends:
            return decision
        last = store.last()
        used = find_used_approvals(store, 0, 0 if last is None else last.entry + 1, spends)
        if not used:
            return decision
        facts = drop_used_approvals(facts, _words(used))


def _words(used: Mapping[str, int]) -> dict[str, str]:
    return {digest: f"entry {entry} of the log" for digest, entry in used.items()}
