"""The time between two ticks of the watch, by two clocks."""

from __future__ import annotations

import pytest

from policyguard.hooks.watch.gaps import MIN_GAP_S, Clocks, Ticks


@pytest.mark.parametrize(
    ("period_s", "ran_s", "suspended_s", "reason"),
    [
        (1, 0.5, 0, None),
        (1, MIN_GAP_S - 0.1, 0, None),
        (1, MIN_GAP_S, 0, "watch.gap"),
        (60, 59, 0, None),
        (60, 60, 0, "watch.gap"),
        (1, 0.5, 3600, "watch.suspended"),
        (1, 5, 3600, "watch.gap"),
        (1, 0.5, 1, None),
    ],
)
def test_a_late_tick(period_s: float, ran_s: float, suspended_s: float, reason: str | None) -> None:
    """Stopped or suspended, from when to when; a second of delay is what busy machines do."""
    clocks = iter([Clocks(100.0, 500.0), Clocks(100.0 + ran_s, 500.0 + ran_s + suspended_s)])
    times = iter([0, round((ran_s + suspended_s) * 1e9)])
    drift = Ticks(period_s, lambda: next(times), lambda: next(clocks)).tick()
    assert (drift.reason if drift is not None else None) == reason
    if drift is not None:
        assert "from 1970-01-01T00:00:00Z to " in drift.description


def test_each_gap_is_one() -> None:
    """The time after a gap counts from its end."""
    clocks = iter([Clocks(0, 0), Clocks(10, 10), Clocks(10.5, 10.5)])
    ticks = Ticks(1, lambda: 0, lambda: next(clocks))
    assert ticks.tick() is not None
    assert ticks.tick() is None
