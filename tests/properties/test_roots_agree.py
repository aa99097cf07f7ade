"""A snapshot that is asked again answers from an index that the first answer did not have."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts
from policyguard.model.policy import Binding
from policyguard.model.request import Request
from policyguard.policy.loader import load
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
    Engine(busy).decide(other.facts, NOW)
    decided = [
        (found.allowed, found.reason_codes, found.determining, found.errored, found.requiring, found.unmet_approvals)
        for found in (Engine(each).decide(world.facts, NOW) for each in (fresh, fresh, fresh, warm, busy, busy))
    ]
    assert len(set(decided)) == 1


LAB = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: member}, {name: lead}, {name: guest}, {name: owner}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs}
rules:
  - {id: members, effect: allow, roles: [member], actions: [job:submit], resources: {type: job}}
  - {id: guests, effect: deny, roles: [guest], actions: [job:submit], resources: {type: job}}
"""


@pytest.mark.parametrize("times", [1, 2], ids=["asked once", "asked again"])
def test_trees_are_bounded_and_a_new_one_decides_the_same(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """I3: with room for two sets of roles, fourteen asked in turn are answered as with room for all."""
    monkeypatch.setattr("policyguard.decide.index.rules.MAX_TREES", 2)
    policies = load({"lab.yaml": LAB.encode()})
    names = ("member", "lead", "guest", "owner")
    sets = [each for size in range(1, 4) for each in combinations(names, size)]
    bindings = [Binding(subject=f"user:u{n}", role=role, domain="*") for n, own in enumerate(sets) for role in own]
    snapshot = Snapshot.of(policies, assign_roles(policies.roles, bindings))
    expected = ["member" in own and "guest" not in own for own in sets]
    for _ in range(2):
        found = []
        for n in range(len(sets)):
            facts = Facts(Request.of(f"user:u{n}", "job:submit", "job:team/vision/run"), {})
            found.append([Engine(snapshot).decide(facts, NOW).allowed for _ in range(times)][-1])
        assert expected == found
    trees = snapshot.rule_indexes["job:submit", "job"].anywhere
    assert 0 < len(trees.seen_once) + len(trees) <= 4
    assert max(len(trees.seen_once), len(trees)) <= 2
