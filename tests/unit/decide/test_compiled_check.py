"""Each check of a signed snapshot alone: one step beyond its limit is refused in its words, the limit itself loads."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec
import pytest

from policyguard.decide.compiled_check import MAX_AGE_S, MAX_APPROVERS
from policyguard.decide.compiled_form import compile_policy
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from policyguard.values import canonical

POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
metadata: {name: lab, owner: platform}
subjects: {user: {attributes: {uid: {type: int}}}}
resources:
  dataset: {id: "team/{team}/**", actions: [read], attributes: {class: {type: string, enum: [public, internal]}}}
  job:
    id: "team/{team}/**"
    actions: [submit, start]
    attributes: {gpus: {type: int}, queue: {type: string}, code: {type: code}, tags: {type: list(string)}}
  policy: {id: "lab/**", actions: [read]}
  repo: {id: "team/{team}/*", actions: [push]}
context: {attributes: {zone: {type: string, optional: true}}}
records: {code: {attributes: {dirty: {type: bool}}}}
---
apiVersion: policyguard/v1
kind: Roles
metadata: {name: roles, owner: platform}
roles: [{name: ci}, {name: lead, inherits: [member]}, {name: member}, {name: security-auditor}]
trace: [security-auditor]
---
apiVersion: policyguard/v1
kind: Bindings
metadata: {name: bindings, owner: platform}
bindings:
  - {subject: "user:alice", role: lead, domain: llm}
  - {subject: "user:bob", role: member, domain: "*"}
  - {subject: "user:omar", role: ci, domain: llm, notBefore: 2030-03-04T08:00:00Z, expires: 2030-03-11T08:00:00Z}
---
apiVersion: policyguard/v1
kind: Persons
metadata: {name: persons, owner: platform}
persons: [{id: alice, accounts: ["user:alice"]}, {id: bob, accounts: ["user:bob"]}]
---
apiVersion: policyguard/v1
kind: Quorums
metadata: {name: quorums, owner: platform}
quorums:
  - {id: two-leads, approvers: [{count: 2, roles: [lead]}], maxAge: 24h}
  - {id: one-lead, approvers: [{count: 1, roles: [lead]}], of: request, once: true}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: rules, owner: platform}
rules:
  - {id: submit, effect: allow, actions: ["job:submit"], roles: [member], when: resource.gpus < 8}
  - {id: large, effect: require, actions: ["job:submit"], quorum: two-leads}
  - {id: read-data, effect: allow, actions: ["dataset:read"], when: 'resource.class in ["public", "internal"]'}
  - {id: start, effect: allow, actions: ["job:start"]}
  - {id: start-later, effect: allow, actions: ["job:start"], when: 'now > timestamp("2030-03-04T08:00:00Z")'}
  - {id: read-policies, effect: allow, actions: ["policy:read"]}
"""
POLICY_SET = load({"lab.yaml": POLICIES.encode()})
COMPILED: dict[str, Any] = msgspec.json.decode(canonical(compile_policy(POLICY_SET, grants_of(POLICY_SET))))
RULES = COMPILED["policy"]["rules"]
READS = next(n for n, rule in enumerate(RULES) if rule[0] == "read-data")
"""A rule with one list of texts as its constants."""
LATER = next(n for n, rule in enumerate(RULES) if rule[0] == "start-later")
"""A rule with one time as its constant, which JSON has as text."""
FREE = next(n for n, rule in enumerate(RULES) if rule[8] == -1 and not rule[10])
"""A rule without a condition and a quorum."""
SUBMITS = next(n for n, rule in enumerate(RULES) if "job:submit" in rule[2] and rule[1] == 0)
JOB = ("schema", "resources", "job")
GPUS = (*JOB, "attributes", "gpus")
ROLES = len(COMPILED["policy"]["grants"]["roles"])
SHAPES = len(COMPILED["policy"]["grants"]["shapes"])
TEXT = {"kind": "string"}

Steps = tuple[str | int, ...]


