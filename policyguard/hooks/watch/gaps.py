"""Notices that the watch did not run: a stopped launcher does not watch, and its job goes on.

CLOCK_MONOTONIC goes on while a process is stopped, and rests while the machine is suspended, as the job does;
CLOCK_BOOTTIME goes on in both cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from policyguard.hooks.watch.drift import GAP, SUSPENDED, Drift
from policyguard.values import Instant, format_instant

TICK_S = 0.5
"""Time between two ticks: a thread that only sleeps is late only if the process did not run."""

MIN_GAP_S = 3.0
"""A busy machine may delay a thread for less than this."""


class Clocks(NamedTuple):
    """Seconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME."""

    monotonic: float
    boot: float


def read_clocks() -> Clocks:
    """Read both clocks; a system without CLOCK_BOOTTIME cannot tell that it was suspended."""
    monotonic = time.monotonic()
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return Clocks(monotonic, monotonic if boot is None else time.clock_gettime(boot))


class Ticks:
    """Compares the time between two ticks with what it should be.

    Args:
        period_s: time between two checks of the watch; a shorter gap is none.
        clock: supplies the current time, for people.
        clocks: supplies the time that is compared.
    """

    def __init__(
        self, period_s: float, clock: Callable[[], Instant] = time.time_ns, clocks: Callable[[], Clocks] = read_clocks
    ) -> None:
        self._min_s = max(period_s, MIN_GAP_S)
        self._clock, self._clocks = clock, clocks
        self._last, self._last_at = clocks(), clock()

    def tick(self) -> Drift | None:
        """Return the gap since the last tick, if there was one."""
        now, at = self._clocks(), self._clock()
        ran_s = now.monotonic - self._last.monotonic
        suspended_s = now.boot - self._last.boot - ran_s
        between = f"from {format_instant(self._last_at)} to {format_instant(at)}"
        self._last, self._last_at = now, at
        if ran_s >= self._min_s:
            text = f"the job was not watched {between}, {ran_s:.1f} s: its launcher was stopped or did not get to run"
            return Drift("resource.watch", GAP, text)
        if suspended_s >= self._min_s:
            text = f"the machine was suspended {between}, for {suspended_s:.1f} s, and the job with it"
            return Drift("resource.watch", SUSPENDED, text)
        return None
