"""Three answers to one question: the engine, a stock casbin enforcer over lowered rows, the naive oracle."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from policyguard.analysis.check_engine import check_engine
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.snapshot import Snapshot
from policyguard.model.policy import Binding, EntityType, PolicySet, Role, Rule, Schema
from tests.differential.casbin_lab import lab


@pytest.mark.parametrize("seed", range(3))
def test_engine_casbin_and_oracle_agree_on_the_lab(seed: int) -> None:
    """1,000 requests a seed, no difference; every rule took part and both answers occurred."""
    policy_set = lab()
    report = check_engine(policy_set, requests=1000, seed=seed)
    assert report.to_text().endswith("engine, casbin and oracle agree")
    assert report.differences == ()
    assert report.unjudged == 0
    assert 20 < report.allowed < 900
    assert set(report.reached) == {rule.id for rule in policy_set.rules}


@pytest.mark.parametrize("lost", ["pickle", "big", "freeze", "outside"])
def test_a_snapshot_that_lost_a_rule_is_found_out(lost: str) -> None:
    """The comparison sees a fault within five seeds: a deny or a requirement that the engine does not know."""
    policy_set = lab()
    fewer = replace(policy_set, rules=tuple(rule for rule in policy_set.rules if rule.id != lost))
    snapshot = Snapshot.of(fewer, assign_roles(fewer.roles, fewer.bindings))
    reports = (check_engine(policy_set, requests=1000, seed=seed, snapshot=snapshot) for seed in range(5))
    found = next(r for r in reports if any(f.engine and not f.casbin and not f.oracle for f in r.failures))
    assert not found.ok
    assert found.to_text().endswith("unexplained differences")


def chain(links: int) -> PolicySet:
    roles = [Role(name=f"r{n}", inherits=(f"r{n + 1}",) if n < links else ()) for n in range(links + 1)]
    job = EntityType(name="job", actions=("job:submit",), id_pattern="team/{team}/**")
    schema = Schema(subjects={"user": EntityType(name="user")}, resources={"job": job})
    common = {"actions": ("job:submit",), "resource_types": ("job",)}
    rules = (
        Rule(id="anyone", effect="allow", actions=("job:submit",), resource_types=("job",)),
        Rule(id="not-the-last", effect="deny", roles=(f"r{links}",), **common),  # type: ignore[arg-type]
    )
    return PolicySet(
        schema=schema,
        roles=tuple(roles),
        rules=rules,
        bindings=(Binding(subject="user:alice", role="r0", domain="vision"),),
    )


def test_the_depth_limit_of_casbin_is_known_and_named() -> None:
    """H11: a deny ten links away is invisible to casbin, seen by engine and oracle, and reported as casbin's limit."""
    report = check_engine(chain(9), requests=300)
    assert report.ok
    assert {difference.hazard for difference in report.differences} == {"H11"}
    assert all(difference.casbin and not difference.engine for difference in report.differences)
    assert "differences explained by H11" in report.to_text()


def test_a_shallower_chain_shows_no_difference() -> None:
    """The twin: one link fewer."""
    assert check_engine(chain(8), requests=300).differences == ()