def snapshot_with(path: Steps, value: object) -> Snapshot:
    """The snapshot with another value at one place of its deciding part."""
    compiled = deepcopy(COMPILED)
    place: Any = compiled["policy"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return Snapshot.from_compiled(compiled, "0" * 64)


def attribute(kind: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "gpus", "type": kind, **more}


def timed(*row: object) -> list[object]:
    return [*COMPILED["policy"]["grants"]["timed"], list(row)]


def group(**changes: Any) -> dict[str, Any]:
    return {**COMPILED["policy"]["quorums"][0]["approvers"][0], **changes}


BEGIN, END = "2030-03-04T08:00:00Z", "2030-03-11T08:00:00Z"

REFUSED: dict[str, tuple[Steps, object, str]] = {
    "a name that no condition can name": (("schema", "context", "in"), attribute(TEXT) | {"name": "in"}, "be named"),
    "a resource type of another name": ((*JOB, "name"), "jobs", "resource type `job`: expected one type name"),
    "a subject type of another name": (
        ("schema", "subjects", "user", "name"),
        "x",
        "subject type `user`: expected one",
    ),
    "an action without its type": ((*JOB, "actions", 0), "submit", "expected actions such as"),
    "an action twice": ((*JOB, "actions"), ["job:submit", "job:start", "job:start"], "expected each action once"),
    "an id pattern that no id fits": ((*JOB, "id_pattern"), "team/{team}/{team}", "expected an id pattern"),
    "an attribute of another name": ((*GPUS, "name"), "nodes", "attribute `gpus`: expected one attribute name"),
    "a subject's attribute of another name": (
        ("schema", "subjects", "user", "attributes", "uid", "name"),
        "x",
        "attribute `uid`: expected one attribute name",
    ),
    "a record's field of another name": (("schema", "records", "code", "dirty", "name"), "x", "record `code`, attr"),
    "an attribute in capitals": (
        ("schema", "context", "Zone"),
        {"name": "Zone", "type": TEXT},
        "expected one attribute name",
    ),
    "a word twice": (GPUS, attribute(TEXT, enum=["a", "a"]), "each text of `enum` once"),
    "words for a number": (GPUS, attribute({"kind": "int"}, enum=["a"]), "`enum` for texts only"),
    "an age of nothing": (GPUS, attribute({"kind": "int"}, max_age_s=0), "a maximum age"),
    "an age without end": (GPUS, attribute({"kind": "int"}, max_age_s=MAX_AGE_S + 1), "a maximum age"),
    "a list of nothing": (GPUS, attribute({"kind": "list"}), "an element type for a list or a map only"),
    "a number of texts": (GPUS, attribute({"kind": "int", "element": TEXT}), "an element type for a list or a map"),
    "a record of no name": (GPUS, attribute({"kind": "record"}), "a record's name for a record only"),
    "a number of a record": (GPUS, attribute({"kind": "int", "record": "code"}), "a record's name for a record only"),
    "an unknown record": (GPUS, attribute({"kind": "record", "record": "x"}), "the unknown type `x`"),
    "a list of unknown records": (
        GPUS,
        attribute({"kind": "list", "element": {"kind": "record", "record": "x"}}),
        "the unknown type `x`",
    ),
    "a list of lists": (
        GPUS,
        attribute({"kind": "list", "element": {"kind": "list", "element": TEXT}}),
        "no list or map directly inside another",
    ),
    "a list of records of no name": (
        GPUS,
        attribute({"kind": "list", "element": {"kind": "record"}}),
        "a record's name for a record only",
    ),
    "a list of a number of texts": (
        GPUS,
        attribute({"kind": "list", "element": {"kind": "int", "element": TEXT}}),
        "an element type for a list or a map",
    ),
    "a role that is no segment": (("grants", "roles", 0), "a/b", "expected names of roles"),
    "a role that is no text": (("grants", "roles", 0), 1, "expected names of roles"),
    "a role twice": (("grants", "roles", 0), "lead", "expected each role once"),
    "a role that holds none": (("grants", "closed", 0), [], "for each role itself"),
    "a role that holds another only": (("grants", "closed", 0), [1], "for each role itself"),
    "a role that holds a number too high": (("grants", "closed", 0), [0, ROLES], "for each role itself"),
    "a role that holds a bool": (("grants", "closed", 0), [0, True], "for each role itself"),
    "a shape of a number too high": (("grants", "shapes", 1), [["*", ROLES]], "pairs of a domain and a role"),
    "a shape of a negative number": (("grants", "shapes", 1), [["*", -1]], "pairs of a domain and a role"),
    "a shape in a path": (("grants", "shapes", 1), [["a/b", 1]], "domains that are one segment"),
    "a shape in a number": (("grants", "shapes", 1), [[1, 1]], "domains that are one segment"),
    "a subject of a negative shape": (("grants", "subjects", "user:ann"), -1, "a shape that is listed"),
    "a subject of a shape too high": (("grants", "subjects", "user:ann"), SHAPES, "a shape that is listed"),
    "a subject of a bool": (("grants", "subjects", "user:ann"), True, "a shape that is listed"),
    "a subject without its type": (("grants", "subjects", "ann"), 0, "expected `type:id`"),
    "a time-boxed role too high": (
        ("grants", "timed"),
        timed("user:omar", ROLES, "*", BEGIN, END),
        "role that is list",
    ),
    "a time-boxed role below zero": (("grants", "timed"), timed("user:omar", -1, "*", BEGIN, END), "that is listed"),
    "a time-boxed stranger": (("grants", "timed"), timed("user:zoe", 0, "*", BEGIN, END), "`grants.subjects` lists"),
    "a time in numbers": (("grants", "timed"), timed("user:omar", 0, "*", 0, END), "times as text"),
    "an end in numbers": (("grants", "timed"), timed("user:omar", 0, "*", BEGIN, 9), "times as text"),
    "a time-boxed role in a path": (("grants", "timed"), timed("user:omar", 0, "a/b", BEGIN, END), "are one segment"),
    "a person twice": (("persons", 1, 0), "alice", "person `alice`: expected each once"),
    "an account without its type": (("persons", 1, 1), ["bob"], "account `bob`: expected `type:id`"),
    "an account of two persons": (("persons", 1, 1), ["user:alice"], "belongs to one person"),
    "an account twice": (("persons", 1, 1), ["user:b", "user:b"], "belongs to one person"),
    "a quorum twice": (("quorums", 1, "id"), "two-leads", "`quorums`: expected each id once"),
    "a quorum of no name": (("quorums", 1, "id"), "", "expected a name"),
    "a group of nobody": (("quorums", 0, "approvers"), [group(), group(count=0)], "at least one approver"),
    "a group of too many": (("quorums", 0, "approvers"), [group(count=MAX_APPROVERS + 1)], "at most 100 a group"),
    "a quorum of no group": (("quorums", 0, "approvers"), [], "at least one approver"),
    "a group of no role": (("quorums", 0, "approvers"), [group(), group(roles=[])], "roles that the grants list"),
    "a group of an unknown role": (("quorums", 0, "approvers"), [group(roles=["lead", "x"])], "that the grants list"),
    "a group in a path": (("quorums", 0, "approvers"), [group(domain="a/b")], "a domain or `*`"),
    "approvals of no age": (("quorums", 0, "max_age_s"), -1, "a maximum age"),
    "approvals without end": (("quorums", 0, "max_age_s"), MAX_AGE_S + 1, "a maximum age"),
    "a quorum of the tree": (("quorums", 0, "of"), "tree", "`of: request` and `once: true`"),
    "a quorum of no use": (("quorums", 0, "once"), False, "`of: request` and `once: true`"),
    "a role that may trace and nobody has": (("trace_roles",), ["security-auditor", "x"], "`trace_roles`"),
    "a rule twice": (("rules", FREE, 0), RULES[READS][0], "two rules have one id"),
    "an allow with a quorum": (("rules", FREE, 10), "two-leads", "a known one in a require only"),
    "a rule of an unknown role": (("rules", FREE, 4), ["lead", "x"], "a rule: expected roles that the grants list"),
    "a rule for nobody by name": (("rules", FREE, 5), ["user:ann", "ann"], "a rule for `ann`: expected `type:id`"),
    "a rule for no id": (("rules", FREE, 6), "team/../x", "expected a pattern"),
    "a rule on an unknown type": (("rules", FREE, 3), [*RULES[FREE][3], "x"], "resource types of the schema"),
    "a rule on an action of another type": (("rules", FREE, 2), ["repo:push"], "actions of its resource types"),
    "a rule in a path": (("rules", SUBMITS, 7), "a/b", "a scope that is a domain"),
    "a rule in a domain where ids have none": (
        ("rules", next(n for n, rule in enumerate(RULES) if rule[3] == ["policy"]), 7),
        "vision",
        "and ids that name it",
    ),
    "a condition of a number too high": (
        ("rules", FREE, 8),
        len(COMPILED["policy"]["shapes"]),
        f"a rule has condition {len(COMPILED['policy']['shapes'])}",
    ),
    "a floor under what is not read": (("rules", FREE, 17), [["resource.gpus", 2]], "a condition that reads it"),
    "a condition that reads another type's attribute": (
        ("rules", FREE),
        [*RULES[FREE][:8], RULES[READS][8], RULES[READS][9], *RULES[FREE][10:]],
        "expected an attribute of the schema",
    ),
    "an attribute of another type than is read": (
        (*GPUS, "type", "kind"),
        "string",
        "expected an attribute of the schema",
    ),
    "a text for a list": (("rules", READS, 9), ["public"], "found other constants than its condition has"),
    "a list of a text and a number": (("rules", READS, 9), [["public", 1]], "found other constants"),
    "a constant too many": (("rules", READS, 9), [["public"], "x"], "found other constants"),
    "a time in a number": (("rules", LATER, 9), [1], "found other constants"),
    "a time in words": (("rules", LATER, 9), ["tomorrow"], "found other constants"),
    "a time of no digits": (("rules", LATER, 9), [""], "found other constants"),
    "a time with a sign": (("rules", LATER, 9), ["+1"], "found other constants"),
    "a time with a zero before it": (("rules", LATER, 9), ["01"], "found other constants"),
    "a time of minus nothing": (("rules", LATER, 9), ["-0"], "found other constants"),
    "a time in other digits": (("rules", LATER, 9), ["\u0661"], "found other constants"),
    "a time in superscript": (("rules", LATER, 9), ["\u00b2"], "found other constants"),
    "a time beyond the years": (("rules", LATER, 9), ["9" * 24], "found other constants"),
    "a time of very many digits": (("rules", LATER, 9), ["9" * 5000], "found other constants"),
    "a list of a time": (("rules", LATER, 9), [["1"]], "found other constants"),
    "a constant too few": (("rules", READS, 9), [], "found other constants"),
}


@pytest.mark.parametrize(("path", "value", "words"), REFUSED.values(), ids=REFUSED)
def test_one_part_of_another_make_is_refused(path: Steps, value: object, words: str) -> None:
    """INVARIANT I4: the pinned key signed it, and still it is not what compiling gives."""
    with pytest.raises(ConfigurationError, match=r"^compiled snapshot: ") as refusal:
        snapshot_with(path, value)
    assert words in refusal.value.message


LOADED: dict[str, tuple[Steps, object]] = {
    "as it was": (("epoch",), 0),
    "a type without a pattern": ((*JOB[:2], "policy", "id_pattern"), None),
    "the least age": (GPUS, attribute({"kind": "int"}, max_age_s=1)),
    "the greatest age": (GPUS, attribute({"kind": "int"}, max_age_s=MAX_AGE_S)),
    "two different words": ((*JOB, "attributes", "queue"), attribute(TEXT, enum=["a", "b"]) | {"name": "queue"}),
    "the last role": (("grants", "shapes", 1), [["*", ROLES - 1]]),
    "the first role": (("grants", "shapes", 1), [["llm", 0]]),
    "the last shape": (("grants", "subjects", "user:ann"), SHAPES - 1),
    "a time-boxed role": (("grants", "timed"), timed("user:omar", ROLES - 1, "llm", BEGIN, END)),
    "a person without accounts": (("persons", 1, 1), []),
    "a group of a hundred": (("quorums", 0, "approvers"), [group(count=MAX_APPROVERS)]),
    "a group in a domain": (("quorums", 0, "approvers"), [group(domain="llm"), group(domain="*")]),
    "approvals of this very moment": (("quorums", 0, "max_age_s"), 0),
    "approvals of any age": (("quorums", 0, "max_age_s"), None),
    "nobody who may trace": (("trace_roles",), []),
    "a rule in a domain": (("rules", SUBMITS, 7), "llm"),
    "another time": (("rules", LATER, 9), ["1"]),
    "a time before 1970": (("rules", LATER, 9), ["-1"]),
    "another list of texts": (("rules", READS, 9), [["public"]]),
}


@pytest.mark.parametrize(("path", "value"), LOADED.values(), ids=LOADED)
def test_one_part_at_its_limit_loads(path: Steps, value: object) -> None:
    """The twins, so that no check refuses what compiling may give."""
    assert snapshot_with(path, value).rules


def test_a_snapshot_has_a_place_for_each_rule() -> None:
    """One too few or too many would name the wrong line of the wrong file."""
    places = COMPILED["places"]
    for other in (places[1:], [*places, places[0]]):
        with pytest.raises(ConfigurationError, match=f"expected {len(places)}, one for each rule"):
            Snapshot.from_compiled({**COMPILED, "places": other}, "0" * 64)


def test_a_part_that_is_missing_is_named() -> None:
    """And only such a part is said to be missing."""
    compiled = deepcopy(COMPILED)
    del compiled["policy"]["grants"]["roles"]
    with pytest.raises(ConfigurationError) as refusal:
        Snapshot.from_compiled(compiled, "0" * 64)
    assert refusal.value.message == "compiled snapshot: `roles` is missing"
    with pytest.raises(ConfigurationError) as refusal:
        snapshot_with(("rules", FREE, 6), "team/../x")
    assert refusal.value.message == "compiled snapshot: id pattern `team/../x`: expected a pattern"
