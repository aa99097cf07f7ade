"""A pattern about the resource's own domain reaches no type whose ids say nothing of one there."""

from __future__ import annotations

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of

POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job: {id: "team/{team}/**", actions: [read]}
  disk: {id: "**", actions: [read]}
  node: {id: "rack/{team}/*", actions: [read]}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: reading}
rules:
  - {id: readers, effect: allow, actions: ["*"], resources: {id: "team/{team}/**"}}
"""


def test_an_id_that_resembles_a_teams_is_not_one() -> None:
    """INVARIANT I3: `disk` has no domain, so `team/{team}/**` is not about it, whatever its ids look like."""
    policy_set = load({"lab.yaml": POLICIES.encode()})
    snapshot = Snapshot.of(policy_set, grants_of(policy_set))
    assert policy_set.rules[0].resource_types == ("job", "node")
    answers = {
        resource: Engine(snapshot).decide(Facts(Request.of("user:ann", action, resource)), 1).allowed
        for action, resource in (
            ("job:read", "job:team/red/run"),
            ("disk:read", "disk:team/red/run"),
            ("node:read", "node:rack/red/1"),
        )
    }
    assert answers == {"job:team/red/run": True, "disk:team/red/run": False, "node:rack/red/1": False}
