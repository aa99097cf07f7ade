"""What a condition costs is counted identically by compiled code and the exact evaluator, and bounded."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.conditions.ast import shape
from policyguard.conditions.check import Checker
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.cost import MAX_COST, SMALL, Budget, Exhausted, constant_list, weight
from policyguard.conditions.exact import EvalError, evaluate, trace
from policyguard.model.expression import Expression
from tests.differential.generated_conditions import Conditions
from tests.differential.test_conditions_whole_profile import checked
from tests.properties.strategies_conditions import NOW, SCHEMA

CHECKER = Checker(SCHEMA)
TOO_MUCH = EvalError(f"the condition costs more than {MAX_COST} elements visited")


def check(text: str) -> Expression:
    return CHECKER.check(text, resource_type="job")


def compiled(expression: Expression, max_cost: int = MAX_COST) -> Any:
    """Compile a condition, and take its constants with it."""
    form, constants = shape(expression)
    held = tuple(constant_list(value) if isinstance(value, tuple) else value for value in constants)
    run: Any = compile_shape(form, max_cost=max_cost)
    return lambda subject, resource, context, action, now: run(subject, resource, context, action, now, held)


def both(text: str, resource: dict[str, Any], max_cost: int = MAX_COST) -> tuple[object, object]:
    """Evaluate by compiled code (its exception's type where it declines) and exactly (the message of an error)."""
    expression = check(text)
    world: tuple[Any, ...] = ({}, resource, {}, "job:submit", NOW)
    try:
        fast: object = compiled(expression, max_cost)(*world)
    except Exception as problem:  # noqa: BLE001 - whatever the code raises means that it declines
        fast = type(problem)
    exact = evaluate(expression, *world, max_cost=max_cost)
    return fast, exact.message if isinstance(exact, EvalError) else exact


NUMBERS = tuple(range(50_000))
DECLINED = (Exhausted, TOO_MUCH.message)


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("resource.nums.all(a, resource.nums.all(b, a + b >= 0))", {"nums": NUMBERS[:2000]}),
        ("resource.nums.all(a, a in resource.nums.map(n, n))", {"nums": NUMBERS[:2000]}),
        ("resource.nums.exists(a, resource.nums == resource.nums.filter(n, n > a))", {"nums": NUMBERS[:2000]}),
        ("resource.tags.exists(t, resource.path.contains(t + t))", {"tags": ("ab",) * 20_000, "path": "a" * 100_000}),
        ("size(resource.tags.map(t, resource.path + t)) == 0", {"tags": ("ab",) * 20_000, "path": "a" * 100_000}),
        ("resource.tags.exists(t, resource.path.matches(t))", {"tags": ("b+",) * 20_000, "path": "a" * 100_000}),
        ("resource.tags.exists(t, glob(resource.path, t))", {"tags": ("*b",) * 20_000, "path": "a" * 100_000}),
        ("resource.tags.all(t, resource.nums + [1] != [2])", {"tags": ("b",) * 2_000, "nums": NUMBERS}),
        ("resource.nums.all(n, true) && resource.nums.all(n, true) && resource.nums.all(n, true)", {"nums": NUMBERS}),
        ("resource.nums.all(n, n >= 0)", {"nums": tuple(range(MAX_COST + 1))}),
    ],
    ids=[
        "a macro in a macro",
        "membership in a list that is made each time",
        "comparing long lists",
        "searching a long text",
        "joining long texts",
        "a regular expression on a long text",
        "a pattern on a long text",
        "joining long lists",
        "one macro after the other",
        "one list beyond the budget",
    ],
)
def test_a_request_cannot_buy_more_work_than_the_budget(text: str, resource: dict[str, Any]) -> None:
    """Each way to make work grow with the square of a request ends in an error, in both evaluators."""
    assert both(text, resource) == DECLINED


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("resource.nums.all(n, n in resource.nums)", {"nums": NUMBERS}),
        ("resource.nums.all(n, n >= 0)", {"nums": tuple(range(MAX_COST))}),
        ("resource.nums.all(a, resource.nums.all(b, a + b >= 0))", {"nums": NUMBERS[:300]}),
        ("resource.tags.all(t, resource.path.contains(t))", {"tags": ("a",) * 20_000, "path": "a" * 60}),
    ],
    ids=["membership in a long list", "one list as long as the budget", "short lists", "short texts"],
)
def test_work_within_the_budget_is_done(text: str, resource: dict[str, Any]) -> None:
    """The twins: a long list once, membership in it by a set, and nested macros over short lists."""
    assert both(text, resource) == (True, True)


