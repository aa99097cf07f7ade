"""Policies that use names of an earlier release load, mean the same and are reported."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors
from policyguard.lint.runner import lint
from policyguard.model import former_names
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.values import FrozenMap

PRESENT = """
apiVersion: policyguard/v1
kind: Schema
metadata: {name: case}
subjects:
  user: {}
resources:
  job:
    actions: [submit]
    attributes:
      openings: {type: "list(string)", assurance: ASSURANCE}
      queue: {type: string, assurance: measured}
      parts: {type: list(part), assurance: measured}
      format: {type: string, enum: [pickle, other, unknown], assurance: measured}
      named_format: {type: string, enum: [pickle, other, unknown], assurance: measured}
records:
  part:
    attributes:
      format: {type: string}
      named_format: {type: string}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: case}
rules:
  - id: all
    effect: allow
    subjects: ["user:alice"]
    actions: [job:submit]
    resources: {type: job}
    when: resource.openings == []
    assurance: {resource.openings: attested}
  - id: none-of-this
    effect: deny
    actions: [job:submit]
    resources: {type: job}
    when: >-
      WHEN
"""
FACT = {"resource.env_openings": "resource.openings"}
CONDITIONS = {
    'resource.format == "other"': 'resource.format == "archive"',
    '["other"].exists(f, f == resource.format)': '["archive"].exists(f, f == resource.format)',
    'resource.parts.exists(p, p.format in ["other", "x"])': 'resource.parts.exists(p, p.format in ["archive", "x"])',
    'resource.format == "other" && resource.queue == "archive"': (
        'resource.format == "archive" && resource.queue == "archive"'
    ),
    'resource.queue == "archive"': 'resource.queue == "archive"',
}


def written(when: str, *, former: bool = False, assurance: str = "measured") -> dict[str, bytes]:
    text = PRESENT.replace("ASSURANCE", assurance)
    if former:
        text = text.replace("other", "archive").replace("openings", "env_openings")
    return {"p.yaml": text.replace("WHEN", when).encode()}


@pytest.fixture(autouse=True)
def renamed_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("conditions.former_names", "decide.admission"):
        monkeypatch.setattr(f"policyguard.{module}.FORMER_FACTS", FACT)


@pytest.mark.parametrize(("present", "former"), CONDITIONS.items(), ids=list(CONDITIONS))
def test_policies_with_former_names_decide_as_those_with_the_present_ones(present: str, former: str) -> None:
    """Schema, conditions and `assurance` are equal in what decides; a literal for another field stays."""
    ours, theirs = snapshot(present), snapshot(former, former=True)
    assert ours.schema == theirs.schema
    for one, other in zip(ours.rules, theirs.rules, strict=True):
        assert (one.condition, one.assurance) == (other.condition, other.assurance)


def test_each_use_of_a_former_name_is_reported_at_its_place() -> None:
    """The fact in schema, condition and `assurance`; the value in enums and condition."""
    report = lint(written('resource.format == "archive"', former=True), 0)
    messages = [finding.message for finding in report.findings if finding.code == "PG118"]
    fact = "found the former name `resource.env_openings`, expected `resource.openings`"
    assert sorted([fact] * 3 + ["found the former name `archive`, expected `other`"] * 3) == sorted(messages)
    assert "PG118" not in {finding.code for finding in lint(written('resource.format == "other"'), 0).findings}


def test_a_fact_under_both_names_is_refused() -> None:
    """A schema that declares the fact twice has no one meaning."""
    both = PRESENT.replace("ASSURANCE", "measured").replace("WHEN", "resource.queue == 'x'")
    both = both.replace("      queue:", '      env_openings: {type: "list(string)"}\n      queue:')
    with pytest.raises(PolicyErrors, match="`env_openings` is the former name of `openings`, which is declared too"):
        load({"p.yaml": both.encode()})


def snapshot(when: str = 'resource.queue == "x"', **options: Any) -> Snapshot:
    policies = load(written(when, **options))
    return Snapshot.of(policies, assign_roles(policies.roles, policies.bindings))


def facts(**entries: Fact) -> Facts:
    request = Request.of("user:alice", "job:submit", "job:run")
    return Facts(request, {f"resource.{name}": fact for name, fact in entries.items()})


def fact(value: Any, assurance: Assurance) -> Fact:
    return Fact(value, assurance, "test", 0)


def test_a_claim_under_the_former_name_is_that_of_the_present_one() -> None:
    """It is admitted in the absence of the fact itself, and never replaces it."""
    policies = snapshot(assurance="claimed")
    claimed = fact(("x",), Assurance.CLAIMED)
    admitted = policies.admit(facts(env_openings=claimed), 0)
    assert admitted is not None
    assert admitted.resource["openings"] == ("x",)
    both = facts(openings=fact((), Assurance.MEASURED), env_openings=claimed)
    assert policies.admit(both, 0) is None
    unseen = FrozenMap({"resource.openings": "not seen"})
    tried = Facts(both.request, {"resource.env_openings": claimed}, missing=unseen)
    assert policies.admit(tried, 0) is None


def test_a_claim_under_the_former_name_is_not_known_better_than_the_fact() -> None:
    """The rule asks for attested; a claim under the former name is as weak as one under the present name."""
    policies = snapshot(assurance="claimed")
    queue = fact("y", Assurance.MEASURED)

    def decided(name: str, assurance: Assurance) -> bool:
        return Engine(policies).decide(facts(**{name: fact((), assurance)}, queue=queue), 0).allowed

    for name in ("openings", "env_openings"):
        assert not decided(name, Assurance.CLAIMED)
        assert not decided(name, Assurance.MEASURED)
        assert decided(name, Assurance.ATTESTED)


@pytest.mark.parametrize("name", ["openings", "env_openings"])
def test_the_record_of_a_decision_holds_the_fact_under_the_name_it_was_supplied_as(name: str) -> None:
    """What counted in the decision is in its statement; a claim that was ignored is not."""
    policies = snapshot(assurance="claimed")
    supplied = facts(**{name: fact((), Assurance.ATTESTED)}, queue=fact("y", Assurance.MEASURED))
    decision = Engine(policies).decide(supplied, 0)
    assert decision.determining == ("all",)
    assert policies.facts_read_by(decision) == frozenset({f"resource.{name}"})
    both = facts(openings=fact((), Assurance.ATTESTED), env_openings=fact((), Assurance.CLAIMED))
    assert policies.facts_read_by(msgspec.structs.replace(decision, facts=both)) == frozenset({"resource.openings"})


def test_the_table_keeps_the_entity_of_a_fact() -> None:
    """A row renames the attribute and does not move it."""
    for former, present in former_names.FORMER_FACTS.items():
        assert former.partition(".")[0] == present.partition(".")[0]
