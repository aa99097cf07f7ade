"""Conditions that differ only in literals are checked once: the second one is what checking it would give."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.conditions import check as checking
from policyguard.conditions.check import Checker
from policyguard.conditions.lexing import tokens
from policyguard.conditions.problems import ConditionErrors
from policyguard.conditions.templates import literal, template_of
from policyguard.model.expression import Constant, Expression
from tests.properties.strategies_conditions import SCHEMA


def checked(checker: Checker, text: str) -> Expression | tuple[str, ...]:
    """The expression, or the messages of its mistakes."""
    try:
        return checker.check(text, resource_type="job")
    except ConditionErrors as problem:
        return tuple(error.message for error in problem.errors)


ALIKE = [
    ("resource.gpus > 1", "resource.gpus > 9007199254740991", True),
    ("resource.gpus > 1", "resource.gpus > 9007199254740992", False),
    ("resource.gpus > 1", "resource.gpus > 99999999999999999", False),
    ("resource.gpus > 1", "resource.gpus>22  // many", True),
    ("resource.gpus > -1", "resource.gpus > -22", True),
    ("resource.gpus > -1", "resource.gpus > -9007199254740992", False),
    ("resource.gpus > -1", "resource.gpus > -99999999999999999", False),
    ("resource.gpus - 1 > 0", "resource.gpus - 2 > 3", True),
    ("resource.team == 'a'", 'resource.team == "some team"', True),
    ("resource.team in ['a', 'b']", "resource.team in ['', 'c']", True),
    ("resource.nums.exists(n, n == 1)", "resource.nums.exists(n, n == 7)", True),
    ("resource.nums.map(n, n > 1, n * 2) == [4]", "resource.nums.map(n, n > 3, n * 4) == [5]", True),
    ("has(resource.code.dirty) && {'a': 1}['a'] == 1", "has(resource.code.dirty) && {'b': 2}['b'] == 2", True),
    ("resource.path.matches('a')", "resource.path.matches('(')", True),
    ("now < timestamp('2026-03-01T09:00:00Z')", "now < timestamp('2027-03-01T09:00:00Z')", True),
    ("1 + 1 == resource.gpus", "2 + 3 == resource.gpus", True),
    ("resource.gpus / 2 > 0", "resource.gpus / 0 > 0", True),
]


@pytest.mark.parametrize(("first", "second", "is_reused"), ALIKE)
def test_a_condition_of_a_known_shape_is_what_the_checker_makes_of_it(
    first: str, second: str, *, is_reused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, offsets and mistakes; only integers that the checker must see are checked again."""
    fresh = checked(Checker(SCHEMA), second)
    checker = Checker(SCHEMA)
    assert checked(checker, first) == checked(Checker(SCHEMA), first)
    compiled: list[str] = []
    compile_one = checking._compiled

    def counted(text: str, scope: Any) -> Expression:
        compiled.append(text)
        return compile_one(text, scope)

    monkeypatch.setattr(checking, "_compiled", counted)
    assert checked(checker, second) == fresh
    assert compiled == ([] if is_reused else [second])


def test_a_literal_is_an_integer_with_its_sign_or_a_text() -> None:
    """Sixteen digits at most; a sign alone, a name or an operator is none."""
    split = tokens("-1 - a == 'x y' + 1234567890123456 - 12345678901234567 -")
    assert split is not None
    assert [literal(split, index) for index in range(len(split.texts))] == [
        *(-1, 1, None, None, None, "x y", None, 1234567890123456),
        *(None, None, None),
    ]


def test_an_expression_that_its_tokens_do_not_give_makes_no_template() -> None:
    """A literal of another value or place, a node that no token begins."""
    split = tokens("7")
    assert split is not None
    assert template_of(Constant(7, "int", 0), split) is not None
    for other in (Constant(8, "int", 0), Constant(7, "int", 1), Constant("7", "string", 0), Constant(True, "bool", 0)):
        assert template_of(other, split) is None
