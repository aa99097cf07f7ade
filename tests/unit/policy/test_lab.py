"""The example lab decides as its decision tables say, through the real loader, the real roles and the real decider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyError
from policyguard.model.decision import Decision
from policyguard.model.facts import Approval, Assurance, Fact, Facts
from policyguard.model.policy import PolicySet
from policyguard.model.request import Request
from policyguard.policy.files import read_folder
from policyguard.policy.loader import Analysis, analyse
from policyguard.policy.nodes import Node
from policyguard.policy.reader import to_value
from policyguard.policy.schema import ASSURANCES
from policyguard.values import NANOSECONDS_PER_S, FrozenMap, Instant, Value

LAB = Path(__file__).parents[3] / "policies"
HOUR = 3600 * NANOSECONDS_PER_S


@cache
def lab() -> tuple[Analysis, PolicySet, Snapshot]:
    analysis = analyse(read_folder(LAB))
    found = analysis.policy_set
    assert found is not None, "\n".join(str(error) for error in analysis.errors)
    grants = assign_roles(found.roles, found.bindings, found.exclusions, found.persons)
    return analysis, found, Snapshot.of(found, grants)


def tables() -> Iterator[dict[str, Any]]:
    yield from (document.fields for document in lab()[0].documents if document.kind == "Tests")


def cases() -> list[Any]:
    return [
        pytest.param(fields, body, id=body["name"]) for fields in tables() for (body, _), _ in fields.get("cases", ())
    ]


def rows() -> list[Any]:
    found = [(fields, body) for fields in tables() for (body, _), _ in fields.get("matrix", ())]
    return [pytest.param(fields, body, id=f"{body['subject']} {body['resource']}") for fields, body in found]


def value_of(node: Node) -> Value:
    errors: list[PolicyError] = []
    value = to_value(node, errors)
    assert value is not None, errors
    return value


def facts_of(request: Request, fields: dict[str, Any], body: dict[str, Any], now: Instant) -> Facts:
    named = {name: facts for name, _, facts in fields.get("facts", ())}
    given = [fact for name, _ in body.get("use", ()) for fact in named[name]] + body.get("facts", [])
    entries = {}
    for path, _, node in given:
        value, assurance = value_of(node), least(request, path)
        if isinstance(value, FrozenMap) and set(value) == {"value", "assurance"}:
            assurance, value = ASSURANCES[str(value["assurance"])], value["value"]
        entries[path] = Fact(value, assurance, "table", now)
    approvals = tuple(
        Approval(account, Assurance.ATTESTED, "table", now, now + HOUR, "00")
        for account, _ in body.get("approvals", ())
    )
    contributors = tuple(name for name, _ in body["contributors"]) if "contributors" in body else None
    unusable = tuple(line for line, _ in body.get("unusable", ()))
    return Facts(request, entries, approvals=approvals, contributors=contributors, unusable=unusable)


def least(request: Request, path: str) -> Assurance:
    schema = lab()[1].schema
    entity, _, name = path.partition(".")
    types = {
        "subject": schema.subjects[request.subject.type].attributes,
        "resource": schema.resources[request.resource.type].attributes,
        "context": schema.context,
    }
    return types[entity][name].assurance


def decided(fields: dict[str, Any], body: dict[str, Any], subject: str, action: str, resource: str) -> Decision:
    now = body.get("now", fields["now"])
    request = Request.of(subject, action, resource)
    return Engine(lab()[2]).decide(facts_of(request, fields, body, now), now)


@pytest.mark.parametrize(("fields", "body"), cases())
def test_the_lab_decides_as_its_table_says(fields: dict[str, Any], body: dict[str, Any]) -> None:
    """Each case in `policies/` ends as expected, for the reason and with the obligations given there."""
    (request, _) = body["request"]
    decision = decided(fields, body, request["subject"], request["action"], request["resource"])
    if body["expect"] == "needs-approval":
        assert decision.unmet_approvals, decision.explain(full=True)
        assert not decision.allowed
    else:
        assert decision.allowed == (body["expect"] == "allow"), decision.explain(full=True)
        assert not decision.unmet_approvals
    if "reason" in body:
        assert body["reason"] in decision.reason_codes, decision.explain(full=True)
    # Only who is allowed is under an obligation; a case without the field wants none that warns.
    wanted = {name for name, _ in body.get("obligations", ())}
    assert wanted <= set(decision.obligations), decision.explain(full=True)
    if decision.allowed:
        assert {name for name in decision.obligations if name.startswith("warn.")} <= wanted


def test_every_row_of_the_incident_has_a_case() -> None:
    """The 26 scenarios are all there, each with its reason code."""
    named = [(body["name"], body.get("reason")) for fields in tables() for (body, _), _ in fields.get("cases", ())]
    rows = {int(match[1]): reason for name, reason in named if (match := re.match(r"scenario (\d+): ", name))}
    assert sorted(rows) == list(range(1, 27))
    assert None not in rows.values()


def body_of(start: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The case whose name begins so, and its document."""
    return next(
        (fields, body) for fields in tables() for (body, _), _ in fields["cases"] if body["name"].startswith(start)
    )


@pytest.mark.parametrize(("fields", "body"), rows())
def test_what_the_matrix_does_not_list_is_denied(fields: dict[str, Any], body: dict[str, Any]) -> None:
    """Of all actions of the resource's type exactly the listed ones are allowed."""
    type_ = body["resource"].partition(":")[0]
    actions = lab()[1].schema.resources[type_].actions
    allowed = {a for a in actions if decided(fields, body, body["subject"], a, body["resource"]).allowed}
    assert {action for action, _ in body["allow"]} == allowed


def test_a_denied_intern_learns_who_may_raise_the_ceiling() -> None:
    """The explanation names the limit and the leads who can sign a grant."""
    fields, body = body_of("scenario 2:")
    words = decided(fields, body, "user:ivan", "job:submit", "job:team/vision/run-18").explain()
    assert "up to 8 GPUs" in words
    assert "user:carol" in words


def test_a_denied_change_names_the_file() -> None:
    """The explanation of an uncommitted change names the file that changed."""
    fields, body = body_of("scenario 7: a medium")
    words = decided(fields, body, "user:bob", "job:submit", "job:team/vision/run-20").explain()
    assert "optim/adamw.py" in words
    assert "helper.py" in words
