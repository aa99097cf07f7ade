"""Signed snapshots of another make: every malformed part is one clear refusal, never a traceback or a silent allow."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.decide.compiled_form import compile_policy
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.policy_store.folder import grants_of, policy_set_of_folder
from policyguard.values import canonical

POLICY_SET = policy_set_of_folder(Path(__file__).parents[2] / "policies")
COMPILED: dict[str, Any] = msgspec.json.decode(canonical(compile_policy(POLICY_SET, grants_of(POLICY_SET))))
REQUIRE = next(n for n, rule in enumerate(COMPILED["policy"]["rules"]) if rule[1] == 2)
ALLOW = next(n for n, rule in enumerate(COMPILED["policy"]["rules"]) if rule[1] == 0)
Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> dict[str, Any]:
    compiled = deepcopy(COMPILED)
    change(compiled)
    return compiled


def rule(number: int, field: int, value: object) -> Change:
    return lambda compiled: compiled["policy"]["rules"][number].__setitem__(field, value)


def shape(node: list[Any]) -> Change:
    """Put a condition in place of the first one."""
    return lambda compiled: compiled["policy"]["shapes"].__setitem__(0, [1, node])


def nested(depth: int) -> list[Any]:
    return ["f", "logical_not", [nested(depth - 1)], "bool", 0] if depth else ["c", True, "bool", 0]


def integer_rule(compiled: dict[str, Any]) -> list[Any]:
    """Return a rule whose constants are integers."""
    rules: list[list[Any]] = compiled["policy"]["rules"]
    return next(rule for rule in rules if rule[9] and all(type(constant) is int for constant in rule[9]))


def with_presence(effect: int) -> int:
    """Find a rule of this effect whose condition asks whether a fact is there."""
    shapes = [canonical(shape) for shape in COMPILED["policy"]["shapes"]]
    tests_presence = [b'"has"' in text or b'["h",' in text for text in shapes]
    rules = COMPILED["policy"]["rules"]
    return next(n for n, rule in enumerate(rules) if rule[1] == effect and rule[8] >= 0 and tests_presence[rule[8]])


CHANGES: dict[str, Change] = {
    "a deny for an absent fact that allows": rule(with_presence(1), 1, 0),
    "an allow for a fact that denies": rule(with_presence(0), 1, 1),
    "another format": lambda c: c.update(format="policyguard/compiled/v2"),
    "no policy": lambda c: c.pop("policy"),
    "a policy that is a list": lambda c: c.update(policy=[]),
    "no places": lambda c: c.pop("places"),
    "an unknown member": lambda c: c.update(overrides=[]),
    "a name of two lines": lambda c: c.update(name="a\nb"),
    "a name that no schema may have": lambda c: c.update(name="a/b"),
    "fewer places than rules": lambda c: c["places"].pop(),
    "a place too short": lambda c: c["places"][0].pop(),
    "an unknown part": lambda c: c["policy"].update(overrides=[]),
    "an effect of tomorrow": rule(ALLOW, 1, 3),
    "an effect below zero": rule(ALLOW, 1, -1),
    "an effect that is a bool": rule(ALLOW, 1, True),
    "a condition below zero": rule(ALLOW, 8, -2),
    "a condition that is not there": rule(ALLOW, 8, 10**6),
    "a rule for the empty role": rule(ALLOW, 4, [""]),
    "a rule of no action": rule(ALLOW, 2, []),
    "a rule of an unknown type": rule(ALLOW, 3, ["ghost"]),
    "a rule with a field more": lambda c: c["policy"]["rules"][ALLOW].append(1),
    "a rule with a field less": lambda c: c["policy"]["rules"][ALLOW].pop(),
    "an allow with a quorum": rule(ALLOW, 10, "two-leads"),
    "a require without a quorum": rule(REQUIRE, 10, None),
    "a require with an unknown quorum": rule(REQUIRE, 10, "ghost"),
    "too few constants": rule(ALLOW, 9, []),
    "too many constants": rule(ALLOW, 9, [1] * 50),
    "a time that is none": rule(ALLOW, 16, "tomorrow"),
    "one id twice": rule(ALLOW, 0, COMPILED["policy"]["rules"][REQUIRE][0]),
    "a quorum of nobody": lambda c: c["policy"]["quorums"][0].update(approvers=[]),
    "a quorum of none": lambda c: c["policy"]["quorums"][0]["approvers"][0].update(count=0),
    "a quorum without roles": lambda c: c["policy"]["quorums"][0]["approvers"][0].update(roles=[]),
    "an epoch in text": lambda c: c["policy"].update(epoch="1"),
    "a shape of another version": lambda c: c["policy"]["shapes"][0].__setitem__(0, 2),
    "a shape of an unknown function": lambda c: c["policy"].update(shapes=[[1, ["f", "system", [], "bool", 0]]]),
    "grants of another version": lambda c: c["policy"]["grants"].update(format=2),
    "grants without roles": lambda c: c["policy"]["grants"].pop("roles"),
    "persons as text": lambda c: c["policy"].update(persons="ann"),
    "a variable without a name": shape(["v", "", "bool", 0]),
    "a variable of no macro": shape(["v", "x", "bool", 0]),
    "a variable of another type": shape(["v", "action", "bool", 0]),
    "a macro that shadows": shape(
        ["q", "all", "resource", ["l", [], "list(dyn)", 0], ["c", True, "bool", 0], "bool", [], 0]
    ),
    "an attribute that the schema lacks": shape(["s", ["v", "resource", "resource", 0], "ghost", "bool", 0]),
    "an attribute of another type": shape(["s", ["v", "resource", "resource", 0], "gpus", "bool", 0]),
    "a field of a text": shape(["h", ["v", "action", "string", 0], "x", 0]),
    "a condition that is no bool": shape(["c", 1, "int", 0]),
    "a constant of another type": shape(["c", "x", "bool", 0]),
    "an operand of another type": shape(["f", "logical_not", [["c", 1, "int", 0]], "bool", 0]),
    "an operand too many": shape(["f", "logical_not", [["c", True, "bool", 0]] * 2, "bool", 0]),
    "a hole that nothing fills": shape(["f", "equals", [["o", 7, "int", 0], ["o", 8, "int", 0]], "bool", 0]),
    "a condition nested too deeply": shape(nested(200)),
    "a constant beyond 2^53": lambda c: integer_rule(c).__setitem__(9, [2**53] * len(integer_rule(c)[9])),
    "a bool for an integer": lambda c: integer_rule(c).__setitem__(9, [True] * len(integer_rule(c)[9])),
    "a pattern that no id matches": rule(ALLOW, 6, "team/../**"),
    "a scope that is no domain": rule(ALLOW, 7, "a/b"),
    "a role that the grants lack": rule(ALLOW, 4, ["ghost"]),
    "an action of another type": rule(ALLOW, 2, ["ghost:submit"]),
    "a subject that is none": rule(ALLOW, 5, ["alice"]),
    "a subject that is a pattern": rule(ALLOW, 5, ["user:*"]),
    "a reason with a lone surrogate": rule(ALLOW, 11, "\ud800"),
    "a quorum of a million": lambda c: c["policy"]["quorums"][0]["approvers"][0].update(count=10**6),
    "a quorum of unknown roles": lambda c: c["policy"]["quorums"][0]["approvers"][0].update(roles=["ghost"]),
    "a quorum of something else": lambda c: c["policy"]["quorums"][0].update(of="anything"),
    "one account of two persons": lambda c: c["policy"]["persons"].append(["x", c["policy"]["persons"][0][1], [], []]),
    "a role by a negative number": lambda c: c["policy"]["grants"]["closed"][0].append(-1),
    "a subject of grants that is none": lambda c: c["policy"]["grants"]["subjects"].update(alice=0),
    "an unknown role that may trace": lambda c: c["policy"].update(trace_roles=["ghost"]),
    "an epoch beyond 2^53": lambda c: c["policy"].update(epoch=2**53),
    "a line before the first": lambda c: c["places"][0].__setitem__(1, 0),
    "a record that is not there": lambda c: c["policy"]["schema"]["context"].update(
        x={"name": "x", "type": {"kind": "record", "record": "ghost"}}
    ),
    "an attribute of another name": lambda c: c["policy"]["schema"]["context"].update(
        x={"name": "y", "type": {"kind": "int"}}
    ),
    "a list of nothing": lambda c: c["policy"]["schema"]["context"].update(x={"name": "x", "type": {"kind": "list"}}),
    "a schema of an unknown kind": lambda c: c["policy"]["schema"]["context"].update(
        x={"name": "x", "type": {"kind": "float"}}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_malformed_snapshot_is_refused_in_one_line(change: Change) -> None:
    """INVARIANT I4: what a pinned key signed is still read as data; its twin as compiled loads."""
    with pytest.raises(ConfigurationError, match=r"^compiled snapshot: ") as caught:
        Snapshot.from_compiled(changed(change), "0" * 64)
    assert str(caught.value).isprintable()
    assert caught.value.help == "compile the policies again"
    assert Snapshot.from_compiled(COMPILED, "0" * 64).rules


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(found for key, value in inner for found in _places(value, (*path, key)))]


PLACES = [path for path in _places(COMPILED) if path]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([None, True, 0, -1, 2**70, "", "x", [], {}, [[]], {"x": 1}]))
def test_a_snapshot_changed_anywhere_loads_or_is_refused(path: tuple[Any, ...], value: object) -> None:
    """Whatever stands at a place: a refusal in words, or a snapshot that answers without raising."""
    compiled = deepcopy(COMPILED)
    holder = compiled
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    try:
        snapshot = Snapshot.from_compiled(compiled, "0" * 64)
    except ConfigurationError:
        return
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)
    decision = Engine(snapshot).decide(Facts(request, claims(request, 5)), 5)
    assert decision.explain()
