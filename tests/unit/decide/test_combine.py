"""Step 4: which reasons, obligations and rules a decision has, where several rules fire."""

from __future__ import annotations

import pytest

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of

NOW = 1_800_000_000 * 10**9
POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job: {id: "team/{team}/**", actions: [submit], attributes: {gpus: {type: int}, queue: {type: string, optional: true}}}
---
apiVersion: policyguard/v1
kind: Roles
metadata: {name: roles, owner: platform}
roles: [{name: lead}]
---
apiVersion: policyguard/v1
kind: Quorums
metadata: {name: quorums, owner: platform}
quorums: [{id: two, approvers: [{count: 2, roles: [lead]}]}, {id: one, approvers: [{count: 1, roles: [lead]}]}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
"""
ALLOW, DENY = "effect: allow, actions: [job:submit]", "effect: deny, actions: [job:submit]"
REQUIRE = "effect: require, actions: [job:submit]"
SMALL, LARGE, UNKNOWN = "resource.gpus < 9", "resource.gpus > 8", 'resource.queue == "large"'

CASES = {
    "two allows": (
        [f"{ALLOW}, reason: x.b, obligations: [log]", f"{ALLOW}, reason: x.a, obligations: [warn, log]"],
        (True, ("x.a", "x.b"), ("r0", "r1"), (), ("log", "warn")),
    ),
    "two allows of one reason": (
        [f"{ALLOW}, reason: x.a", f"{ALLOW}, reason: x.a, obligations: [log]"],
        (True, ("x.a",), ("r0", "r1"), (), ("log",)),
    ),
    "an allow and one that does not fire": (
        [f"{ALLOW}, obligations: [log]", f"{ALLOW}, reason: x.a, when: {LARGE}"],
        (True, ("rule.allow",), ("r0",), (), ("log",)),
    ),
    "two allows without obligations": ([ALLOW, ALLOW], (True, ("rule.allow",), ("r0", "r1"), (), ())),
    "an allow in error beside one that fires": (
        [f"{ALLOW}, reason: x.a", f"{ALLOW}, when: '{UNKNOWN}'"],
        (True, ("x.a",), ("r0",), ("r1",), ()),
    ),
    "a deny and two allows": (
        [ALLOW, f"{DENY}, reason: x.d, obligations: [tell]", f"{ALLOW}, obligations: [log]"],
        (False, ("x.d",), ("r1",), (), ("tell",)),
    ),
    "two denies": (
        [f"{DENY}, reason: x.d", f"{DENY}, reason: x.c", ALLOW],
        (False, ("x.c", "x.d"), ("r0", "r1"), (), ()),
    ),
    "a deny and a deny in error": (
        [f"{DENY}, reason: x.d", f"{DENY}, reason: x.c, when: '{UNKNOWN}'", ALLOW],
        (False, ("engine.error", "x.d"), ("r0", "r1"), ("r1",), ()),
    ),
    "nothing that fires": ([f"{ALLOW}, when: {LARGE}"], (False, ("engine.no_allow",), (), (), ())),
    "a quorum that is missing": (
        [ALLOW, f"{REQUIRE}, quorum: two, reason: x.q", f"{REQUIRE}, quorum: one, obligations: [ask]"],
        (False, ("needs-approval", "x.q"), ("r1", "r2"), (), ("ask",)),
    ),
    "a quorum that is asked for in error": (
        [ALLOW, f"{REQUIRE}, quorum: two, when: '{UNKNOWN}'"],
        (False, ("needs-approval",), ("r1",), ("r1",), ()),
    ),
    "a quorum and no allow": (
        [f"{REQUIRE}, quorum: two, reason: x.q"],
        (False, ("engine.no_allow",), (), (), ()),
    ),
}


@pytest.mark.parametrize(("rules", "expected"), CASES.values(), ids=CASES)
def test_several_rules_make_one_decision(rules: list[str], expected: tuple[object, ...]) -> None:
    """Allowed or not, the reason codes, the rules that determine it, those in error, and the obligations."""
    text = POLICIES + "".join(f"  - {{id: r{number}, {rule}}}\n" for number, rule in enumerate(rules))
    policies = load({"lab.yaml": text.encode()})
    request = Request.of("user:alice", "job:submit", "job:team/vision/run")
    facts = Facts(request, {"resource.gpus": Fact(8, Assurance.CLAIMED, "request", NOW)})
    decision = Engine(Snapshot.of(policies, grants_of(policies))).decide(facts, NOW)
    assert (
        decision.allowed,
        decision.reason_codes,
        decision.determining,
        decision.errored,
        decision.obligations,
    ) == expected
    asked = tuple(f"r{number}" for number, rule in enumerate(rules) if "quorum" in rule)
    assert decision.requiring == asked
    missing = decision.reason_codes[0] == "needs-approval"
    assert {gap.rule for gap in decision.unmet_approvals} == (set(asked) if missing else set())
