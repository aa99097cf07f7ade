"""The exact evaluator: a condition is TRUE, FALSE, or an error with its offset and reason.

As the CEL specification requires, `&&` and `||` absorb an error on either side, and `all` and `exists` an error of any
element; everything else propagates errors. Values are checked against the schema's types where they are read. This is
the reference for `codegen`, which is faster. Opens nothing, reads no clock.
Source: cel-spec `doc/langdef.md`, "Logical Operators", "Macros", "Evaluation errors".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

import msgspec

from policyguard.conditions.ast import ConstantValue, atoms, folded, is_constant_list
from policyguard.conditions.cost import MAX_COST, Budget, Exhausted, is_charged, is_membership
from policyguard.conditions.functions import FUNCTIONS, Failure
from policyguard.conditions.rendering import render
from policyguard.model.expression import (
    Call,
    Constant,
    Expression,
    Has,
    Hole,
    ListOf,
    MapOf,
    Quantifier,
    Select,
    TypeName,
    Variable,
)
from policyguard.values import name_of

__all__ = ["AtomValue", "EvalError", "Outcome", "evaluate", "folded", "render", "trace", "value_of"]


class EvalError(msgspec.Struct, frozen=True):
    """Why an expression has no value, and where in the condition's text. Not a truth value."""

    message: str
    offset: int = 0

    def __bool__(self) -> NoReturn:
        raise TypeError("an evaluation error is not a truth value, compare with `is True`")


Outcome: TypeAlias = "bool | EvalError"

_Names: TypeAlias = Mapping[str, Any]


class AtomValue(msgspec.Struct, frozen=True):
    """One atom of a condition, its outcome, and the facts it read; an absent fact is an error."""

    expression: Expression
    outcome: Outcome


def evaluate(
    expression: Expression,
    subject: Mapping[str, Any],
    resource: Mapping[str, Any],
    context: Mapping[str, Any],
    action: str,
    now: int,
    constants: tuple[ConstantValue, ...] = (),
    *,
    max_cost: int = MAX_COST,
) -> Outcome:
    """Evaluate a condition to True, False or an error; never raises on bad data.

    Args:
        expression: the condition, with holes or without.
        subject, resource, context: attribute names to values; absent facts are absent.
        action: the requested action, `type:verb`.
        now: the time of the decision, in nanoseconds since 1970.
        constants: the values of the holes.
        max_cost: units of `cost.py` that may be spent; beyond them the whole condition is an error.
    """
    return _outcome(expression, _names(subject, resource, context, action, now, constants), max_cost)


def trace(
    expression: Expression,
    subject: Mapping[str, Any],
    resource: Mapping[str, Any],
    context: Mapping[str, Any],
    action: str,
    now: int,
    constants: tuple[ConstantValue, ...] = (),
) -> tuple[AtomValue, ...]:
    """Evaluate every atom of a condition in source order, even if it does not affect the result.

    The arguments are those of `evaluate`.

    Args:
        expression: a checked condition.
        subject: its attributes.
        resource: its attributes.
        context: its attributes.
        action: the action.
        now: the current time.
        constants: the constants that fill the holes.
    """
    names = _names(subject, resource, context, action, now, constants)
    return tuple(AtomValue(atom, _outcome(atom, names)) for atom in atoms(expression))


def value_of(expression: Expression, names: Mapping[str, Any]) -> Any:
    """Evaluate an expression of any type; `names` maps variables to values."""
    return _within_budget(expression, names, MAX_COST)


def _names(subject: Any, resource: Any, context: Any, action: str, now: int, constants: Any) -> _Names:
    return {
        "subject": subject,
        "resource": resource,
        "context": context,
        "action": action,
        "now": now,
        _CONSTANTS: constants,
    }


_CONSTANTS = "@constants"
_BUDGET = "@budget"
_INSIDE = "@inside"
"""Names the budget inside a macro, the only place where functions that walk their arguments are charged."""


def _within_budget(expression: Expression, names: _Names, max_cost: int) -> Any:
    # INVARIANT I2: an error, never a result, where the work that was paid for is not done to the end.
    try:
        return _value(expression, {**names, _BUDGET: Budget(max_cost)})
    except Exhausted:
        return EvalError(f"the condition costs more than {max_cost} elements visited", expression.offset)


