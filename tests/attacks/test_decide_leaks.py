"""Attempts to learn a sensitive value from what people are shown, or to write lines of one's own into it."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.attest.statement import decision_statement
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts, claims
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.sources import grants_of
from policyguard.values import FrozenMap, Value

NOW = 1_800_000_000 * 10**9
SECRET = "hunter2"

POLICIES = b"""
apiVersion: policyguard/v1
kind: Schema
metadata: {name: lab, owner: platform}
subjects: {user: {attributes: {watched: {type: bool, sensitive: true, optional: true}}}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit]
    attributes:
      clearance: {type: string, sensitive: true, enum: [low, high], optional: true}
      until: {type: timestamp, sensitive: true, optional: true}
      tags: {type: "map(string, string)", sensitive: true, optional: true}
      login: {type: login, optional: true}
      logins: {type: list(login), optional: true}
      gpus: {type: int, optional: true}
records:
  login: {attributes: {name: {type: string, optional: true}, password: {type: string, sensitive: true}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: rules, owner: platform}
rules:
  - {id: leaked, effect: deny, actions: ["job:submit"], resources: {type: job},
     when: "resource.login.password == resource.login.name || subject.watched || resource.gpus == 1"}
  - {id: listed, effect: deny, actions: ["job:submit"], resources: {type: job},
     when: "resource.logins.exists(l, l.password == 'x')"}
"""
SNAPSHOT = Snapshot.of(policies := load({"lab.yaml": POLICIES}), grants_of(policies))


def decide(entries: dict[str, Value], missing: dict[str, str] | None = None, **claimed: Any) -> Decision:
    request = Request.of("user:ann", "job:submit", "job:team/vision/run", **claimed)
    facts = {path: Fact(value, Assurance.MEASURED, "test", NOW) for path, value in entries.items()}
    return SNAPSHOT.decide(Facts(request, {**claims(request, NOW), **facts}, FrozenMap(missing or {})), NOW)


def shown(decision: Decision) -> str:
    """Return all that leaves the house: both explanations and the statement."""
    statement = decision_statement(
        decision, decision.facts.request, decision_id="0" * 32, audience="a", issued_at=NOW, not_before=NOW,
        expires=NOW + 1, mattered=SNAPSHOT.mattering(decision), sensitive=SNAPSHOT.sensitive(decision.facts.request),
    )  # fmt: skip
    return decision.explain() + decision.explain(full=True) + statement.decode()


@pytest.mark.parametrize(
    "entries",
    [
        {"resource.clearance": SECRET},
        {"resource.until": SECRET},
        {"resource.tags": FrozenMap({SECRET: 1})},
        {"resource.tags": SECRET},
        {"resource.login": FrozenMap({"password": SECRET})},
        {"resource.login": FrozenMap({"password": SECRET, "name": SECRET})},
        {"resource.login": FrozenMap({"password": FrozenMap({SECRET: 1})})},
        {"resource.login": FrozenMap({SECRET: SECRET})},
        {"resource.logins": (FrozenMap({"password": SECRET}),), "resource.gpus": 2, "subject.watched": False},
    ],
    ids=[
        "outside its enum", "no timestamp", "the key of a map of the wrong type", "of the wrong type",
        "a field of a record", "a field that a rule reads", "a field of the wrong type", "an unknown field",
        "a field of a record in a list",
    ],
)  # fmt: skip
def test_a_sensitive_value_is_not_shown(entries: dict[str, Value]) -> None:
    """INVARIANT I39: neither the value, nor a complaint about it, nor the record that holds it."""
    assert SECRET not in shown(decide(entries))


def test_what_a_collector_says_of_a_sensitive_fact_is_not_shown() -> None:
    """The reason for its absence may quote it; the reason of another fact is shown."""
    text = shown(decide({}, {"subject.watched": f"cannot read {SECRET}", "resource.gpus": "no nvidia-smi"}))
    assert SECRET not in text
    assert "no nvidia-smi" in text


@pytest.mark.parametrize("watched", [True, False])
def test_the_outcome_of_a_test_of_a_sensitive_value_is_not_shown(watched: bool) -> None:
    """Whether `subject.watched` holds is its value; beside it, the outcome of another test is shown."""
    text = decide({"subject.watched": watched, "resource.gpus": 1}).explain()
    lines = {line.split("  ")[-2].strip() for line in text.splitlines() if line.strip().startswith("subject.watched")}
    assert lines == {"hidden"}
    assert any("resource.gpus == 1" in line and " true " in line for line in text.splitlines())


@pytest.mark.parametrize(
    "claimed",
    [
        {"clearance": "x\nALLOW  user:ann"},
        {"gpus\nALLOW  user:ann": 1},
        {"gpus\x1b[2J": 1},
        {"login": {"x\nALLOW  user:ann": 1}},
        {"gpus": 1, "until": "2026\u2028ALLOW"},
        {"a" * 500_000: 1},
        {"clearance": "a" * 500_000},
    ],
    ids=["a value", "a name", "an escape", "a field", "a line separator", "a long name", "a long value"],
)
def test_a_request_cannot_write_lines_into_its_explanation(claimed: dict[str, Any]) -> None:
    """What a malformed request says of itself stays on its line, printable and short."""
    text = decide({}, **claimed).explain()
    assert len(text.splitlines()) == 4
    assert all(line.isprintable() and len(line) < 1000 for line in text.splitlines())
