"""How time is taken: each call by itself, contestants in turns, ratios inside one round.

A shared machine drifts by more than the differences we care about, so contestants are timed in alternating rounds and a
ratio is the median over rounds of (median call of the one / median call of the other).
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Call: TypeAlias = Callable[[Any], object]

NANOSECONDS_PER_US = 1_000


@dataclass(slots=True)
class Contestant:
    """Something to be timed: `call` on each of `inputs`, again and again."""

    call: Call
    inputs: Sequence[Any]
    rounds: list[list[int]] = field(default_factory=list)
    """Nanoseconds of each call, one list a round."""

    @property
    def calls(self) -> int:
        return sum(len(times) for times in self.rounds)

    @property
    def p50_us(self) -> float:
        return self.quantile_us(0.5)

    @property
    def p99_us(self) -> float:
        return self.quantile_us(0.99)

    def quantile_us(self, share: float) -> float:
        """Return the time that this share of all calls stays within."""
        times = sorted(duration for times in self.rounds for duration in times)
        return times[min(len(times) - 1, int(len(times) * share))] / NANOSECONDS_PER_US

    def ratio_to(self, other: Contestant) -> float:
        """Return how many times slower this one is: the median of the rounds' ratios of medians."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(statistics.median(mine) / statistics.median(theirs) for mine, theirs in pairs)


def race(contestants: Mapping[str, Contestant], *, rounds: int, budget_s: float) -> None:
    """Time every contestant in every round, for about `budget_s` each, each input at most five times."""
    for contestant in contestants.values():
        contestant.call(contestant.inputs[0])
    for _ in range(rounds):
        for contestant in contestants.values():
            gc.collect()
            contestant.rounds.append(_round(contestant, budget_s))


def _round(contestant: Contestant, budget_s: float, *, passes: int = 5) -> list[int]:
    """Return the times of one round; never fewer than two calls: one allowed, one denied."""
    clock, call = time.perf_counter_ns, contestant.call
    times: list[int] = []
    end = clock() + int(budget_s * 1e9)
    for _ in range(passes):
        for value in contestant.inputs:
            begun = clock()
            call(value)
            done = clock()
            times.append(done - begun)
            if done > end and len(times) >= 2:
                return times
    return times


@dataclass(frozen=True, slots=True)
class Threaded:
    """What several threads saw together: calls a second, and the time of a call as its caller feels it."""

    threads: int
    rate_per_s: float
    p50_us: float
    p99_us: float
    failure: str | None = None
    """The name of what a call raised; then the numbers are zero."""


def threaded(prepare: Callable[[], Call], inputs: Sequence[Any], *, threads: int, budget_s: float) -> Threaded:
    """Measure `threads` threads for about `budget_s`; each prepares its own call first, in itself."""
    finished: list[list[int]] = []
    failures: list[str] = []
    barrier = threading.Barrier(threads + 1)

    def work() -> None:
        try:
            lane = Contestant(prepare(), inputs)
        finally:
            barrier.wait()
        try:
            finished.append(_round(lane, budget_s, passes=1_000_000))
        except Exception as problem:  # noqa: BLE001 - some engines cannot be shared by threads; that is a result
            failures.append(type(problem).__name__)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    elapsed_s = time.perf_counter() - begun
    if failures:
        return Threaded(threads, 0, 0, 0, failures[0])
    together = Contestant(len, inputs, finished)
    return Threaded(threads, together.calls / elapsed_s, together.p50_us, together.p99_us)