def _outcome(expression: Expression, names: _Names, max_cost: int = MAX_COST) -> Outcome:
    value = _within_budget(expression, names, max_cost)
    if value is True or value is False or isinstance(value, EvalError):
        return value
    # INVARIANT I2: a result that is not a bool is an error.
    return EvalError(f"the condition is {name_of(value)}, expected a bool", expression.offset)


def _value(node: Expression, names: _Names) -> Any:
    return _EVALUATORS[type(node)](node, names)


def _constant(node: Constant, _names: _Names) -> Any:
    return node.value


def _hole(node: Hole, names: _Names) -> Any:
    return names[_CONSTANTS][node.index]


def _variable(node: Variable, names: _Names) -> Any:
    if node.name not in names:
        return EvalError(f"unknown name `{node.name}`", node.offset)
    return _checked(names[node.name], node.type, node)


def _holder(node: Select | Has, names: _Names) -> Any:
    """Return the map that contains the field, or an error."""
    operand = _value(node.operand, names)
    if isinstance(operand, EvalError | Mapping):
        return operand
    return EvalError(f"`{render(node.operand)}` is {name_of(operand)}, expected a map", node.offset)


def _select(node: Select, names: _Names) -> Any:
    operand = _holder(node, names)
    if isinstance(operand, EvalError):
        return operand
    # INVARIANT I2: an absent attribute is an error, never a default.
    if node.name not in operand:
        return EvalError(f"`{render(node)}` is absent", node.offset)
    return _checked(operand[node.name], node.type, node)


def _has(node: Has, names: _Names) -> Any:
    operand = _holder(node, names)
    return operand if isinstance(operand, EvalError) else node.name in operand


_CHECKS: dict[TypeName, Callable[[Any], bool]] = {
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "string": lambda value: isinstance(value, str),
    "timestamp": lambda value: type(value) is int,
    "duration": lambda value: type(value) is int,
}
_TYPE_NAMES = {
    "bool": "a bool",
    "int": "an integer",
    "string": "text",
    "timestamp": "a timestamp",
    "duration": "a duration",
    "list": "a list",
    "map": "a map",
}


def _checked(value: Any, kind: TypeName, node: Expression) -> Any:
    """Return the value if it has the declared type, else an error; elements are checked when read."""
    check = _CHECKS.get(kind)
    if check is None:
        matches = isinstance(value, (list, tuple)) if kind.startswith("list(") else isinstance(value, Mapping)
    else:
        matches = check(value)
    if matches:
        return value
    expected = _TYPE_NAMES.get(kind.partition("(")[0], "a record")
    return EvalError(f"`{render(node)}` is {name_of(value)}, expected {expected}", node.offset)


def _list_of(node: ListOf, names: _Names) -> Any:
    values = []
    for element in node.elements:
        value = _value(element, names)
        if isinstance(value, EvalError):
            return value
        values.append(value)
    return tuple(values)


def _map_of(node: MapOf, names: _Names) -> Any:
    entries: dict[str, Any] = {}
    for key_node, value_node in node.entries:
        key, value = _value(key_node, names), _value(value_node, names)
        for part in (key, value):
            if isinstance(part, EvalError):
                return part
        if key in entries:
            return EvalError(f"duplicate key `{key}` in a map", key_node.offset)
        entries[key] = value
    return entries


def _call(node: Call, names: _Names) -> Any:
    if node.function in _LOGIC:
        return _LOGIC[node.function](node, names)
    budget = names.get(_INSIDE)
    if budget is not None and is_membership(node.function, node.arguments[0].type):
        return _membership(node, names, budget)
    arguments = []
    for argument in node.arguments:
        value = _value(argument, names)
        if isinstance(value, EvalError):
            return value
        arguments.append(value)
    try:
        if is_charged(node, is_inside=budget is not None):
            return names[_BUDGET].call(node.function, *arguments)
        return FUNCTIONS[node.function](*arguments)
    except Failure as problem:
        return EvalError(str(problem), node.offset)
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError, RecursionError):
        return EvalError(f"`{render(node)}` cannot be computed", node.offset)


def _membership(node: Call, names: _Names, budget: Budget) -> Any:
    """Evaluate `scalar in list` inside a macro; the set of a constant list is built only once."""
    value = _value(node.arguments[0], names)
    if isinstance(value, EvalError):
        return value
    source = node.arguments[1]
    if is_constant_list(source):
        return budget.is_listed(value, budget.once(source, lambda: _value(source, names)))
    values = _value(source, names)
    return values if isinstance(values, EvalError) else budget.is_member(value, values)


