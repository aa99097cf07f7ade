"""Finds mistakes in literals: constants that always fail, and texts outside an attribute's enum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from policyguard.conditions import times
from policyguard.conditions.addresses import parse_prefix
from policyguard.conditions.exact import EvalError, value_of
from policyguard.conditions.functions import Failure, matches, under
from policyguard.conditions.problems import ConditionError
from policyguard.conditions.rendering import render
from policyguard.model.expression import Call, Constant, Expression, ListOf, Select, Variable, parts, walk
from policyguard.model.policy import Attribute
from policyguard.text import quoted_list
from policyguard.values import MAX_INTEGER

Attributes = Callable[[str], Mapping[str, Attribute]]


def literal_errors(expression: Expression, attributes: Attributes) -> list[ConditionError]:
    """List constants that always fail, integers beyond 2^53 - 1, and texts outside an enum."""
    errors: list[ConditionError] = []
    _constant_errors(expression, errors)
    for node in walk(expression):
        if isinstance(node, Call) and node.function in ("equals", "not_equals", "in_list"):
            errors.extend(_enum_errors(node, attributes))
    return errors


def _constant_errors(node: Expression, errors: list[ConditionError]) -> bool:
    """Add the failing constants below a node to `errors`; return True if it is constant and cannot fail."""
    if isinstance(node, Constant):
        if type(node.value) is int and node.type == "int" and abs(node.value) > MAX_INTEGER:
            message = f"found an integer beyond 2^53 - 1: `{node.value}`"
            errors.append(ConditionError(node.offset, message, "no fact holds one", "PG405"))
            return False
        return True
    if isinstance(node, Variable):
        return False
    below = [_constant_errors(part, errors) for part in parts(node)]
    constant = all(below)
    if isinstance(node, Call):
        problem = _outcome_problem(node) if constant else _argument_problem(node)
        if problem is not None:
            # INVARIANT I6: a condition that can only fail does not load.
            errors.append(
                ConditionError(node.offset, problem, None, "PG207" if node.function == "matches" else "PG314")
            )
            return False
    return constant


def _outcome_problem(node: Call) -> str | None:
    value = value_of(node, {})
    return f"`{render(node)}` always fails: {value.message}" if isinstance(value, EvalError) else None


def _nonzero(divisor: int) -> None:
    if divisor == 0:
        raise Failure("division by zero")


def _not_negative(index: int) -> None:
    if index < 0:
        raise Failure(f"index {index} is below zero")


def _zone(name: Any) -> object:
    return times.parse_offset(name)


_PROBES: dict[str, Callable[[Any], object]] = {
    "matches": lambda pattern: matches("", pattern),
    "ip_in_string_string": parse_prefix,
    "under_string_string": lambda prefix: under("", prefix),
    "divide_int64": _nonzero,
    "modulo_int64": _nonzero,
    "index_list": _not_negative,
}
"""Functions whose constant second argument may fail whatever the first one is."""


def _argument_problem(node: Call) -> str | None:
    probe = _zone if node.function.endswith("_with_tz") else _PROBES.get(node.function)
    last = node.arguments[-1]
    if probe is None or not isinstance(last, Constant):
        return None
    try:
        probe(last.value)
    except Failure as problem:
        return f"`{render(node)}` always fails: {problem}"
    return None


def _enum_errors(node: Call, attributes: Attributes) -> Iterator[ConditionError]:
    first, second = node.arguments
    for attribute_side, literal_side in ((first, second), (second, first)):
        attribute = _attribute(attribute_side, attributes)
        if attribute is None or not attribute.enum:
            continue
        literals = literal_side.elements if isinstance(literal_side, ListOf) else (literal_side,)
        for literal in literals:
            if isinstance(literal, Constant) and isinstance(literal.value, str) and literal.value not in attribute.enum:
                allowed = quoted_list(attribute.enum)
                message = f"`{literal.value}` is no value of `{render(attribute_side)}`, expected one of {allowed}"
                yield ConditionError(literal.offset, message, _close(literal.value, attribute.enum), "PG107")


def _attribute(node: Expression, attributes: Attributes) -> Attribute | None:
    return attributes(node.operand.type).get(node.name) if isinstance(node, Select) else None


def _close(value: str, enum: tuple[str, ...]) -> str | None:
    by_lower_case = {name.lower(): name for name in enum}
    near = by_lower_case.get(value.lower()) or next((name for name in enum if name.startswith(value[:3])), None)
    return f"did you mean `{near}`?" if near else None
