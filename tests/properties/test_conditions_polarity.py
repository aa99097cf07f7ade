"""Removing a fact never turns a deny into an allow: the theorem for one condition, and the rule behind it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from policyguard.conditions.check import Checker
from policyguard.conditions.exact import evaluate
from policyguard.conditions.polarity import polarity_errors
from policyguard.conditions.problems import ConditionErrors
from policyguard.model.expression import Expression
from policyguard.model.policy import Effect
from tests.properties.strategies_conditions import SCHEMA, conditions, worlds

CHECKER = Checker(SCHEMA)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def checked(text: str) -> Expression:
    try:
        return CHECKER.check(text, resource_type="job")
    except ConditionErrors:
        assume(False)
        raise


def removals(world: dict[str, Any]) -> list[tuple[str, str]]:
    """Every attribute that could be absent, as (entity, name); the names of entities are never absent."""
    return [
        (entity, name)
        for entity in ("subject", "resource", "context")
        for name in world[entity]
        if name not in ("id", "type", "domain")
    ]


def without(world: dict[str, Any], removed: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        entity: {name: value for name, value in content.items() if (entity, name) not in removed}
        if isinstance(content, dict)
        else content
        for entity, content in world.items()
    }


@MANY
@given(text=conditions(depth=3), world=worlds(), data=st.data())
def test_removing_facts_never_makes_an_allow_condition_true(text: str, world: dict[str, Any], data: Any) -> None:
    """For a condition that is legal in an allow: not TRUE stays not TRUE, whatever is removed (INVARIANT I2)."""
    expression = checked(text)
    assume(not polarity_errors(expression, "allow"))
    removed = data.draw(st.lists(st.sampled_from(removals(world)), min_size=1, max_size=4))
    before, after = evaluate(expression, **world), evaluate(expression, **without(world, removed))
    event(f"{type(before).__name__} to {type(after).__name__}")
    assert after is not True or before is True


@MANY
@given(text=conditions(depth=3), world=worlds(), data=st.data())
def test_removing_facts_never_makes_a_deny_condition_false(text: str, world: dict[str, Any], data: Any) -> None:
    """For a condition that is legal in a deny or require: TRUE or error stays TRUE or error (INVARIANT I2)."""
    expression = checked(text)
    assume(not polarity_errors(expression, "deny"))
    removed = data.draw(st.lists(st.sampled_from(removals(world)), min_size=1, max_size=4))
    before, after = evaluate(expression, **world), evaluate(expression, **without(world, removed))
    assert after is not False or before is False


CASES: list[tuple[str, bool, bool]] = [
    ("has(resource.gpus)", True, False),
    ("!has(resource.gpus)", False, True),
    ("!!has(resource.gpus)", True, False),
    ("has(resource.gpus) && resource.gpus > 1", True, False),
    ("!has(resource.gpus) || resource.gpus > 1", False, True),
    ("!(has(resource.gpus) && resource.flag)", False, True),
    ("has(resource.gpus) ? resource.flag : false", False, False),
    ("resource.flag ? has(resource.gpus) : false", True, False),
    ("resource.flag ? !has(resource.gpus) : true", False, True),
    ("has(resource.gpus) == true", False, False),
    ("has(resource.gpus) != resource.flag", False, False),
    ("resource.checkpoints.all(c, has(c.producer))", True, False),
    ("!resource.checkpoints.exists(c, has(c.producer))", False, True),
    ("resource.checkpoints.exists_one(c, has(c.producer))", False, False),
    ("resource.checkpoints.filter(c, has(c.producer)).size() > 0", False, False),
    ("[has(resource.gpus)][0]", False, False),
    ("true in [has(resource.gpus)]", False, False),
    ("string(has(resource.gpus)) == 'true'", False, False),
    ("resource.gpus > 1", True, True),
]


@pytest.mark.parametrize(("text", "in_allow", "in_deny"), CASES, ids=[case[0] for case in CASES])
def test_has_is_only_where_absence_takes_access_away(text: str, in_allow: bool, in_deny: bool) -> None:
    """Positive in an allow, negative in deny and require, neither where the value itself counts."""
    expression = CHECKER.check(text, resource_type="job")
    effects: list[tuple[Effect, bool]] = [("allow", in_allow), ("deny", in_deny), ("require", in_deny)]
    for effect, legal in effects:
        assert (polarity_errors(expression, effect) == []) is legal, effect


def test_the_offset_of_a_polarity_error_is_that_of_has() -> None:
    """The author sees where the `has()` stands, in code points, and what would happen."""
    expression = CHECKER.check('resource.team == "é" && !has(resource.gpus)', resource_type="job")
    assert polarity_errors(expression, "allow") == [
        (28, "`has(resource.gpus)` may not be negated or compared in an allow: an absent fact would grant access")
    ]
