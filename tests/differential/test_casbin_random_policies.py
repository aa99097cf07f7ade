"""Random policies over the lab's schema: engine, stock casbin and oracle decide alike, whatever the rules are."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from policyguard.analysis.check_engine import check_engine
from policyguard.errors import PolicyErrors
from policyguard.model.policy import PolicySet
from policyguard.policy.loader import load
from tests.differential.casbin_lab import ROLES, SCHEMA

JOB_CONDITIONS = (
    "resource.gpus <= 8",
    "resource.gpus > 8 || resource.dirty",
    "resource.dirty == false",
    "!resource.dirty",
    'resource.queue == "batch"',
    'resource.queue in ["batch", "interactive"] && resource.gpus != 9',
    "has(resource.gpus) && resource.gpus == 8",
    "!has(resource.queue)",
    "has(resource.limit) || resource.dirty",
    'resource.image.startsWith("old/")',
    'glob(resource.image, "registry/*/v**")',
    'under(resource.image, "registry")',
    'resource.labels["owner"] == subject.id',
    '"owner" in resource.labels',
    "size(resource.hosts) == 0",
    'resource.hosts.all(h, h.endsWith(".lab"))',
    "resource.hosts.exists(h, h == subject.id)",
    'resource.checkpoints.exists_one(c, c.format == "pickle")',
    "resource.checkpoints.all(c, c.producer == subject.id)",
    'resource.checkpoints.filter(c, c.format == "pickle").size() > 0',
    "10 / resource.gpus > 1",
    "(resource.gpus > 4 ? resource.dirty : resource.gpus == 2)",
    "resource.started + resource.limit < now",
    'now - resource.started > duration("1h")',
    'now < timestamp("2026-01-20T00:00:00Z")',
    'ip.in(context.address, "10.0.0.0/8")',
    "subject.level >= 3",
    'resource.domain == "vision"',
    'subject.id == "user:bob" || subject.type == "job"',
    'resource.id.matches("^team/[a-z]+/run-[0-9]$")',
    'action == "job:kill" || resource.gpus < 100',
)
PATTERNS = ("team/{team}/**", "team/vision/*", "team/*/run-1", "team/{team}/nightly-*", "team/speech", "team/**", "**")


def rule(pick: random.Random, number: int) -> dict[str, Any]:
    """Return one rule about jobs as YAML would spell it."""
    made: dict[str, Any] = {"id": f"r{number}", "effect": pick.choice(["allow", "allow", "allow", "deny", "require"])}
    if pick.random() < 0.5:
        made["roles"] = pick.sample(["researcher", "lead", "admin", "auditor"], pick.randrange(1, 3))
    elif pick.random() < 0.3:
        made["subjects"] = pick.sample(["user:alice", "user:bob", "job:nightly", "user:zoe"], pick.randrange(1, 3))
    made["actions"] = pick.choice([["job:submit"], ["job:kill"], ["job:submit", "job:kill"], ["*"]])
    made["resources"] = {"type": "job"}
    if pick.random() < 0.6:
        made["resources"]["id"] = pick.choice(PATTERNS)
    if pick.random() < 0.75:
        chosen = pick.sample(JOB_CONDITIONS, pick.choice([1, 1, 2]))
        made["when"] = pick.choice([" && ", " || "]).join(f"({one})" for one in chosen)
    if made["effect"] == "require":
        made["quorum"] = pick.choice(["two-leads", "lead-and-auditor"])
    if pick.random() < 0.1:
        made["notBefore"] = "2026-01-10T00:00:00Z"
    if pick.random() < 0.1:
        made["expires"] = "2026-01-25T00:00:00Z"
    return made


def world(seed: int) -> PolicySet:
    """Return a policy set of random rules; one that does not load loses the rules that the errors name."""
    pick = random.Random(seed)
    rules = [rule(pick, number) for number in range(pick.randrange(1, 14))]
    scoped = [rule(pick, number) for number in range(20, 20 + pick.randrange(3))]
    return _loaded(rules, scoped, pick.choice(["vision", "speech"]))


def _loaded(rules: list[dict[str, Any]], scoped: list[dict[str, Any]], scope: str) -> PolicySet:
    kept = {"": [r for r in rules if _loads(r, "")], scope: [r for r in scoped if _loads(r, scope)]}
    kept[""] = kept[""] or [{"id": "none", "effect": "deny", "actions": ["job:kill"]}]
    return load(_sources(kept))


def _loads(one: dict[str, Any], scope: str) -> bool:
    try:
        load(_sources({scope: [one]}))
    except PolicyErrors:
        return False
    return True


def _sources(rules: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    texts = {"schema.yaml": SCHEMA, "people.yaml": ROLES}
    for scope, listed in rules.items():
        if listed:
            head = 'apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: "x"}\n'
            head += f"scope: {scope}\n" if scope else ""
            texts[f"rules-{scope}.yaml"] = head + "rules:\n" + "".join(f"  - {json.dumps(one)}\n" for one in listed)
    return {name: text.encode() for name, text in texts.items()}


@pytest.mark.parametrize("seed", range(12))
def test_three_engines_agree_on_random_policies(seed: int) -> None:
    """Not one difference, in the answer or in the rules that made it."""
    policy_set = world(seed)
    report = check_engine(policy_set, requests=150, seed=seed)
    assert report.differences == (), report.to_text()
    assert report.unjudged == 0
