"""The oracle in every small world: all sets of three rules, all effects, all outcomes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.spec import decide

NOW = 1_000_000
OUTCOMES: dict[str, list[Any]] = {
    "true": ["const", True],
    "false": ["const", False],
    "error": ["select", ["var", "context"], "ghost"],
}
EFFECTS = ("allow", "deny", "require")


def rule(name: str, effect: str, outcome: str = "true", **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "effect": effect,
        "actions": ["job:submit"],
        "types": ["job"],
        "roles": [],
        "subjects": [],
        "pattern": None,
        "when": OUTCOMES[outcome],
        "quorum": "two" if effect == "require" else None,
        "scope": None,
        "since": None,
        "until": None,
        "floors": {},
        **more,
    }


def policy(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "subjects": {"user": {"attributes": {}, "actions": [], "pattern": None}},
        "resources": {"job": {"attributes": {}, "actions": ["job:submit", "job:kill"], "pattern": "team/{team}/**"}},
        "context": {},
        "records": {},
        "roles": {"lead": ["researcher"], "researcher": []},
        "bindings": [bind(f"user:{name}", "lead") for name in ("bob", "carol", "dave")],
        "persons": {f"user:{name}": name for name in ("alice", "bob", "carol", "dave")},
        "quorums": {
            "two": {"places": [{"count": 2, "roles": ["lead"], "domain": None}], "max_age": None, "assurance": 4}
        },
        "rules": list(rules),
        **more,
    }


def bind(subject: str, role: str, domain: str = "vision") -> dict[str, Any]:
    return {"subject": subject, "role": role, "domain": domain, "since": None, "until": None}


def facts(*approvers: str, **more: Any) -> dict[str, Any]:
    approvals = [
        {"account": f"user:{name}", "assurance": 4, "approved_at": NOW - 1, "expires": NOW + 1} for name in approvers
    ]
    return {
        "subject": "user:alice",
        "action": "job:submit",
        "resource": "job:team/vision/run-1",
        "entries": {},
        "approvals": approvals,
        "contributors": [],
        **more,
    }


KINDS = [(effect, outcome) for effect in EFFECTS for outcome in OUTCOMES]


@pytest.mark.parametrize("approvers", [(), ("bob", "carol")], ids=["quorum unmet", "quorum met"])
def test_the_rule_of_decision_in_all_worlds_of_three_rules(approvers: tuple[str, ...]) -> None:
    """Deny trumps, allow is needed, a quorum is needed where one applies, errors never grant; 729 worlds."""
    for kinds in itertools.product(KINDS, repeat=3):
        world = policy(*(rule(f"r{n}", *kind) for n, kind in enumerate(kinds)))
        denied = any(effect == "deny" and outcome != "false" for effect, outcome in kinds)
        granted = ("allow", "true") in kinds
        asked = any(effect == "require" and outcome != "false" for effect, outcome in kinds)
        expected = granted and not denied and (not asked or bool(approvers))
        found = decide(world, facts(*approvers), NOW)
        assert found["allowed"] is expected, kinds
        assert found["errored"] == [f"r{n}" for n, (_, outcome) in enumerate(kinds) if outcome == "error"]


def test_order_and_duplicates_do_not_matter() -> None:
    """Every order of four rules, each twice, gives one answer."""
    rules = [rule("a", "allow"), rule("b", "deny", "error"), rule("c", "require"), rule("d", "allow", "false")]
    answers = [decide(policy(*order, *order), facts(), NOW) for order in itertools.permutations(rules)]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"action": "job:burn"}, "unknown_action"),
        ({"subject": "robot:x"}, "unknown_type"),
        ({"resource": "lake:x"}, "unknown_type"),
        ({"resource": "job:speech"}, "malformed"),
        ({"entries": {"resource.gpus": {"value": 1, "assurance": 1, "observed_at": 0}}}, "malformed"),
    ],
    ids=["action", "subject type", "resource type", "an id outside its type's pattern", "a claim nobody declared"],
)
def test_what_is_not_known_is_denied(change: dict[str, Any], reason: str) -> None:
    """Before any rule is asked."""
    answer = decide(policy(rule("a", "allow")), facts(**change), NOW)
    assert (answer["allowed"], answer["reason"]) == (False, reason)


def test_no_rules_deny() -> None:
    """An empty policy set allows nothing."""
    assert decide(policy(), facts(), NOW)["reason"] == "no_rules"


@pytest.mark.parametrize(
    ("more", "concerned"),
    [
        ({"roles": ["researcher"]}, False),
        ({"subjects": ["user:alice"]}, True),
        ({"subjects": ["user:bob"]}, False),
        ({"scope": "vision"}, True),
        ({"scope": "speech"}, False),
        ({"pattern": "team/{team}/run-*"}, True),
        ({"pattern": "team/{team}"}, False),
        ({"since": NOW, "until": NOW + 1}, True),
        ({"until": NOW}, False),
        ({"since": NOW + 1}, False),
        ({"actions": ["job:kill"]}, False),
    ],
)
def test_a_rule_concerns_what_all_its_fields_take_in(more: dict[str, Any], concerned: bool) -> None:
    """Roles, subjects, scope, pattern, time, action."""
    assert decide(policy(rule("a", "allow", **more)), facts(), NOW)["allowed"] is concerned


def test_an_inherited_role_counts() -> None:
    """Bob leads, so Bob is a researcher."""
    world = policy(rule("a", "allow", roles=["researcher"]))
    assert decide(world, facts(subject="user:bob"), NOW)["allowed"]
    assert not decide(world, facts(subject="user:bob", resource="job:team/speech/x"), NOW)["allowed"]


@pytest.mark.parametrize(
    ("approvers", "more", "met"),
    [
        (("bob", "carol"), {}, True),
        (("bob",), {}, False),
        (("bob", "bob"), {}, False),
        (("alice", "bob"), {}, False),
        (("bob", "stranger"), {}, False),
        (("bob", "carol"), {"contributors": None}, False),
        (("bob", "carol"), {"contributors": ["user:bob"]}, False),
        (("bob", "carol", "dave"), {"contributors": ["user:bob"]}, True),
        (("bob", "carol"), {"contributors": ["user:stranger"]}, False),
    ],
    ids=[
        "two leads",
        "one",
        "one twice",
        "the requester",
        "an account nobody knows",
        "contributors not known",
        "a contributor",
        "two beside a contributor",
        "a contributor nobody knows",
    ],
)
def test_a_quorum_counts_distinct_independent_persons(
    approvers: tuple[str, ...], more: dict[str, Any], met: bool
) -> None:
    """One person, one place; contributors and the requester none."""
    answer = decide(policy(rule("a", "allow"), rule("q", "require")), facts(*approvers, **more), NOW)
    assert answer["allowed"] is met
    assert answer["unmet"] == ([] if met else ["two"])


def test_places_are_filled_whichever_way_fits() -> None:
    """Bob fits both places, Carol only one: Bob takes the other."""
    quorum = {
        "places": [{"count": 1, "roles": ["lead"], "domain": None}, {"count": 1, "roles": ["x"], "domain": "*"}],
        "max_age": None,
        "assurance": 4,
    }
    held = [bind("user:bob", "lead"), bind("user:bob", "x", "*"), bind("user:carol", "lead")]
    world = policy(rule("a", "allow"), rule("q", "require"), quorums={"two": quorum}, bindings=held)
    assert decide(world, facts("bob", "carol"), NOW)["allowed"]
    assert not decide(world, facts("carol"), NOW)["allowed"]


def test_a_weak_or_stale_fact_is_absent() -> None:
    """Below the declared assurance, or older than declared, a condition cannot read it."""
    attribute = {"type": "int", "enum": [], "assurance": 3, "max_age": 10}
    job = {"attributes": {"gpus": attribute}, "actions": ["job:submit"], "pattern": "team/{team}/**"}
    when = ["call", "less_int64", ["select", ["var", "resource"], "gpus"], ["const", 9]]
    world = policy(rule("a", "allow", when=when), resources={"job": job})
    found = {
        (assurance, age): decide(
            world, facts(entries={"resource.gpus": {"value": 8, "assurance": assurance, "observed_at": NOW - age}}), NOW
        )["allowed"]
        for assurance in (1, 2, 3, 4)
        for age in (-1, 0, 10, 11)
    }
    assert {key for key, allowed in found.items() if allowed} == {(3, 0), (3, 10), (4, 0), (4, 10)}


def test_what_a_rule_wants_known_better_is_absent_for_it_alone() -> None:
    """A weaker fact is an error where the condition reads it and nothing where it is settled without."""
    attribute = {"type": "int", "enum": [], "assurance": 1, "max_age": None}
    job = {
        "attributes": {"gpus": attribute, "nodes": attribute},
        "actions": ["job:submit"],
        "pattern": "team/{team}/**",
    }
    many = ["call", "greater_int64", ["select", ["var", "resource"], "gpus"], ["const", 8]]
    spread = ["call", "greater_int64", ["select", ["var", "resource"], "nodes"], ["const", 4]]
    deny = rule("d", "deny", when=["call", "logical_and", many, spread], floors={"resource.nodes": 2})
    world = policy(rule("a", "allow"), deny, resources={"job": job})

    def asked(gpus: int, assurance: int) -> dict[str, Any]:
        nodes = {"value": 1, "assurance": assurance, "observed_at": NOW}
        return decide(world, facts(entries={"resource.gpus": {**nodes, "value": gpus}, "resource.nodes": nodes}), NOW)

    assert [asked(8, 1)["allowed"], asked(9, 2)["allowed"], asked(9, 1)["allowed"]] == [True, True, False]
    assert asked(9, 1)["errored"] == ["d"]
