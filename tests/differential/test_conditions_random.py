"""Random typed conditions in random worlds: compiled code, the exact evaluator and the CEL library agree."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from cel_expr_python import cel
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from policyguard.conditions.ast import shape
from policyguard.conditions.check import Checker
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.exact import EvalError, evaluate
from policyguard.conditions.functions import glob
from policyguard.conditions.problems import ConditionErrors
from policyguard.conditions.rendering import render
from policyguard.model.expression import Expression, walk
from tests.properties.strategies_conditions import SCHEMA, conditions, worlds

CHECKER = Checker(SCHEMA)
ENTITY = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
LIBRARY = cel.NewEnv(
    variables={
        "subject": ENTITY,
        "resource": ENTITY,
        "context": ENTITY,
        "action": cel.Type.STRING,
        "now": cel.Type.TIMESTAMP,
    },
    functions=[
        cel.FunctionDecl(
            "glob",
            [cel.Overload("glob_string_string", cel.Type.BOOL, [cel.Type.STRING, cel.Type.STRING], impl=glob)],
        )
    ],
)
EXAMPLES = int(os.environ.get("POLICYGUARD_EXAMPLES", "150"))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def checked(text: str) -> Expression:
    """The expression, or the example is set aside because a constant in it can only fail."""
    try:
        return CHECKER.check(text, resource_type="job")
    except ConditionErrors as problem:
        if {error.code for error in problem.errors} <= {"PG314", "PG405"}:
            assume(False)
        raise


def for_library(value: Any, name: str = "") -> Any:
    if name == "now":
        return EPOCH + timedelta(microseconds=value // 1000)
    if name == "started":
        return value // 10**9
    if name == "limit":
        return f"{value // 10**9}s"
    if isinstance(value, dict):
        return {key: for_library(each, key) for key, each in value.items()}
    if isinstance(value, tuple):
        return [for_library(each) for each in value]
    return value


def by_library(text: str, world: dict[str, Any]) -> bool | None:
    """True, False, or None for an error."""
    # The library takes no time inside a map, so it gets whole seconds and converts them.
    spelled = text.replace("resource.limit", "duration(resource.limit)")
    compiled = LIBRARY.compile(spelled.replace("resource.started", "timestamp(resource.started)"), disable_check=True)
    found = compiled.eval(data={name: for_library(value, name) for name, value in world.items()})
    if found.type() == cel.Type.ERROR:
        return None
    value = found.plain_value()
    assert isinstance(value, bool)
    return value


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=conditions(), world=worlds())
def test_code_exact_and_library_agree_on_every_condition(text: str, world: dict[str, Any]) -> None:
    """Where compiled code answers, it is the exact answer; the exact answer is the CEL library's, errors included."""
    expression = checked(text)
    exact = evaluate(expression, **world)
    pattern, constants = shape(expression)
    try:
        run: Any = compile_shape(pattern)
        fast: bool | None = run(*world.values(), constants)
    except Exception:  # noqa: BLE001 - the code may raise anything where it cannot tell
        fast = None
    event("code answered" if fast is not None else "exact path")
    event(f"outcome {'error' if isinstance(exact, EvalError) else exact}")
    assert fast is None or fast is exact
    assert (None if isinstance(exact, EvalError) else exact) is by_library(text, world)


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=conditions())
def test_rendered_text_checks_to_the_same_expression(text: str) -> None:
    """`check(render(e)) == e`."""
    expression = checked(text)
    assert CHECKER.check(render(expression), resource_type="job") == expression


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=conditions(), number=st.integers(0, 2**53 - 1), blanks=st.sampled_from(["", "  ", "\n"]))
def test_a_known_shape_gives_what_the_checker_gives(text: str, number: int, blanks: str) -> None:
    """With other integers and other blanks, the copy of a checked tree equals the tree the checker would make."""
    checker = Checker(SCHEMA)
    other = blanks + re.sub(r'(?<![\w."/:+-])[0-9]+(?![\w"])', str(number), text).replace(
        " && ", f"{blanks} &&{blanks}"
    )
    expected = result_of(Checker(SCHEMA), other)
    result_of(checker, text)
    assert result_of(checker, other) == expected


def result_of(checker: Checker, text: str) -> object:
    """The nodes with their offsets, or the errors."""
    try:
        return [(node.offset, node) for node in walk(checker.check(text, resource_type="job"))]
    except ConditionErrors as problem:
        return problem.errors
