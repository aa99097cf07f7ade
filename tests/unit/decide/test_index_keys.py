"""What a condition requirements of single attributes, and that the index may trust it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from policyguard.conditions.ast import shape
from policyguard.conditions.check import Checker
from policyguard.conditions.exact import EvalError, evaluate
from policyguard.conditions.problems import ConditionErrors
from policyguard.decide.index.keys import extract, instantiate
from policyguard.decide.index.tree import Requirement
from policyguard.model.expression import Expression
from tests.properties.strategies_conditions import SCHEMA, conditions, worlds

CHECKER = Checker(SCHEMA)
ENTITIES = ("subject", "resource", "context")


def check(text: str) -> Expression:
    return CHECKER.check(text, resource_type="job")


def requirements(expression: Expression) -> tuple[Requirement, ...]:
    form, constants = shape(expression)
    return instantiate(extract(form), constants)


def path(requirement: Requirement) -> str:
    entity, *names = requirement.slot[0]
    return ".".join((ENTITIES[entity], *(name for name in names if name is not None)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resource.team == 'a' && resource.gpus > 1", [("resource.team", "in", {"a"}), ("resource.gpus", ">=", {2})]),
        ("'a' == resource.team", [("resource.team", "in", {"a"})]),
        ("1 > resource.gpus && resource.gpus >= 0", [("resource.gpus", "<=", {0}), ("resource.gpus", ">=", {0})]),
        ("resource.gpus <= 9007199254740991", [("resource.gpus", "<=", {2**53 - 1})]),
        (
            "resource.team in ['a', 'b'] && resource.gpus in [1]",
            [("resource.team", "in", {"a", "b"}), ("resource.gpus", "in", {1})],
        ),
        (
            "resource.flag && !resource.code.dirty",
            [("resource.flag", "in", {True}), ("resource.code.dirty", "in", {False})],
        ),
        ("resource.code.dirty == false && action == 'job:submit'", [("resource.code.dirty", "in", {False})]),
        ("resource.flag in [true, false]", [("resource.flag", "in", {True, False})]),
        ("resource.team in []", []),
        ("resource.team == 'a' || resource.gpus == 1", []),
        ("!(resource.team == 'a')", []),
        ("resource.team != 'a'", []),
        ("resource.flag ? resource.gpus == 1 : false", []),
        ("resource.tags.exists(t, t == 'a')", []),
        ("resource.team == subject.id", []),
        ("resource.team in resource.tags", []),
        ("resource.gpus + 1 > 5", []),
        ("resource.labels.a == 'x'", [("resource.labels.a", "in", {"x"})]),
        ("resource.labels['a'] == 'x'", [("resource.labels.a", "in", {"x"})]),
        ("resource.labels[resource.team] == 'x'", []),
    ],
)
def test_demands_are_found(text: str, expected: list[tuple[str, str, set[Any]]]) -> None:
    """Top-level conjuncts that compare one attribute with constants, and nothing else."""
    found = [
        (path(requirement), requirement.slot[1], set(requirement.values)) for requirement in requirements(check(text))
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("text", "attribute_guarded", "guarded"),
    [
        ("resource.gpus == 1", False, False),
        ("has(resource.gpus) && resource.gpus == 1", True, True),
        ("resource.code.dirty", False, False),
        ("has(resource.code) && resource.code.dirty", True, False),
        ("has(resource.code.dirty) && resource.code.dirty", False, True),
        ("has(resource.code) && has(resource.code.dirty) && resource.code.dirty", True, True),
        ("'a' in resource.labels && resource.labels['a'] == 'x'", False, True),
        ("'b' in resource.labels && resource.labels['a'] == 'x'", False, False),
        ("(has(resource.gpus) || resource.flag) && resource.gpus == 1", False, False),
    ],
)
def test_absence_is_guarded_only_where_it_makes_false(text: str, attribute_guarded: bool, guarded: bool) -> None:
    """Of an unguarded absence the condition is an error, so that the rule has to be visited."""
    requirement = requirements(check(text))[-1]
    assert (requirement.attribute_guarded, requirement.guarded) == (attribute_guarded, guarded)


def meets(requirement: Requirement, world: dict[str, Any]) -> bool:
    """Return whether the index would visit a rule with this requirement."""
    entity, name, field = requirement.slot[0]
    attributes = world[ENTITIES[entity]]
    if name not in attributes:
        return not requirement.attribute_guarded
    value = attributes[name]
    if field is not None:
        if field not in value:
            return not requirement.guarded
        value = value[field]
    if requirement.slot[1] == "in":
        return value in requirement.values
    return bool(value >= requirement.values[0] if requirement.slot[1] == ">=" else value <= requirement.values[0])


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=conditions(depth=3), world=worlds())
def test_where_a_demand_is_not_met_the_condition_is_false(text: str, world: dict[str, Any]) -> None:
    """The index may skip a rule whose requirement is not met, for a deny as well: it is FALSE, never an error."""
    try:
        expression = check(
            f"has(resource.gpus) && resource.flag && resource.gpus >= 5 && subject.level in [1, 2] && {text}"
        )
    except ConditionErrors:
        assume(False)
        raise
    for requirement in requirements(expression):
        if not meets(requirement, world):
            outcome = evaluate(expression, **world)
            assert not isinstance(outcome, EvalError)
            assert outcome is False
