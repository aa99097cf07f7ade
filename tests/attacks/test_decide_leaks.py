"""Attempts to learn a sensitive value from what people are shown, or to write lines of one's own into it."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.attest.statement import decision_statement
from policyguard.decide.compiled_form import compile_policy, policy_digest
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts, claims
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
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
      note: {type: string, sensitive: trace, optional: true}
      weights: {type: list(weights), optional: true}
      bundle: {type: bundle, optional: true}
records:
  login: {attributes: {name: {type: string, optional: true}, password: {type: string, sensitive: true}}}
  weights:
    attributes:
      path: {type: string}
      imports: {type: list(string), sensitive: trace}
      origin: {type: string, enum: [here, there], sensitive: trace, optional: true}
  bundle: {attributes: {parts: {type: "map(string, weights)"}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: rules, owner: platform}
rules:
  - {id: leaked, effect: deny, actions: ["job:submit"], resources: {type: job},
     when: "resource.login.password == resource.login.name || subject.watched || resource.gpus == 1"}
  - {id: listed, effect: deny, actions: ["job:submit"], resources: {type: job},
     when: "resource.logins.exists(l, l.password == 'x')"}
  - {id: noted, effect: deny, actions: ["job:submit"], resources: {type: job}, when: "resource.note == 'x'"}
  - {id: weighed, effect: deny, actions: ["job:submit"], resources: {type: job},
     when: "resource.weights.exists(w, w.path == 'a.pt') && resource.weights.exists(w, size(w.imports) > 1) &&
       resource.weights.exists(w, (w.path == 'a.pt' ? w : w).imports.exists(i, i == 'os.system'))"}
  - {id: bundled, effect: deny, actions: ["job:submit"], resources: {type: job},
     when: "resource.bundle.parts.exists(key, key == 'k')"}
---
apiVersion: policyguard/v1
kind: Roles
metadata: {name: roles, owner: platform}
roles: [{name: auditor}, {name: member}, {name: local-auditor}]
trace: [auditor, local-auditor]
---
apiVersion: policyguard/v1
kind: Bindings
metadata: {name: people, owner: platform}
bindings:
  - {subject: "user:vera", role: auditor, domain: "*"}
  - {subject: "user:lea", role: local-auditor, domain: speech}
  - {subject: "user:ann", role: member, domain: vision}
"""
SNAPSHOT = Snapshot.of(policies := load({"lab.yaml": POLICIES}), grants_of(policies))


def decide(entries: dict[str, Value], missing: dict[str, str] | None = None, **claimed: Any) -> Decision:
    request = Request.of("user:ann", "job:submit", "job:team/vision/run", **claimed)
    facts = {path: Fact(value, Assurance.MEASURED, "test", NOW) for path, value in entries.items()}
    return Engine(SNAPSHOT).decide(Facts(request, {**claims(request, NOW), **facts}, FrozenMap(missing or {})), NOW)


def shown(decision: Decision) -> str:
    """Return all that leaves the house: both explanations and the statement."""
    statement = decision_statement(
        decision,
        decision.facts.request,
        decision_id="0" * 32,
        audience="a",
        issued_at=NOW,
        not_before=NOW,
        expires=NOW + 1,
        recorded_paths=SNAPSHOT.facts_read_by(decision),
        sensitive=SNAPSHOT.sensitive(decision.facts.request),
        redactions=SNAPSHOT.redactions(decision.facts.request),
    )
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
        "outside its enum",
        "no timestamp",
        "the key of a map of the wrong type",
        "of the wrong type",
        "a field of a record",
        "a field that a rule reads",
        "a field of the wrong type",
        "an unknown field",
        "a field of a record in a list",
    ],
)
def test_a_sensitive_value_is_not_printed(entries: dict[str, Value]) -> None:
    """INVARIANT I14: neither the value, nor a complaint about it, nor the record that holds it."""
    assert SECRET not in shown(decide(entries))


def test_what_a_collector_says_of_a_sensitive_fact_is_not_printed() -> None:
    """The reason for its absence may quote it; the reason of another fact is shown."""
    text = shown(decide({}, {"subject.watched": f"cannot read {SECRET}", "resource.gpus": "no nvidia-smi"}))
    assert SECRET not in text
    assert "no nvidia-smi" in text