def _absorbing(deciding: bool) -> Callable[[Call, _Names], Any]:
    """Build `&&` (False decides) or `||` (True decides): a deciding operand beats errors, errors beat the rest."""

    def logic(node: Call, names: _Names) -> Any:
        error: EvalError | None = None
        for argument in node.arguments:
            value = _truth(argument, names)
            if value is deciding:
                return deciding
            if isinstance(value, EvalError) and error is None:
                error = value
        return error if error is not None else not deciding

    return logic


def _truth(node: Expression, names: _Names) -> Outcome:
    value = _value(node, names)
    if value is True or value is False or isinstance(value, EvalError):
        return value
    return EvalError(f"`{render(node)}` is {name_of(value)}, expected a bool", node.offset)


def _not(node: Call, names: _Names) -> Any:
    value = _truth(node.arguments[0], names)
    return value if isinstance(value, EvalError) else not value


def _conditional(node: Call, names: _Names) -> Any:
    value = _truth(node.arguments[0], names)
    if isinstance(value, EvalError):
        return value
    return _value(node.arguments[1] if value else node.arguments[2], names)


_LOGIC: dict[str, Callable[[Call, _Names], Any]] = {
    "logical_and": _absorbing(False),
    "logical_or": _absorbing(True),
    "logical_not": _not,
    "conditional": _conditional,
}


def _quantifier(node: Quantifier, names: _Names) -> Any:
    source = _value(node.range, names)
    if isinstance(source, EvalError):
        return source
    if not isinstance(source, (list, tuple, Mapping)):
        return EvalError(f"`{render(node.range)}` is {name_of(source)}, expected a list or a map", node.offset)
    names[_BUDGET].visit(source)
    if isinstance(source, Mapping) and node.kind in ("map", "filter"):
        # The digest of a request does not know the order of a map's keys, so no decision may depend on it.
        source = sorted(source)
    return _MACROS[node.kind](node, _bindings(names, node.variable, source))


def _bindings(names: _Names, variable: str, source: Iterable[Any]) -> Iterator[_Names]:
    """Yield the variables for each element in turn; the same mapping every time, changed in place."""
    inner = {**names, _INSIDE: names[_BUDGET]}
    for element in source:
        inner[variable] = element
        yield inner


def _absorbing_macro(deciding: bool) -> Callable[[Quantifier, Iterator[_Names]], Any]:
    def macro(node: Quantifier, elements: Iterator[_Names]) -> Any:
        error: EvalError | None = None
        for names in elements:
            value = _truth(node.body, names)
            if value is deciding:
                return deciding
            if isinstance(value, EvalError):
                error = value if error is None else error
        return error if error is not None else not deciding

    return macro


def _exists_one(node: Quantifier, elements: Iterator[_Names]) -> Any:
    count = 0
    for names in elements:
        value = _truth(node.body, names)
        if isinstance(value, EvalError):
            return value
        count += value
    return count == 1


def _filter(node: Quantifier, elements: Iterator[_Names]) -> Any:
    selected = []
    for names in elements:
        value = _truth(node.body, names)
        if isinstance(value, EvalError):
            return value
        if value:
            selected.append(names[node.variable])
    return tuple(selected)


def _map(node: Quantifier, elements: Iterator[_Names]) -> Any:
    mapped = []
    for names in elements:
        wanted = _truth(node.condition, names) if node.condition is not None else True
        if isinstance(wanted, EvalError):
            return wanted
        if wanted:
            value = _value(node.body, names)
            if isinstance(value, EvalError):
                return value
            mapped.append(value)
    return tuple(mapped)


_MACROS: dict[str, Callable[[Quantifier, Iterator[_Names]], Any]] = {
    "all": _absorbing_macro(False),
    "exists": _absorbing_macro(True),
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _map,
}

_EVALUATORS: dict[type, Callable[[Any, _Names], Any]] = {
    Constant: _constant,
    Hole: _hole,
    Variable: _variable,
    Select: _select,
    Has: _has,
    ListOf: _list_of,
    MapOf: _map_of,
    Quantifier: _quantifier,
    Call: _call,
}
