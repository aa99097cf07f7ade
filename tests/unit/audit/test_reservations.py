"""What is reserved for whom, and what ends it, one value at a time; `test_quota_race.py` has the attacks."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from policyguard.audit.entries import RESERVATION_ENTRY
from policyguard.audit.reservation_events import reservation_event, start
from policyguard.audit.reservations import USAGE, Reservations, amount_of, check_path
from policyguard.audit.stores.claims import RESERVATION
from policyguard.audit.stores.memory import MemoryClaims
from policyguard.errors import AuditError, ConfigurationError, EvidenceError
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.policy_store.folder import snapshot_of_text
from policyguard.values import MAX_INTEGER, Value, canonical
from tests.attacks.test_quota_race import GPUS, KEY, NOW, POLICIES, SECOND, submission
from tests.attest_lab import decision_of

SNAPSHOT = snapshot_of_text(POLICIES)
EXPIRES = NOW + 900 * SECOND


def with_fact(facts: Facts, path: str, value: Value) -> Facts:
    return Facts(facts.request, {**facts.entries, path: Fact(value, Assurance.OBSERVED, "quota", NOW)})


def without_usage(facts: Facts) -> Facts:
    return Facts(facts.request, {path: fact for path, fact in facts.entries.items() if path != USAGE})


def decided(facts: Facts, *, allowed: bool = True) -> Decision:
    return structs.replace(decision_of(facts.request, allowed=allowed), facts=facts)


def reservations(claims: MemoryClaims, now: int = NOW) -> Reservations:
    made = Reservations(GPUS, SNAPSHOT, (submission(),), now)
    made.read(claims)
    return made


@pytest.fixture
def claims() -> MemoryClaims:
    """One reservation of 64 for the team `vision`."""
    claims = MemoryClaims()
    made = reservations(claims)
    made.reserve(decided(submission(64)), "d1", EXPIRES)
    assert len(made.write(claims, (submission(),), 1, KEY)) == 1
    return claims


@pytest.mark.parametrize(
    ("gpus", "amount"),
    [(8, 8), (0, 0), (-8, 0), (True, 0), ("8", 0), (MAX_INTEGER, MAX_INTEGER), (MAX_INTEGER + 1, MAX_INTEGER)],
)
def test_a_job_reserves_the_number_that_it_asks_for(gpus: Value, amount: int) -> None:
    """Nothing else is a number, and none makes room for others."""
    assert amount_of(GPUS, SNAPSHOT, with_fact(submission(), GPUS, gpus)) == amount


def test_a_request_that_no_quota_concerns_reserves_nothing() -> None:
    facts = submission(8)
    assert amount_of("resource.nodes", SNAPSHOT, facts) == 0
    assert amount_of(GPUS, SNAPSHOT, submission(8, action="job:logs")) == 0


def test_facts_stay_as_they_are_where_nothing_is_reserved(claims: MemoryClaims) -> None:
    """Another team, a use that nobody knows, and one that is no number; the twin has it added."""
    for facts in (submission(team="speech"), without_usage(submission()), with_fact(submission(), USAGE, "448")):
        assert reservations(claims).add_to_usage(facts) is facts
    assert reservations(claims).add_to_usage(submission(used=448)).entries[USAGE].value == 512
    assert reservations(claims).add_to_usage(submission(used=MAX_INTEGER)).entries[USAGE].value == MAX_INTEGER


def test_a_denial_reserves_nothing(claims: MemoryClaims) -> None:
    made = reservations(claims)
    made.reserve(decided(submission(), allowed=False), "d2", EXPIRES)
    made.reserve(decided(submission(0)), "d3", EXPIRES)
    assert made.write(claims, (), 2, KEY) == []


@pytest.mark.parametrize(
    ("figure", "counts"),
    [
        ({"observed_at": NOW + 2 * SECOND}, False),
        ({"observed_at": NOW + SECOND}, True),
        ({"observed_at": NOW + 2 * SECOND, "assurance": Assurance.CLAIMED}, True),
        ({"observed_at": NOW + 99 * SECOND}, True),
        (None, True),
    ],
    ids=["after the start", "at the start", "claimed", "in the future", "none"],
)
def test_only_a_figure_observed_after_the_start_ends_a_reservation(
    claims: MemoryClaims, figure: dict[str, Any] | None, counts: bool
) -> None:
    """The job is in that figure. A request without one, or with one of tomorrow, gives no room back."""
    start(claims, "d1", NOW + SECOND, KEY)
    facts = without_usage(submission()) if figure is None else submission(**figure)
    reservations(claims, NOW + 10 * SECOND).write(claims, (facts,), 2, KEY)
    assert (claims.find(RESERVATION, ("d1",)) != {}) is counts


@pytest.mark.parametrize(("at", "holds"), [(EXPIRES - 1, True), (EXPIRES, False)])
def test_a_reservation_without_a_start_ends_with_its_decision(claims: MemoryClaims, at: int, holds: bool) -> None:
    value = reservations(claims, at).add_to_usage(submission(used=0)).entries[USAGE].value
    assert value == (64 if holds else 0)
    if holds:
        start(claims, "d1", at, KEY)
        return
    with pytest.raises(EvidenceError, match="the reservation of decision `d1` ended at"):
        start(claims, "d1", at, KEY)


@pytest.mark.parametrize(
    "changes",
    [{"expires": "soon"}, {"expires": ""}, {"at": "today"}, {"amount": "64"}, {"more": 1}],
    ids=["an expiry that is no time", "no expiry", "a time that is none", "an amount in letters", "one more member"],
)
def test_an_auditor_reads_a_malformed_reservation_as_damage(changes: dict[str, Any]) -> None:
    """The operator of a log signs its entries: none of them ends the audit with a traceback."""
    event = {"amount": 64, "at": "2026-03-01T09:00:00Z", "decision_id": "d1", "event": "reserve"}
    event |= {"expires": "2026-03-01T09:15:00Z", "scope": "vision"}
    assert reservation_event(RESERVATION_ENTRY.leaf(canonical(event), (KEY,)), 7).amount == 64
    with pytest.raises(AuditError, match="entry 7: reservation: ") as caught:
        reservation_event(RESERVATION_ENTRY.leaf(canonical(event | changes), (KEY,)), 7)
    assert caught.value.entry == 7


def test_a_configured_number_that_no_job_has_is_a_mistake_also_without_a_rule_on_quotas() -> None:
    """Somebody wrote it; only the default may be without effect."""
    text = POLICIES[: POLICIES.index("  - id: team-quota")].replace("      gpus: {type: int, unit: gpu}\n", "")
    snapshot = snapshot_of_text(text)
    check_path(GPUS, snapshot)
    with pytest.raises(ConfigurationError, match=r"`resource.cores` is in no resource of the schema"):
        check_path("resource.cores", snapshot)
