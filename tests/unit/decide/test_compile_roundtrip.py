"""The compiled form loses nothing that decides: names, zeros, times, texts and constants come back as they were."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from policyguard.decide.compiled_form import compile_policy, policy_digest, schema_data
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.policy import Approvers, PolicySet, Quorum, Role, Schema
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from policyguard.values import Value, canonical, sha256_digest

NOW = 1_800_000_000 * 10**9

SCHEMA = """
apiVersion: policyguard/v1
kind: Schema
metadata: {name: lab, owner: platform}
subjects: {user: {attributes: {span: {type: int, optional: true}}}}
resources:
  job: {id: "team/{team}/**", actions: [submit], attributes: {span: {type: int}, name: {type: string},
        at: {type: timestamp}, pause: {type: duration}, files: {type: list(string)}}}
  span: {actions: [read], attributes: {note: {type: span, optional: true}}}
context: {attributes: {span: {type: bool, optional: true}}}
records: {span: {attributes: {span: {type: string}}}}
"""
RULE = """
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: rules, owner: platform}
rules:
  - {id: r, effect: allow, actions: ["job:submit"], resources: {type: job}, when: WHEN}
"""


def policy_of(when: str) -> PolicySet:
    return load({"lab.yaml": (SCHEMA + RULE.replace("WHEN", msgspec.json.encode(when).decode())).encode()})


def through_bytes(policies: PolicySet) -> Snapshot:
    compiled = compile_policy(policies, grants_of(policies))
    again = msgspec.json.decode(canonical(compiled))
    assert policy_digest(again) == policy_digest(compiled)
    return Snapshot.from_compiled(again, policy_digest(again))


def allows(when: str, **values: Value) -> bool:
    entries = {f"resource.{name}": Fact(value, Assurance.MEASURED, "test", NOW) for name, value in values.items()}
    request = Request.of("user:ann", "job:submit", "job:team/vision/run")
    policies = policy_of(when)
    decisions = {
        Engine(snapshot).decide(Facts(request, entries), NOW).allowed
        for snapshot in (Snapshot.of(policies, grants_of(policies)), through_bytes(policies))
    }
    assert len(decisions) == 1, "a snapshot that went through bytes decides otherwise"
    return decisions.pop()


def test_a_schema_comes_back_whole_whatever_its_names() -> None:
    """Types, attributes, fields and context called `span` are there after compiling."""
    schema = policy_of("true").schema
    again = msgspec.convert(msgspec.json.decode(canonical(schema_data(schema))), Schema)
    assert again == schema
    assert {*again.resources} == {"job", "span"}
    assert {*again.resources["job"].attributes} == {"span", "name", "at", "pause", "files"}
    assert {*again.records["span"], *again.context, *again.subjects["user"].attributes} == {"span"}


@pytest.mark.parametrize(
    ("when", "values", "expected"),
    [
        ("resource.span < 5", {"span": 4}, True),
        ("resource.span < 5", {"span": 5}, False),
        ("resource.span == 9007199254740991", {"span": 2**53 - 1}, True),
        ("resource.span in [true ? 3 : 4]", {"span": 3}, True),
        ("resource.span == -0", {"span": 0}, True),
        ("resource.at == timestamp('2026-03-01T09:00:00.000000001Z')", {"at": "2026-03-01T09:00:00.000000001Z"}, True),
        ("resource.at == timestamp('2026-03-01T09:00:00.000000001Z')", {"at": "2026-03-01T09:00:00Z"}, False),
        ("resource.at > timestamp('0001-01-01T00:00:00Z')", {"at": "0001-01-01T00:00:00.5Z"}, True),
        ("resource.at in [timestamp('9999-12-31T23:59:59.9Z')]", {"at": "9999-12-31T23:59:59.900Z"}, True),
        ("resource.pause == duration('1ns')", {"pause": "1ns"}, True),
        ("resource.pause <= duration('-87600000h')", {"pause": "-87600000h"}, True),
        ("resource.name == '\u00e9'", {"name": "\u00e9"}, True),
        ("resource.name == '\u00e9'", {"name": "e\u0301"}, False),
        ("resource.name in ['\U0001f600', '\\u0000\\u007f\\\\\"']", {"name": '\x00\x7f\\"'}, True),
        ("resource.name == ''", {"name": ""}, True),
        ("resource.files == []", {"files": ()}, True),
        ("resource.files == ['', 'a']", {"files": ("", "a")}, True),
        ("resource.files == ['1', '2']", {"files": ("1", "2")}, True),
    ],
)
def test_constants_come_back_as_they_were(when: str, values: dict[str, Any], expected: bool) -> None:
    """Every kind of constant, at its edges, decides the same before and after bytes."""
    assert allows(when, **values) is expected


def test_zeros_and_empty_texts_are_not_absent() -> None:
    """What is falsy but given takes part in the digest and comes back."""
    policies = replace(policy_of("true"), quorums=(Quorum(id="q", approvers=(Approvers(count=1, roles=("r",)),)),))
    policies = replace(policies, roles=(*policies.roles, Role(name="r")))
    strict = replace(policies, quorums=(replace(policies.quorums[0], max_age_s=0),))
    assert through_bytes(strict).quorums["q"].max_age_s == 0
    assert through_bytes(policies).quorums["q"].max_age_s is None
    assert through_bytes(strict).policy_digest != through_bytes(policies).policy_digest


def test_a_compiled_form_has_the_name_of_its_schema_if_it_has_one() -> None:
    """By its name a log knows which epochs belong together."""
    named = policy_of("true")
    assert compile_policy(named, grants_of(named))["name"] == "lab"
    nameless = replace(named, metadata={})
    assert "name" not in compile_policy(nameless, grants_of(nameless))


def test_the_policy_digest_is_that_of_the_canonical_bytes() -> None:
    """Also where canonical order is not that of code points, beyond the basic plane."""
    for policy in ({"a": "x", "b": 1}, {"\ufb33": 1, "\U0001f600": 2, "a": "\u00e9"}):
        assert policy_digest({"policy": policy}) == sha256_digest(canonical(policy))


def test_a_moved_line_or_a_comment_changes_no_digest() -> None:
    """Places are for explanations: a worker that pins a digest accepts the same policies with another comment."""
    quorums = "---\napiVersion: policyguard/v1\nkind: Roles\nroles: [{name: lead}]\n---\napiVersion: policyguard/v1\n"
    quorums += "kind: Quorums\nquorums: [{id: q, approvers: [{count: 1, roles: [lead]}]}]\n"
    text = SCHEMA + RULE.replace("WHEN", '"true"') + quorums
    digests = set()
    for moved in (text, f"# a comment\n\n{text}", text.replace("rules:\n", "rules:\n\n\n")):
        policies = load({"lab.yaml": moved.encode()})
        digests.add(policy_digest(compile_policy(policies, grants_of(policies))))
    assert len(digests) == 1


def test_what_is_not_given_is_not_written() -> None:
    """Neither null nor an empty list, or a field that a later version adds would change every digest."""
    data = schema_data(policy_of("true").schema)
    assert b"null" not in canonical(data)
    assert b"[]" not in canonical(data)


def test_the_text_of_a_condition_rides_along_with_its_place() -> None:
    """For explanations; a rule without one has none."""
    policies = policy_of("resource.span < 5")
    [rule] = policies.rules
    bare = replace(policies, rules=(replace(rule, when=None),))
    texts = [compile_policy(each, grants_of(each))["places"][0][3] for each in (policies, bare)]
    assert texts == ["resource.span < 5", None]
