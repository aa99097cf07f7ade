"""What somebody supposes about a request is read strictly, and decides as the same facts would."""

from __future__ import annotations

import pytest

from policyguard.errors import PolicyErrors, RequestError
from policyguard.model.facts import Assurance
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.testing.suppose import SOURCE, Supposition, supposed_facts, with_roles
from policyguard.values import FrozenMap

POLICIES = load(
    {
        "lab.yaml": b"""\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit]
    attributes:
      gpus: {type: int}
      code: {type: code, assurance: measured}
context: {attributes: {mail: {type: string, optional: true}}}
records:
  code: {attributes: {dirty: {type: bool}, origin: {type: origin}}}
  origin: {attributes: {remote: {type: string}}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: trainer}, {name: lead}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings: [{subject: "user:ann", role: trainer, domain: red}, {subject: "user:bob", role: lead, domain: red}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: clean, effect: allow, roles: [trainer], actions: [job:submit], resources: {type: job},
     when: "!resource.code.dirty"}
"""
    }
)
REQUEST = Request.of("user:ann", "job:submit", "job:team/red/1", gpus=8)


def entries(*facts: str, documents: dict[str, bytes] | None = None) -> dict[str, object]:
    supposed = Supposition(facts=facts, documents=documents or {})
    return dict(supposed_facts(REQUEST, POLICIES.schema, supposed, 0).entries)


def test_a_fact_without_assurance_has_the_lowest_that_counts() -> None:
    code = supposed_facts(REQUEST, POLICIES.schema, Supposition(facts=("resource.code.dirty=false",)), 7).entries[
        "resource.code"
    ]
    assert (code.value, code.assurance) == (FrozenMap({"dirty": False}), Assurance.MEASURED)
    assert (code.source, code.observed_at) == (SOURCE, 7)


@pytest.mark.parametrize(
    ("text", "value", "assurance"),
    [
        ("resource.gpus=512@measured", 512, Assurance.MEASURED),
        ("resource.gpus=512", 512, Assurance.CLAIMED),
        ("context.mail=ann@lab", "ann@lab", Assurance.CLAIMED),
        ("context.mail=ann@lab@observed", "ann@lab", Assurance.OBSERVED),
        ('context.mail="ann@observed"', "ann@observed", Assurance.CLAIMED),
    ],
)
def test_an_assurance_is_what_follows_the_last_at_sign_if_it_is_one(
    text: str, value: object, assurance: Assurance
) -> None:
    supposed = supposed_facts(REQUEST, POLICIES.schema, Supposition(facts=(text,)), 0)
    fact = supposed.entries[text.partition("=")[0]]
    assert (fact.value, fact.assurance) == (value, assurance)


def test_members_of_one_record_are_put_together() -> None:
    facts = ("resource.code.dirty=false", "resource.code.origin.remote=upstream", "resource.code.dirty=true")
    code = supposed_facts(REQUEST, POLICIES.schema, Supposition(facts=facts), 0).entries["resource.code"]
    assert code.value == FrozenMap({"dirty": True, "origin": FrozenMap({"remote": "upstream"})})


def test_a_supposed_fact_takes_the_place_of_a_claim() -> None:
    assert supposed_facts(REQUEST, POLICIES.schema, Supposition(), 0).entries["resource.gpus"].value == 8
    supposed = Supposition(documents={"facts.yaml": b"resource.gpus: {value: 9, assurance: observed}"})
    gpus = supposed_facts(REQUEST, POLICIES.schema, supposed, 0).entries["resource.gpus"]
    assert (gpus.value, gpus.assurance) == (9, Assurance.OBSERVED)


def test_contributors_are_the_subject_alone_unless_given() -> None:
    alone = supposed_facts(REQUEST, POLICIES.schema, Supposition(), 0)
    both = supposed_facts(REQUEST, POLICIES.schema, Supposition(contributors=("user:ann", "user:eve")), 0)
    assert alone.contributors == ("user:ann",)
    assert both.contributors == ("user:ann", "user:eve")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resource.gpu=8", "unknown attribute `resource.gpu`"),
        ("resource.code.dirt=true", "unknown member `dirt`, expected one of `dirty`"),
        ("resource.gpus.many=true", "unknown member `many`, expected a path that ends before it"),
        ("resource.code.origin.remote.url=x", "unknown member `url`"),
        ("gpus=8", "expected PATH=VALUE"),
        ("resource.gpus", "expected PATH=VALUE"),
        ("resource.gpus=", "expected PATH=VALUE"),
        ("resource.gpus=yes", "YAML readers"),
        ("resource.gpus=8\nresource.code: {dirty: false}", ""),
        ("resource.gpus=[8", ""),
    ],
)
def test_what_is_no_fact_is_an_error(text: str, message: str) -> None:
    with pytest.raises((PolicyErrors, RequestError)) as caught:
        entries(text)
    assert message in str(caught.value)


def test_a_file_of_facts_must_be_one_map() -> None:
    with pytest.raises(RequestError, match="expected one YAML map"):
        entries(documents={"facts.yaml": b"[1]"})


def test_facts_about_an_unknown_type_are_an_error() -> None:
    request = Request.of("user:ann", "job:submit", "jobs:team/red/1")
    with pytest.raises(PolicyErrors, match="unknown resource type `jobs`"):
        supposed_facts(request, POLICIES.schema, Supposition(facts=("resource.gpus=8",)), 0)


def test_supposed_roles_replace_those_of_the_subject_only() -> None:
    changed = with_roles(POLICIES, "user:ann", ("lead@red", "trainer@*"))
    held = [(binding.subject, binding.role, binding.domain) for binding in changed.bindings]
    assert held == [("user:bob", "lead", "red"), ("user:ann", "lead", "red"), ("user:ann", "trainer", "*")]


@pytest.mark.parametrize("text", ["lead", "@red", "lead@", ""])
def test_a_role_without_its_domain_is_an_error(text: str) -> None:
    with pytest.raises(RequestError, match="expected ROLE@DOMAIN"):
        with_roles(POLICIES, "user:ann", (text,))


NEARLY: dict[str, tuple[str, str, str]] = {
    "a misspelled assurance": (
        "resource.gpus=8@meassured",
        "found the assurance `meassured`",
        "did you mean `@measured`",
    ),
    "an assurance in capitals": ("resource.gpus=8@Measured", "found the assurance `Measured`", "text in quotes"),
    "a path without its owner": (
        "code.dirty=false",
        "found `code.dirty`, expected `resource.code.dirty`",
        "`resource.`",
    ),
    "a context without its owner": ("mail.x=1", "found `mail.x`, expected `context.mail.x`", "`context.`"),
}


@pytest.mark.parametrize(("text", "message", "help"), NEARLY.values(), ids=NEARLY.keys())
def test_what_is_nearly_a_fact_is_refused(text: str, message: str, help: str) -> None:
    """It is not taken for a value that happens to have an `@`, and the message says what was probably meant."""
    with pytest.raises(RequestError) as caught:
        supposed_facts(REQUEST, POLICIES.schema, Supposition(facts=(text,)), 0)
    assert message in caught.value.message
    assert help in (caught.value.help or "")


@pytest.mark.parametrize("value", ["me@example.org", '"me@meassured"'])
def test_an_address_is_a_value(value: str) -> None:
    """What follows an `@` belongs to the value where it is no assurance, or in quotes."""
    facts = supposed_facts(REQUEST, POLICIES.schema, Supposition(facts=(f"context.mail={value}",)), 0)
    assert facts.entries["context.mail"].value == value.strip('"')
