"""`subject.name` is the id without its type; a schema that declares a `name` keeps its own attribute."""

from __future__ import annotations

import pytest

from policyguard.decide.engine import Engine
from policyguard.model.facts import Assurance, Fact, Facts, claims
from policyguard.model.request import Request
from policyguard.policy_store.folder import snapshot_of_text

NOW = 1_900_000_000_000_000_000
POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {%s}, service: {}}
resources: {branch: {actions: [push], attributes: {owner: {type: string}}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: branches}
rules:
  - {id: own, effect: allow, actions: ["branch:push"], resources: {type: branch},
     when: 'subject.type == "user" && resource.owner == subject.name'}
"""


def allowed(subject: str, owner: str, declared: str = "", **of_subject: str) -> bool:
    request = Request.of(subject, "branch:push", "branch:x", owner=owner)
    entries = {**claims(request, NOW)}
    entries |= {f"subject.{name}": Fact(value, Assurance.CLAIMED, "request", NOW) for name, value in of_subject.items()}
    return Engine(snapshot_of_text(POLICIES % declared)).decide(Facts(request, entries), NOW).allowed


@pytest.mark.parametrize(
    ("subject", "owner", "expected"),
    [
        ("user:alice", "alice", True),
        ("user:alice", "user:alice", False),
        ("user:alice", "alice2", False),
        ("service:alice", "alice", False),
        ("user:a/b", "a/b", True),
    ],
)
def test_a_name_is_the_id_without_its_type(subject: str, owner: str, expected: bool) -> None:
    assert allowed(subject, owner) is expected


def test_a_request_cannot_claim_another_name() -> None:
    """It is no attribute; where the schema declares one, that is what conditions read, and it may be absent."""
    assert not allowed("user:mallory", "alice", name="alice")
    declared = "attributes: {name: {type: string, optional: true}}"
    assert allowed("user:mallory", "alice", declared, name="alice")
    assert not allowed("user:alice", "alice", declared)
