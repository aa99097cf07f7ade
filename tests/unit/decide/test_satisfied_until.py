"""Until when an allow lives that rests on approvals."""

from __future__ import annotations

import pytest

from policyguard.decide.quorum import satisfied_until
from policyguard.model.facts import Approval, Assurance, Facts
from policyguard.model.policy import Approvers, Quorum
from policyguard.model.request import Request
from policyguard.values import NANOSECONDS_PER_S, Instant

S = NANOSECONDS_PER_S
NOW = 10_000 * S
HOUR = 3_600 * S
REQUEST = Request.of("user:ines", "job:breakglass-kill", "job:team/vision/run-21")
PERSONS = {"user:ines": "ines", "user:omar": "omar", "user:dan": "dan"}


def roles_at(account: str, domain: str | None, now: Instant) -> tuple[str, ...]:
    """The engineers' shift ends a minute from now: who may approve is asked as of the decision."""
    return ("engineer",) if now <= NOW + 60 * S else ()


def lasting(*approvals: tuple[str, Instant, Instant], count: int = 1, max_age_s: int | None = 3_600) -> Instant:
    given = tuple(Approval(who, Assurance.ATTESTED, "t", at, until, "00") for who, at, until in approvals)
    facts = Facts(REQUEST, {}, approvals=given, contributors=())
    quorum = Quorum(id="q", approvers=(Approvers(count=count, roles=("engineer",)),), max_age_s=max_age_s)
    return satisfied_until(quorum, "rule", facts, "vision", NOW, NOW + 24 * HOUR, PERSONS, roles_at)


@pytest.mark.parametrize(
    ("approvals", "count", "expected"),
    [
        pytest.param([("user:omar", NOW, NOW + 9 * HOUR)], 1, NOW + HOUR, id="an hour after it was given"),
        pytest.param([("user:omar", NOW - HOUR // 2, NOW + 9 * HOUR)], 1, NOW + HOUR // 2, id="not from the decision"),
        pytest.param([("user:omar", NOW, NOW + 5 * S)], 1, NOW + 5 * S, id="nor longer than it says itself"),
        pytest.param(
            [("user:omar", NOW - HOUR // 2, NOW + 9 * HOUR), ("user:dan", NOW, NOW + 9 * HOUR)],
            1,
            NOW + HOUR,
            id="the later one suffices",
        ),
        pytest.param(
            [("user:omar", NOW - HOUR // 2, NOW + 9 * HOUR), ("user:dan", NOW, NOW + 9 * HOUR)],
            2,
            NOW + HOUR // 2,
            id="both are needed",
        ),
        pytest.param([("user:omar", NOW - HOUR, NOW + 9 * HOUR)], 1, NOW + 1, id="at its very last moment"),
    ],
)
def test_a_decision_lives_no_longer_than_its_approvals(
    approvals: list[tuple[str, Instant, Instant]], count: int, expected: Instant
) -> None:
    """I9: its end is that of the last set of approvals that suffices, by age and by what they say."""
    assert expected == lasting(*approvals, count=count)


def test_a_quorum_without_an_age_ends_with_the_approval() -> None:
    """The twin: nothing is shortened that nobody limited."""
    assert lasting(("user:omar", NOW - 90 * HOUR, NOW + 2 * HOUR), max_age_s=None) == NOW + 2 * HOUR
    assert lasting(("user:omar", NOW, NOW + 99 * HOUR), max_age_s=None) == NOW + 24 * HOUR
