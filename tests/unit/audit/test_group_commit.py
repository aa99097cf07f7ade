"""Group commit: who arrives while a transaction is under way shares the next one, its success and its failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from policyguard.audit.check import check_log
from policyguard.audit.group_commit import MAX_GROUP, Waiter, WaitingLeaves, admit
from policyguard.audit.head import PolicyHead
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import PoliciesMovedOn, PolicyUse
from policyguard.audit.receipt import Receipt
from policyguard.audit.stores import Row
from policyguard.audit.stores.memory import MemoryStore
from policyguard.errors import AuditError, ConfigurationError
from tests.attest_lab import LOG_KEY, ORIGIN


class SlowStore(MemoryStore):
    """A store whose first transaction waits for `go`, as a disk would; it counts transactions."""

    def __init__(self) -> None:
        super().__init__(ORIGIN)
        self.begun, self.go = threading.Event(), threading.Event()
        self.transactions = 0
        self.is_full = False

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        self.transactions += 1
        self.begun.set()
        assert self.go.wait(10)
        if self.is_full and self.transactions > 1:
            raise AuditError("no space left", entry=None)
        super().append(grow)


def race(store: SlowStore, log: Log, count: int) -> tuple[list[Receipt], list[Exception]]:
    """One thread is inside its transaction while `count` others arrive; then the disk goes on."""
    receipts: list[Receipt] = []
    problems: list[Exception] = []

    def work(leaf: bytes) -> None:
        try:
            receipts.append(log.append(leaf))
        except AuditError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(b"%d" % n,)) for n in range(count + 1)]
    threads[0].start()
    assert store.begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(log._queue) < count:
        threading.Event().wait(0.001)
    store.go.set()
    for thread in threads:
        thread.join()
    return receipts, problems


def test_waiting_threads_share_one_transaction() -> None:
    """Eleven entries, two transactions: the one under way, and one for the ten that waited."""
    store = SlowStore()
    log = Log.open(store, LOG_KEY)
    receipts, problems = race(store, log, 10)
    assert (len(receipts), problems, store.transactions) == (11, [], 2)
    assert check_log(store, (log.verifier,)).checkpoints == 2


def test_failed_transaction_fails_all_that_share_it() -> None:
    """Nobody in the failed group is told otherwise, and the entry before it stays."""
    store = SlowStore()
    store.is_full = True
    log = Log.open(store, LOG_KEY)
    receipts, problems = race(store, log, 5)
    assert (len(receipts), [str(problem) for problem in problems]) == (1, ["no space left"] * 5)
    assert check_log(store, (log.verifier,)).checkpoint.size == 1


def test_stranger_failure_reaches_its_caller_and_frees_the_others() -> None:
    """An unexpected error in one transaction neither hangs nor poisons the log."""
    store = SlowStore()
    store.go.set()
    log = Log.open(store, LOG_KEY)
    with pytest.raises(TypeError):
        log.append("text")  # type: ignore[arg-type]
    assert log.append(b"bytes").index == 0


def test_group_larger_than_the_limit_is_one_transaction() -> None:
    """`append_many` is never split: all of it stands under one checkpoint."""
    store = SlowStore()
    store.go.set()
    log = Log.open(store, LOG_KEY)
    receipts = log.append_many([b"x"] * (MAX_GROUP + 1))
    assert (store.transactions, len({receipt.checkpoint for receipt in receipts})) == (1, 1)


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([1, 1, 1], [[1, 1, 1]]),
        ([MAX_GROUP, 1], [[MAX_GROUP], [1]]),
        ([1, MAX_GROUP - 1], [[1, MAX_GROUP - 1]]),
        ([1, MAX_GROUP], [[1], [MAX_GROUP]]),
        ([MAX_GROUP + 1, 1], [[MAX_GROUP + 1], [1]]),
    ],
)
def test_a_group_is_as_many_as_fit_and_never_none(sizes: list[int], groups: list[list[int]]) -> None:
    """An empty group would leave the first of them waiting for ever."""
    queue = WaitingLeaves()
    for size in sizes:
        queue.add(Waiter([b""] * size, None))
    assert [[len(waiter.leaves) for waiter in queue.take_group()] for _ in groups] == groups
    assert (len(queue), queue.take_group()) == (0, [])


def test_of_a_group_only_those_with_outdated_policies_are_refused() -> None:
    """And the first of two that would edit an epoch decides what it is; those without policies wait for nobody."""
    seen = {"lab": PolicyHead(2, "d")}
    uses = [
        None,
        PolicyUse(name="lab", epoch=1, digest="d", is_signed=False),
        PolicyUse(name="lab", epoch=3, digest="e", is_signed=False),
        PolicyUse(name="lab", epoch=3, digest="f", is_signed=False),
        PolicyUse(name="lab", epoch=2, digest="d", is_signed=False),
    ]
    group = [Waiter([b""], use) for use in uses]
    assert admit(group, seen, lambda _: None) == [group[0], group[2]]
    refusals = [type(waiter.problem) for waiter in group if waiter.problem is not None]
    assert refusals == [ConfigurationError, PoliciesMovedOn, ConfigurationError]
    assert [waiter.is_answered for waiter in group] == [False, True, False, True, True]
