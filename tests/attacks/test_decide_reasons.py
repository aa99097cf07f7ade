"""What a decision carries beside its answer: obligations of every rule that made it, and the true step that refused."""

from __future__ import annotations

import pytest

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts
from policyguard.model.policy import EntityType, PolicySet, Rule, Schema
from policyguard.model.request import Request
from tests.properties.worlds import snapshot_of

SCHEMA = Schema(
    subjects={"user": EntityType(name="user")},
    resources={"job": EntityType(name="job", actions=("job:submit",)), "disk": EntityType(name="disk")},
)


def snapshot(*obligations: tuple[str, ...]) -> Snapshot:
    rules = tuple(
        Rule(id=f"r{n}", effect="allow", actions=("job:submit",), resource_types=("job",), obligations=each)
        for n, each in enumerate(obligations)
    )
    return snapshot_of(PolicySet(schema=SCHEMA, rules=rules))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (((),), ()),
        ((("notify",),), ("notify",)),
        (((), ("notify",)), ("notify",)),
        ((("notify",), ("record", "notify"), ()), ("notify", "record")),
    ],
)
def test_every_determining_rule_adds_its_obligations(given: tuple[tuple[str, ...]], expected: tuple[str, ...]) -> None:
    """An allow found beside another cannot shed what the other asks for."""
    decision = Engine(snapshot(*given)).decide(Facts(Request.of("user:a", "job:submit", "job:x")), 0)
    assert decision.allowed
    assert decision.obligations == expected


@pytest.mark.parametrize(
    ("subject", "action", "resource", "reason"),
    [
        ("user:a", "job:kill", "job:x", "engine.unknown_action"),
        ("user:a", "job:submit", "disk:x", "engine.unknown_action"),
        ("user:a", "job:submit", "ghost:x", "engine.unknown_type"),
        ("ghost:a", "job:submit", "job:x", "engine.unknown_type"),
        ("user:a", "job:submit", "job:x", "rule.allow"),
    ],
)
def test_what_the_schema_does_not_know_is_refused_by_name(
    subject: str, action: str, resource: str, reason: str
) -> None:
    """The step that refused is named; the known twin is allowed. Without rules that is the reason."""
    facts = Facts(Request.of(subject, action, resource))
    decision = Engine(snapshot(())).decide(facts, 0)
    assert decision.reason_codes == (reason,)
    assert decision.allowed is (reason == "rule.allow")
    assert Engine(snapshot()).decide(facts, 0).reason_codes == ("engine.no_rules",)
