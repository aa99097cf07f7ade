"""Groups the leaves of waiting threads: the first thread commits for all that arrived meanwhile. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from policyguard.audit.head import PolicyHead
from policyguard.audit.policy_epochs import PoliciesMovedOn, PolicyUse, check_use, with_use
from policyguard.audit.receipt import Receipt
from policyguard.errors import AuditError, ConfigurationError

MAX_GROUP = 4096
"""The maximum number of entries in one transaction; more wait for the next one."""


class Waiter:
    """The leaves of one caller, with their receipts or the error."""

    __slots__ = ("leaves", "policies", "problem", "receipts")

    def __init__(self, leaves: Sequence[bytes], policies: PolicyUse | None) -> None:
        self.leaves = leaves
        self.policies = policies
        self.receipts: tuple[Receipt, ...] | None = None
        self.problem: BaseException | None = None

    @property
    def is_answered(self) -> bool:
        return self.receipts is not None or self.problem is not None

    def answer(self) -> tuple[Receipt, ...]:
        """Return the receipts.

        Raises:
            AuditError: no receipt is released.
            ConfigurationError: the log has seen newer policies.
        """
        if self.receipts is not None:
            return self.receipts
        if isinstance(self.problem, PoliciesMovedOn | ConfigurationError):
            raise self.problem
        raise AuditError(
            f"{self.problem}", entry=getattr(self.problem, "entry", None), help=getattr(self.problem, "help", None)
        ) from self.problem


class WaitingLeaves:
    """The waiting callers, in order of arrival. Thread-safe."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiters)

    def add(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiters.append(waiter)

    def take_group(self) -> list[Waiter]:
        """Remove and return the first waiters whose leaves fit one transaction; always at least one."""
        with self._lock:
            count, size = 0, 0
            for waiter in self._waiters:
                size += len(waiter.leaves)
                if count and size > MAX_GROUP:
                    break
                count += 1
            group = self._waiters[:count]
            del self._waiters[:count]
        return group


def admit(
    group: Sequence[Waiter],
    known: Mapping[str, PolicyHead],
    check_room: Callable[[Mapping[str, PolicyHead]], None],
) -> list[Waiter]:
    """Set the error of each waiter whose policies are refused, and return the other waiters.

    Args:
        group: the waiters.
        known: the policies that the log has seen.
        check_room: raises if the head file has no room for these policies.
    """
    for waiter in group:
        if waiter.policies is not None:
            try:
                check_use(waiter.policies, known)
                after = with_use(waiter.policies, known)
                if after is not known:
                    check_room(after)
                    known = after
            except (PoliciesMovedOn, ConfigurationError) as problem:
                waiter.problem = problem
    return [waiter for waiter in group if waiter.problem is None]


def hand_out(receipts: Sequence[Receipt], waiters: Sequence[Waiter]) -> None:
    """Give each waiter the receipts of its leaves."""
    at = 0
    for waiter in waiters:
        waiter.receipts = tuple(receipts[at : at + len(waiter.leaves)])
        at += len(waiter.leaves)
