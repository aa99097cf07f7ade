"""Compiled code, the exact evaluator, the oracle and the CEL library agree on conditions over the whole profile.

`POLICYGUARD_COMPARISONS=1000000` runs a million comparisons, `POLICYGUARD_SEED` others. A comparison is one condition
in one world, evaluated four ways.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest

from policyguard.analysis import oracle_cel
from policyguard.analysis.plain import plain_tree
from policyguard.conditions.ast import rebuilt, shape
from policyguard.conditions.check import Checker
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.cost import constant_list
from policyguard.conditions.exact import EvalError, evaluate
from policyguard.conditions.problems import ConditionErrors
from policyguard.model.expression import Expression, Quantifier
from tests.differential.generated_conditions import Conditions
from tests.differential.test_conditions_random import LIBRARY, by_library
from tests.properties.strategies_conditions import SCHEMA

COMPARISONS = int(os.environ.get("POLICYGUARD_COMPARISONS", "100000"))
SEED = int(os.environ.get("POLICYGUARD_SEED", "20261128"))
PARTS = 4
WORLDS = 40
"""Worlds for each condition: checking one costs as much as evaluating it forty times."""

CHECKER = Checker(SCHEMA)


def checked(text: str) -> Expression | None:
    """Check a condition; None if a constant in it can only fail, which policies may not hold."""
    try:
        return CHECKER.check(text, resource_type="job")
    except ConditionErrors as problem:
        if {error.code for error in problem.errors} <= {"PG314", "PG405", "PG207"}:
            return None
        raise


def by_oracle(expression: Expression, world: dict[str, Any]) -> bool | None:
    """True, False, or None for an error."""
    try:
        value = oracle_cel.evaluate(plain_tree(expression), listed(world))
    except oracle_cel.Absent:
        return None
    assert type(value) is bool
    return value


def listed(value: Any) -> Any:
    """The world in plain lists and dicts, as the oracle reads it."""
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, tuple) else value


def lists_keys(expression: Expression) -> bool:
    """Return True if a macro makes a list of a map's keys: CEL leaves their order open, and ours is alphabetical."""
    macros: list[Expression] = []

    def visit(node: Expression) -> Expression:
        if isinstance(node, Quantifier) and node.kind in ("map", "filter") and node.range.type.startswith("map("):
            macros.append(node)
        return node

    rebuilt(expression, visit)
    return bool(macros)


def in_four_ways(expression: Expression, text: str, worlds: list[dict[str, Any]]) -> Counter[str]:
    """Compare the four on one condition; count what came out."""
    outcomes: Counter[str] = Counter()
    pattern, constants = shape(expression)
    kept = tuple(constant_list(value) if isinstance(value, tuple) else value for value in constants)
    run: Any = compile_shape(pattern)
    for world in worlds:
        exact = evaluate(expression, **world)
        plain = None if isinstance(exact, EvalError) else exact
        try:
            fast: bool | None = run(*world.values(), kept)
        except Exception:  # noqa: BLE001 - the code may raise anything where it cannot tell
            fast = None
        said = {"exact": plain, "oracle": by_oracle(expression, world)}
        if not lists_keys(expression):
            said["library"] = by_library(text, world)
        if fast is not None:
            said["compiled"] = fast
        assert set(said.values()) == {plain}, f"{said}\n{text}\n{world}\n{exact}"
        outcomes["error" if plain is None else str(plain)] += 1
        outcomes["compiled code answered"] += fast is not None
    return outcomes


@pytest.mark.parametrize("part", range(PARTS))
def test_four_evaluators_agree(part: int) -> None:
    """The same outcome, errors included; compiled code may decline where the others know, and never differs."""
    source = Conditions(SEED * PARTS + part)
    outcomes: Counter[str] = Counter()
    compared = 0
    while compared < COMPARISONS // PARTS:
        text = source.condition()
        expression = checked(text)
        if expression is not None:
            outcomes += in_four_ways(expression, text, [source.world() for _ in range(WORLDS)])
            compared += WORLDS
    # Each outcome and both ways through the engine are frequent, so that agreement says something.
    assert min(outcomes["True"], outcomes["False"], outcomes["error"]) > compared // 50, outcomes
    assert compared // 10 < outcomes["compiled code answered"] < compared, outcomes


@pytest.mark.parametrize(
    ("since", "outcome"), [("1ns", "error"), ("0s", "True"), ("-1ns", "True"), ("-854775807ns", "True")]
)
def test_a_difference_within_a_second_of_292_years_is_what_the_library_says(since: str, outcome: str) -> None:
    """Found by a million comparisons: the library multiplies the whole seconds first, which overflows."""
    world = Conditions(1).world()
    world["resource"] = {**world["resource"], "started": 253_402_300_799 * 10**9}
    earlier = f'((resource.started - duration("{since}")) - duration("9223372036s"))'
    text = f'resource.started - {earlier} > duration("1s")'
    expression = checked(text)
    assert expression is not None
    assert in_four_ways(expression, text, [world])[outcome] == 1


def test_the_order_of_a_maps_keys_is_alphabetical_here_and_open_in_the_library() -> None:
    """So lists of keys are the one thing that is not compared with the library; that of their sizes is."""
    text = 'resource.labels.map(key, key) == ["a", "b"]'
    expression, compared = checked(text), checked("resource.labels.all(key, size(key) == 1)")
    assert expression is not None
    assert compared is not None
    assert lists_keys(expression)
    assert not lists_keys(compared)
    world = Conditions(1).world()
    world["resource"] = {**world["resource"], "labels": {"b": "x", "a": "y"}}
    assert in_four_ways(expression, text, [world])["True"] == 1


def test_the_library_compares_conditions() -> None:
    """The comparison is not empty: the library evaluates macros over computed values, and sees overflow in them."""
    assert LIBRARY is not None
    world = Conditions(1).world() | {"resource": {"nums": (2**52, 2**52)}}
    assert by_library("[resource.nums[0]].map(b, b * 1024).all(x, x > 0)", world) is True
    assert by_library("[resource.nums[0]].map(b, b * 1024).all(x, x + x > 0)", world) is None
