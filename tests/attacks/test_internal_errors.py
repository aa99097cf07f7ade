"""Whatever escapes while a decision is made, explained or stated is a signed, logged denial, and nothing else."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from policyguard import Guard
from policyguard.attest.dsse import parse
from policyguard.attest.statement import parse_statement
from policyguard.decide import engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.request import Request

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
metadata: {name: lab}
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit]}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: lab, owner: platform}
rules:
  - {id: everyone, effect: allow, actions: ["job:submit"], resources: {type: job}, when: "true"}
"""
REQUEST = Request.of("user:alice", "job:submit", "job:team/vision/run-17")


def fails(*_: Any, **__: Any) -> NoReturn:
    raise IndexError("list index\nout of range")


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (engine, "evaluate"),
        (Snapshot, "facts_read_by"),
    ],
)
def test_what_escapes_is_a_signed_logged_denial(where: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """INVARIANT I2: the twin without the defect is allowed."""
    with Guard.in_memory(POLICIES) as guard:
        assert guard.decide(REQUEST).decision.allowed
        original = getattr(where, name)

        def once(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(where, name, original)
            return fails()

        monkeypatch.setattr(where, name, once)
        signed = guard.decide(REQUEST)
    assert not signed.decision.allowed
    predicate = parse_statement(signed.envelope.payload).predicate
    assert (predicate.decision, predicate.reason_codes) == ("deny", ("engine.internal_error",))
    assert predicate.requester == "user:alice"
    assert signed.receipt.index == 1
    text = signed.decision.explain(full=True)
    assert "which is a defect of policyguard: IndexError: list index\\nout of range" in text
    assert parse(signed.envelope.to_bytes()) == signed.envelope


def test_a_decision_that_cannot_be_explained_stays_a_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words fail, not the decision."""
    monkeypatch.setattr(engine, "explain", fails)
    with Guard.in_memory(POLICIES) as guard:
        signed = guard.decide(REQUEST)
    assert signed.decision.allowed
    assert engine.UNEXPLAINED in signed.decision.explain()
