"""Decisions that depend on what the log holds: approvals that count once, and reservations.

They are made inside the transaction that logs them, so that no other process or thread decides in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from policyguard.attest.keys import PrivateKey
from policyguard.audit.approval_use import ApprovalConsumption, PendingStatement, state_sequentially
from policyguard.audit.stores import Store
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts

if TYPE_CHECKING:
    # Annotations only: a hook without quotas starts without the module.
    from policyguard.audit.reservations import Reservations


class DecisionsInTransaction:
    """Requests that are decided together. `is_needed` says whether the log has to be asked at all."""

    def __init__(self, snapshot: Snapshot, facts: Sequence[Facts], reservations: Reservations | None) -> None:
        self._facts = facts
        self._consumption = ApprovalConsumption(snapshot, facts)
        self._reservations = reservations if reservations is not None and reservations.is_possible else None
        self._store: Store | None = None
        self._next = 0
        self.is_needed = self._consumption.is_possible or self._reservations is not None

    def read(self, store: Store, start: int, stop: int) -> None:
        """Read what the entries up to before `stop` have taken; see `Log.append_after`.

        Args:
            store: the entries.
            start: the first entry that was not read yet.
            stop: the entry after the last one.
        """
        self._store, self._next = store, stop
        self._consumption.read(store, start, stop)

    def decide(self, state: Callable[[Facts], PendingStatement]) -> list[PendingStatement]:
        """Decide about each request in order; without a log that was read, as if it were empty."""
        reservations = self._reservations
        if reservations is None:
            return state_sequentially(self._facts, self._consumption.used, state)
        if self._store is not None:
            reservations.read(self._store.claims)

        def reserve(statement: PendingStatement) -> None:
            if statement.decision.allowed:
                reservations.reserve_stated(statement.decision, statement.payload)

        return state_sequentially(
            self._facts, self._consumption.used, lambda facts: state(reservations.add_to_usage(facts)), reserve
        )

    def write(self, statements: Sequence[PendingStatement], key: PrivateKey) -> list[bytes]:
        """Note what the decisions take, and make the entries that follow them in the log; inside the transaction."""
        if self._store is None:
            return []
        claims = self._store.claims
        self._consumption.write(claims, statements, self._next)
        if self._reservations is None:
            return []
        return self._reservations.write(claims, self._facts, self._next + len(statements), key)
