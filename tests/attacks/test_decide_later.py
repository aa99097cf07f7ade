"""Attempts to change what a decision stands on after it was made."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from policyguard.decide.engine import Engine
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.values import FrozenMap
from tests.attacks.test_decide_leaks import NOW, SNAPSHOT

REQUEST = Request.of("user:ann", "job:submit", "job:team/vision/run")


def fact(value: int) -> Fact:
    return Fact(value, Assurance.MEASURED, "test", NOW)


def test_facts_cannot_be_changed_after_the_decision() -> None:
    """INVARIANT I15: the caller's map may change, the decision's explanation may not."""
    entries = {"resource.gpus": fact(1)}
    decision = Engine(SNAPSHOT).decide(Facts(REQUEST, entries), NOW)
    before = decision.explain()
    entries["resource.gpus"] = fact(2)
    entries["subject.watched"] = fact(1)
    assert decision.explain() == before
    with pytest.raises(TypeError, match="cannot be changed"):
        decision.facts.entries["resource.gpus"] = fact(2)
    assert replace(decision.facts, entries={"resource.gpus": fact(3)}).entries["resource.gpus"].value == 3


def test_admitted_facts_do_not_reach_back_into_the_request() -> None:
    """What conditions read is built anew each time: changing it changes no later decision."""
    facts = Facts(
        REQUEST, {"resource.gpus": fact(2), "resource.login": Fact(FrozenMap(), Assurance.MEASURED, "t", NOW)}
    )
    before = Engine(SNAPSHOT).decide(facts, NOW).explain()
    admitted = SNAPSHOT.admit(facts, NOW)
    assert admitted is not None
    admitted.resource["gpus"] = 1
    admitted.subject["id"] = "user:root"
    assert Engine(SNAPSHOT).decide(facts, NOW).explain() == before