@pytest.mark.parametrize("seed", range(20))
def test_both_evaluators_exhaust_a_budget_on_the_same_inputs(seed: int) -> None:
    """Over random conditions and tiny budgets: where compiled code answers, the exact evaluator gives that answer."""
    source = Conditions(seed)
    exhausted = 0
    for _ in range(40):
        expression = checked(source.condition())
        if expression is None:
            continue
        for max_cost in (0, 1, 3, 10, 40):
            run = compiled(expression, max_cost)
            for world in (source.world() for _ in range(6)):
                exact = evaluate(expression, **world, max_cost=max_cost)
                try:
                    fast = run(*world.values())
                except Exhausted:
                    # Nothing before this point failed, so the exact evaluator came here, too.
                    exhausted += 1
                    assert isinstance(exact, EvalError)
                    assert "elements visited" in exact.message
                except Exception:  # noqa: BLE001 - an error that the exact evaluator may absorb
                    continue
                else:
                    assert fast is exact
    assert exhausted > 0


def test_exhaustion_is_absorbed_by_nothing() -> None:
    """`true ||` before the work avoids it; `|| true` after it does not make the error a grant."""
    resource = {"nums": NUMBERS[:2000]}
    work = "resource.nums.all(a, resource.nums.all(b, a + b >= 0))"
    assert both(f"true || {work}", resource) == (True, True)
    assert both(f"{work} || true", resource) == DECLINED
    assert both(f"!({work}) && false", resource) == DECLINED


def test_each_atom_of_an_explanation_has_a_budget_of_its_own() -> None:
    """One atom that costs too much does not make the others errors."""
    expression = check("resource.nums.all(a, resource.nums.all(b, a + b >= 0)) && resource.nums.all(n, n >= 0)")
    first, second = trace(expression, {}, {"nums": NUMBERS[:2000]}, {}, "job:submit", NOW)
    assert isinstance(first.outcome, EvalError)
    assert second.outcome is True


def test_a_long_list_of_constants_costs_nothing_and_is_searched_at_once() -> None:
    """20,000 elements against 5,000 names that the policy lists: no units beyond the elements, and the same answer."""
    names = ", ".join(f'"n{number}"' for number in range(1000))
    tags = tuple(f"n{number % 1000}" for number in range(20_000))
    text = f"resource.tags.all(t, t in [{names}])"
    assert both(text, {"tags": tags}) == (True, True)
    assert both(text, {"tags": (*tags, "other")}) == (False, False)
    assert both(text, {"tags": tags}, max_cost=len(tags)) == (True, True)
    assert both(text, {"tags": tags}, max_cost=len(tags) - 1)[0] is Exhausted


NAMES = ", ".join(f"'n{number}'" for number in range(SMALL + 1))


@pytest.mark.parametrize(
    ("text", "resource", "cost"),
    [
        ("resource.nums.all(n, n in resource.nums)", {"nums": NUMBERS[: SMALL + 1]}, 2 * (SMALL + 1)),
        ("resource.nums.all(n, n in resource.nums)", {"nums": NUMBERS[:SMALL]}, SMALL),
        (f"resource.tags.all(t, t in [{NAMES}])", {"tags": ("n1", "n2")}, 2),
        ("resource.tags.all(t, resource.path.contains(t))", {"tags": ("a",), "path": "a" * 127}, 3),
        ("resource.tags.all(t, resource.tags == ['a', 'b'])", {"tags": ("a", "b")}, 6),
        ("resource.nums.all(n, n == n && resource.flag == true)", {"nums": (1, 2), "flag": True}, 2),
        ("resource.tags.all(t, t == resource.path)", {"tags": ("a" * 128,), "path": "a" * 128}, 3),
        ("resource.nums.all(n, (n > 0) in [true, false])", {"nums": (1, 2)}, 6),
    ],
    ids=["a long list", "a short list", "a list of the policy", "a text", "two lists", "scalars", "texts", "bools"],
)
def test_a_condition_costs_what_it_visits_to_the_unit(text: str, resource: dict[str, Any], cost: int) -> None:
    """The last unit is still there to be spent, and one less is too few, in both evaluators."""
    assert both(text, resource, cost) == (True, True)
    fast, exact = both(text, resource, cost - 1)
    assert (fast, exact) == (Exhausted, f"the condition costs more than {cost - 1} elements visited")


