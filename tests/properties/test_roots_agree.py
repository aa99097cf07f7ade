"""A snapshot that is asked again answers from an index that the first answer did not have."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.properties.worlds import NOW, World, fresh_snapshot_of, snapshot_of, worlds


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds(), worlds())
def test_no_decision_depends_on_those_before_it(world: World, other: World) -> None:
    """First, second and third time, and with every index built beforehand: one request, one decision."""
    fresh, busy, warm = (
        fresh_snapshot_of(world.policies),
        fresh_snapshot_of(world.policies),
        snapshot_of(world.policies),
    )
    busy.decide(other.facts, NOW)
    decided = [
        (found.allowed, found.reason_codes, found.determining, found.errored, found.requiring, found.gaps)
        for found in (each.decide(world.facts, NOW) for each in (fresh, fresh, fresh, warm, busy, busy))
    ]
    assert len(set(decided)) == 1
