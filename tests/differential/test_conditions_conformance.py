"""The public conformance data of CEL against all three evaluators: the CEL library, the exact one, compiled code."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cel_expr_python import cel

from policyguard.conditions.ast import filled, shape
from policyguard.conditions.canonical import canonical_form, from_canonical
from policyguard.conditions.check import Checker
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.decoding import decode
from policyguard.conditions.exact import EvalError, value_of
from policyguard.conditions.functions import same
from policyguard.conditions.problems import ConditionErrors, ProfileError
from policyguard.conditions.times import parse_span, parse_timestamp
from policyguard.model.expression import Expression
from policyguard.model.policy import EntityType, Schema

DATA = Path(__file__).parents[1] / "data" / "cel" / "conformance.json"
TYPES = {
    "int": cel.Type.INT,
    "bool": cel.Type.BOOL,
    "string": cel.Type.STRING,
    "uint": cel.Type.UINT,
    "double": cel.Type.DOUBLE,
    "bytes": cel.Type.BYTES,
    "timestamp": cel.Type.TIMESTAMP,
    "duration": cel.Type.DURATION,
}
ERROR = object()

KNOWN_LIBRARY_MISSES: frozenset[str] = frozenset()
"""Where cel-expr-python itself misses what the specification's test says."""

Case = dict[str, Any]


@cache
def cases() -> tuple[Case, ...]:
    return tuple(json.loads(DATA.read_text()))


def cel_type(name: str) -> Any:
    if name.startswith("list("):
        return cel.Type.List(cel_type(name[5:-1]))
    if name.startswith("map("):
        key, _, value = name[4:-1].partition(", ")
        return cel.Type.Map(cel_type(key), cel_type(value))
    return TYPES.get(name, cel.Type.DYN)


def plain(value: dict[str, Any]) -> Any:
    """The value a test gives, as our evaluators spell it."""
    kind, content = next(iter(value.items()))
    if kind == "int64Value":
        return int(content)
    if kind in ("boolValue", "stringValue"):
        return content
    if kind == "listValue":
        return tuple(plain(each) for each in content.get("values", []))
    if kind == "mapValue":
        return {plain(each["key"]): plain(each["value"]) for each in content.get("entries", [])}
    if kind == "objectValue":
        parse = parse_timestamp if content["@type"].endswith("Timestamp") else parse_span
        return parse(content["value"])
    raise AssertionError(f"a value of the profile cannot be {kind}")


def from_library(value: Any) -> Any:
    """The library's plain value as our evaluators spell it, to the microseconds that it has."""
    if isinstance(value, datetime):
        return (value - datetime.fromtimestamp(0, value.tzinfo)) // timedelta(microseconds=1) * 1000
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1) * 1000
    if isinstance(value, list):
        return tuple(from_library(each) for each in value)
    if isinstance(value, dict):
        return {from_library(key): from_library(each) for key, each in value.items()}
    return value


def decoded(case: Case) -> tuple[Any, Expression]:
    types = case.get("types", {})
    environment = cel.NewEnv(
        variables={name: cel_type(kind) for name, kind in types.items()}, container=case.get("container", "")
    )
    compiled = environment.compile(case["expr"])
    return compiled, decode(compiled.serialize(), frozenset(types))


def by_library(compiled: Any, values: dict[str, Any]) -> Any:
    try:
        found = compiled.eval(data={name: as_list(value) for name, value in values.items()})
    except (RuntimeError, ValueError):
        return ERROR
    if found.type() == cel.Type.ERROR:
        return ERROR
    return from_library(found.plain_value())


def as_list(value: Any) -> Any:
    return [as_list(each) for each in value] if isinstance(value, tuple) else value


def by_exact(expression: Expression, values: dict[str, Any]) -> Any:
    found = value_of(expression, values)
    return ERROR if isinstance(found, EvalError) else found


def by_code(expression: Expression, values: dict[str, Any]) -> Any:
    """The compiled code's result; where it raises, the exact evaluator's, as the engine does it."""
    pattern, constants = shape(expression)
    run: Any = compile_shape(pattern, tuple(values))
    try:
        return run(*values.values(), constants)
    except Exception:  # noqa: BLE001 - any exception means "ask the exact evaluator"
        return by_exact(expression, values)


def agrees(found: Any, expected: Any) -> bool:
    if found is ERROR or expected is ERROR:
        return found is expected
    return same(found, expected)


def test_every_conformance_test_inside_the_profile_passes_in_all_three_evaluators() -> None:
    """Every public CEL test whose expression is in the profile gives the specified result in all three."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for case in cases():
        outcome = judged(case, wrong)
        counts[outcome] += 1
    print(dict(counts))
    assert not wrong, "\n".join(wrong)
    assert sum(counts.values()) == 1179
    assert counts["inside"] == 502


def judged(case: Case, wrong: list[str]) -> str:
    if case.get("unchecked"):
        return "unchecked"
    try:
        compiled, expression = decoded(case)
    except RuntimeError:
        return "refused by the checker"
    except ProfileError as problem:
        return f"outside: {problem.name}"
    values = {name: plain(value) for name, value in case.get("values", {}).items()}
    expected = ERROR if case.get("error") else plain(case["value"])
    found = {"exact": by_exact(expression, values), "code": by_code(expression, values)}
    if case["name"] not in KNOWN_LIBRARY_MISSES:
        found["library"] = by_library(compiled, values)
    for name, value in found.items():
        if not agrees(value, expected):
            wrong.append(f"{case['name']} `{case['expr']}` by {name}: {value!r}, expected {expected!r}")
    assert from_canonical(json.loads(json.dumps(canonical_form(expression)))) == expression
    assert filled(*shape(expression)) == expression
    return "inside"


def test_every_conformance_expression_is_accepted_or_refused_in_our_words() -> None:
    """No text of the suite gets anything but typed nodes or errors in the house's wording out of the checker."""
    checker = Checker(Schema(subjects={}, resources={"job": EntityType(name="job")}))
    foreign = ("<input>", "INVALID", "struct", "undeclared", "protobuf", "overload", "policyguard.", "container")
    outcomes: Counter[str] = Counter()
    for case in cases():
        try:
            checker.check(case["expr"], resource_type="job")
            outcomes["accepted"] += 1
        except ConditionErrors as problem:
            for error in problem.errors:
                outcomes[error.code] += 1
                assert not any(word in error.message for word in foreign), (case["expr"], error.message)
                assert 0 <= error.offset <= len(case["expr"])
    print(dict(outcomes))
    assert outcomes["accepted"] > 200