def test_only_a_short_list_is_searched_from_its_beginning() -> None:
    """A long one is made a set once, whatever is asked for; so no list of a request makes a macro quadratic."""

    class Searched(tuple[int, ...]):
        times = 0

        def __contains__(self, value: object) -> bool:
            Searched.times += 1
            return super().__contains__(value)

    budget, short, long = Budget(), Searched(range(SMALL)), Searched(range(SMALL + 1))
    assert [budget.is_listed(value, long) for value in (SMALL, SMALL + 1)] == [True, False]
    assert Searched.times == 0
    assert [budget.is_listed(value, short) for value in (0, SMALL)] == [True, False]
    assert Searched.times == 2


def test_a_constant_list_answers_as_a_tuple() -> None:
    """A long one differs from a tuple in nothing but the time it takes."""
    values = tuple(range(SMALL + 1))
    assert constant_list(values) == values
    assert [value in constant_list(values) for value in (0, SMALL, SMALL + 1, -1)] == [True, True, False, False]
    assert type(constant_list(values[:SMALL])) is tuple


def test_weight_counts_nested_elements_and_text_by_its_length() -> None:
    """A list of a list is as heavy as what it holds."""
    assert [weight(value) for value in ((), (1, 2), ((1, 2), (3,)), {"a": (1,)}, "x" * 640, 7)] == [0, 2, 5, 2, 10, 0]


BIG = {"tags": ("a" * 20,) * 20_000, "path": "b" * 300_000}


def doubled(name: str) -> str:
    """Write an expression whose list has 2^24 elements, nested ones included, and is built in 24 steps."""
    return "[[resource.gpus]]" + "".join(f".map({name}{level}, [{name}{level}, {name}{level}])" for level in range(24))


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("resource.tags.all(t, resource.path == resource.path)", BIG),
        ("resource.tags.exists(t, resource.path != resource.path)", BIG),
        ("resource.tags.all(t, resource.path.startsWith(resource.path))", BIG),
        ("resource.tags.all(t, resource.path.endsWith(resource.path))", BIG),
        ("resource.tags.all(t, resource.path >= resource.path)", BIG),
        (f"{doubled('x')} == {doubled('y')}", {"gpus": 1}),
        (f"{doubled('x')} in [{doubled('y')}]", {"gpus": 1}),
    ],
)
def test_text_and_built_lists_that_are_compared_too_often_exhaust_the_budget(
    text: str, resource: dict[str, Any]
) -> None:
    """A request of one megabyte made ten such comparisons take twenty seconds, and was allowed."""
    assert both(text, resource) == DECLINED


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ('resource.tags.all(t, t == "aaaaaaaaaaaaaaaaaaaa")', BIG),
        ("resource.tags.all(t, resource.path == resource.path)", {"tags": ("a",) * 20, "path": "b" * 300_000}),
        ("resource.path == resource.path && resource.path.startsWith(resource.path)", BIG),
        ("resource.tags == resource.tags", BIG),
        ("[[resource.gpus]].map(a, [a, a]) == [[resource.gpus]].map(b, [b, b])", {"gpus": 1}),
    ],
)
def test_ordinary_comparisons_are_within_the_budget(text: str, resource: dict[str, Any]) -> None:
    assert both(text, resource) == (True, True)


def test_a_search_by_a_pattern_is_bounded_by_pattern_times_text() -> None:
    """A hundred thousand characters and a program of 3,505 instructions took ten seconds."""
    slow = 'resource.path.matches("(b|bb|bbb){500}c")'
    fast, exact = both(slow, {"path": "b" * 100_000})
    assert isinstance(fast, type)
    assert "characters, expected at most" in str(exact)
    assert both(slow, {"path": "b" * 1_000}) == (False, False)
    assert both('resource.path.matches("^[0-9a-f]{40}$")', {"path": "b" * 50_000}) == (False, False)
