"""The exact evaluator, rule by rule: what absorbs an error, what passes it on, and what a value of another type is."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.conditions.check import Checker
from policyguard.conditions.exact import EvalError, evaluate, value_of
from policyguard.model.expression import Call, Constant, Expression, Quantifier, Select, Variable
from tests.properties.strategies_conditions import NOW, SCHEMA

CHECKER = Checker(SCHEMA)
RESOURCE: dict[str, Any] = {
    "gpus": 8,
    "flag": True,
    "team": "vision",
    "tags": ("a", "b"),
    "nums": (1, 2, 3),
    "labels": {"a": "x", "b": "y"},
    "code": {"dirty": False},
    "checkpoints": ({"format": "pickle"}, {"format": "other", "size": 3}),
}


def outcome(text: str, **changes: Any) -> bool | str:
    """True, False, or the words of an error."""
    expression = CHECKER.check(text, resource_type="job")
    value = evaluate(expression, {}, {**RESOURCE, **changes}, {}, "job:submit", NOW)
    return value.message if isinstance(value, EvalError) else value


ABSENT = "`resource.path` is absent"
OUTCOMES = {
    "false absorbs an error on its left": ("resource.path == 'x' && resource.gpus == 4", False),
    "false absorbs an error on its right": ("resource.gpus == 4 && resource.path == 'x'", False),
    "true absorbs an error of `||`": ("resource.path == 'x' || resource.gpus == 8", True),
    "true does not absorb an error of `&&`": ("resource.gpus == 8 && resource.path == 'x'", ABSENT),
    "false does not absorb an error of `||`": ("resource.path == 'x' || resource.gpus == 4", ABSENT),
    "of two errors the first is said": ("resource.path == 'x' && resource.nodes == 1", ABSENT),
    "of two errors the first is said by `||`": ("resource.path == 'x' || resource.nodes == 1", ABSENT),
    "the opposite of an error": ("!(resource.path == 'x')", ABSENT),
    "a choice by an error": ("(resource.path == 'x') ? true : true", ABSENT),
    "a choice that leaves the error out": ("resource.flag ? true : resource.path == 'x'", True),
    "a choice of the error": ("resource.flag ? resource.path == 'x' : true", ABSENT),
    "a list that holds an error": ("resource.path in ['x', resource.path]", ABSENT),
    "a list with an error at its end": ("size(['x', resource.path]) == 2", ABSENT),
    "a map with an error as a value": ("size({'a': resource.path}) == 1", ABSENT),
    "a map with an error as a key": ("size({resource.path: 1}) == 1", ABSENT),
    "a map with a key twice": ("size({resource.team: 1, 'vision': 2}) == 2", "duplicate key `vision` in a map"),
    "a map with two keys": ("size({resource.team: 1, 'llm': 2}) == 2", True),
    "a field of an absent record": ("resource.checkpoints[0].producer == 'x'", "`resource.checkpoints[0].producer` is"),
    "a field that is not there": ("has(resource.code.commit)", False),
    "a field that is there": ("has(resource.code.dirty)", True),
    "an index beyond the list": ("resource.nums[3] == 1", "index"),
    "all absorb an error by a false one": ("resource.checkpoints.all(c, c.size == 4)", False),
    "all of which one is an error": ("resource.checkpoints.all(c, c.size == 3)", "`c.size` is absent"),
    "one absorbs an error": ("resource.checkpoints.exists(c, c.size == 3)", True),
    "none but an error": ("resource.checkpoints.exists(c, c.size == 4)", "`c.size` is absent"),
    "exactly one absorbs nothing": ("resource.checkpoints.exists_one(c, c.size == 3)", "`c.size` is absent"),
    "exactly one": ("resource.tags.exists_one(t, t == 'a')", True),
    "not exactly one but two": ("resource.tags.exists_one(t, t != 'c')", False),
    "not exactly one but none": ("resource.tags.exists_one(t, t == 'c')", False),
    "a filter absorbs nothing": ("size(resource.checkpoints.filter(c, c.size == 3)) == 1", "`c.size` is absent"),
    "a filter selects": ("resource.nums.filter(n, n > 1) == [2, 3]", True),
    "a map absorbs nothing": ("resource.checkpoints.map(c, c.size) == [3]", "`c.size` is absent"),
    "a map maps": ("resource.nums.map(n, n + 1) == [2, 3, 4]", True),
    "a map of some": ("resource.nums.map(n, n > 1, n * 2) == [4, 6]", True),
    "a map of some absorbs nothing": ("size(resource.checkpoints.map(c, c.size == 3, 1)) == 1", "`c.size` is absent"),
    "a macro over an absent list": ("[resource.path].all(p, true)", ABSENT),
    "a macro over a map": ("resource.labels.all(k, k in resource.tags)", True),
    "in a list that is absent, in a macro": ("resource.tags.all(t, t in [resource.path])", ABSENT),
    "an error in a list that is absent, in a macro": ("resource.tags.all(t, resource.path in ['x'])", ABSENT),
    "in a list of the request, in a macro": ("resource.nums.all(n, n in resource.nums)", True),
    "not in a list of the policy, in a macro": ("resource.nums.all(n, n in [1, 2])", False),
}


@pytest.mark.parametrize(("text", "expected"), OUTCOMES.values(), ids=OUTCOMES)
def test_a_condition_has_the_outcome_of_the_specification(text: str, expected: bool | str) -> None:
    """TRUE, FALSE or an error; the twin of each absorbed error is one that is not."""
    value = outcome(text)
    assert value.startswith(expected) if isinstance(value, str) and isinstance(expected, str) else value is expected


MISTYPED = {
    "text for a number": ("resource.gpus == 8", {"gpus": "8"}, "`resource.gpus` is text, expected an integer"),
    "a bool for a number": ("resource.gpus == 1", {"gpus": True}, "`resource.gpus` is a bool, expected an integer"),
    "a number for a bool": ("resource.flag", {"flag": 1}, "`resource.flag` is an integer, expected a bool"),
    "a number for text": ("resource.team == 'a'", {"team": 1}, "`resource.team` is an integer, expected text"),
    "text for a list": ("'a' in resource.tags", {"tags": "abc"}, "`resource.tags` is text, expected a list"),
    "a list for a map": ("'a' in resource.labels", {"labels": ("a",)}, "`resource.labels` is a list, expected a map"),
    "text for a record": ("resource.code.dirty", {"code": "no"}, "`resource.code` is text, expected a record"),
    "text for a record that is asked for a field": ("has(resource.code.dirty)", {"code": "no"}, "`resource.code` is"),
    "text for a time": ("resource.started < now", {"started": "now"}, "`resource.started` is text, expected a timest"),
    "text for a duration": ("resource.limit < duration('1s')", {"limit": "1s"}, "`resource.limit` is text, expected a"),
    "text in a list of numbers": ("resource.nums.all(n, n > 0)", {"nums": ("1",)}, "`n` is text, expected an integer"),
}


@pytest.mark.parametrize(("text", "changes", "words"), MISTYPED.values(), ids=MISTYPED)
def test_a_value_of_another_type_is_an_error_and_never_a_match(text: str, changes: dict[str, Any], words: str) -> None:
    """INVARIANT I2: whatever put it there, and also where Python would compute with it."""
    value = outcome(text, **changes)
    assert isinstance(value, str)
    assert value.startswith(words)
    assert outcome(f"!({text})", **changes) == value


TRUE = Constant(True, "bool")
X = Variable("x", "int")
UNCHECKED: dict[str, tuple[Expression, str]] = {
    "a number": (Constant(1, "int"), "the condition is an integer, expected a bool"),
    "a name that nothing has": (Variable("ghost", "bool"), "unknown name `ghost`"),
    "a number and a bool": (Call("logical_and", (Constant(1, "int"), TRUE), "bool"), "`1` is an integer, expected a b"),
    "the opposite of a number": (Call("logical_not", (Constant(0, "int"),), "bool"), "`0` is an integer, expected a b"),
    "a choice by a number": (Call("conditional", (Constant(1, "int"), TRUE, TRUE), "bool"), "`1` is an integer, exp"),
    "a field of a number": (Select(Constant(1, "int"), "x", "bool"), "`1` is an integer, expected a map"),
    "a macro over a number": (Quantifier("all", "x", Constant(1, "int"), TRUE, "bool"), "`1` is an integer, expected"),
    "a macro over text": (Quantifier("all", "x", Constant("ab", "string"), TRUE, "bool"), '`"ab"` is text, expected a'),
    "a sum of a number and text": (
        Call("equals", (Call("add_int64", (Constant(1, "int"), Constant("a", "string")), "int"), X), "bool"),
        '`1 + "a"` cannot be computed',
    ),
}


@pytest.mark.parametrize(("expression", "words"), UNCHECKED.values(), ids=UNCHECKED)
def test_an_expression_that_no_checker_has_seen_is_an_error_and_no_exception(
    expression: Expression, words: str
) -> None:
    """A decoded snapshot is checked when it loads; even one that were not could only take access away."""
    value = evaluate(expression, {}, {}, {}, "job:submit", NOW)
    assert isinstance(value, EvalError)
    assert value.message.startswith(words)


def test_a_value_is_what_it_is_and_not_a_condition() -> None:
    """`value_of` gives values of any type, from the names it is given and no others."""
    assert value_of(X, {"x": 3}) == 3
    assert isinstance(value_of(X, {}), EvalError)