@pytest.mark.parametrize("watched", [True, False])
def test_the_outcome_of_a_test_of_a_sensitive_value_is_not_printed(watched: bool) -> None:
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


WEIGHTS = FrozenMap({"path": "a.pt", "imports": (SECRET, "os.system", "b.c")})
TRACED: dict[str, dict[str, Value]] = {
    "a field of a record in a list": {"resource.weights": (WEIGHTS,)},
    "a field deep in a map of records": {"resource.bundle": FrozenMap({"parts": FrozenMap({"k": WEIGHTS})})},
    "an attribute": {"resource.note": SECRET},
    "a field of the wrong type": {"resource.weights": (FrozenMap({"path": "a.pt", "imports": SECRET}),)},
    "a field outside its enum": {"resource.weights": (FrozenMap({**WEIGHTS, "origin": SECRET}),)},
    "a record that is none": {"resource.weights": (SECRET,)},
    "a list that is none": {"resource.weights": SECRET},
}


@pytest.mark.parametrize("entries", TRACED.values(), ids=list(TRACED))
def test_what_is_reserved_for_trace_is_not_printed(entries: dict[str, Value]) -> None:
    """INVARIANT I14: not in an explanation, not in the signed statement, not in a complaint about the value."""
    decision = decide(entries)
    assert SECRET not in shown(decision)
    for viewer in ("user:ann", "user:lea", "user:nobody"):
        assert SECRET not in decision.explain(viewer=viewer, full=True)


def test_the_rest_of_the_record_and_the_count_stay() -> None:
    """The twin: a path, and how many imports there were, are explained and signed; tests of the imports are hidden."""
    decision = decide({"resource.weights": (WEIGHTS,)})
    text = shown(decision)
    assert "weights = [{path: a.pt, imports: {hidden: 3}}]" in text
    assert '"resource.weights":' in text
    assert '"value":[{"imports":{"hidden":3},"path":"a.pt"}]' in text
    lines = [line.split() for line in decision.explain().splitlines() if "resource.weights.exists" in line]
    words = {word for line in lines for word in line}
    assert words & {"true", "false", "hidden"} == {"true", "hidden"}


@pytest.mark.parametrize(
    ("viewer", "sees"),
    [
        ("user:vera", True),
        ("user:lea", False),
        ("user:ann", False),
        ("user:nobody", False),
        (None, False),
    ],
)
def test_only_a_role_of_trace_sees_the_list(viewer: str | None, sees: bool) -> None:
    """INVARIANT I14: it must be held in the domain of the resource; a full explanation goes to no other viewer."""
    decision = decide({"resource.weights": (WEIGHTS,), "resource.note": "kept"})
    text = decision.explain(viewer=viewer, full=True)
    assert (SECRET in text, "resource.note = kept" in text) == (sees, sees)
    assert ("\ntrace\n" in text) is (sees or viewer is None)


def test_a_value_longer_than_a_statement_shows_is_hashed_without_what_is_reserved() -> None:
    """Two values that differ in the kept part alone have one digest: nobody can try lists against it."""

    def digest(*imports: str) -> str:
        weights = FrozenMap({"path": "a" * 400, "imports": imports})
        return shown(decide({"resource.weights": (WEIGHTS, weights)})).partition('"measured","digest":"')[2][:64]

    assert len(digest("os.system")) == 64
    assert digest("os.system") == digest("posix.system")
    assert digest("os.system") != digest("os.system", "posix.system")


def test_a_compiled_snapshot_keeps_what_is_for_trace() -> None:
    """What is read from a compiled form hides and shows the same."""
    compiled = compile_policy(policies, grants_of(policies))
    again = Snapshot.from_compiled(compiled, policy_digest(compiled))
    decision = decide({"resource.weights": (WEIGHTS,)})
    for viewer in ("user:vera", "user:ann"):
        assert Engine(again).explain(decision, viewer=viewer) == Engine(SNAPSHOT).explain(decision, viewer=viewer)
