"""What a condition demands of single attributes, for the index: equalities that are tested before any code runs."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.ast import Path
from policyguard.conditions.profile import ENTITIES
from policyguard.model.expression import Call, Constant, Expression, ListOf, Select, Variable

Scalar = bool | int | str
Necessary = tuple[Path, frozenset[Scalar]]

_INDEXED = frozenset({"bool", "int", "string"})


def necessary_equalities(expression: Expression) -> list[Necessary]:
    """Return (path, values) such that the condition is FALSE where the path is present and holds none of the values.

    Taken from the top-level conjuncts `path == constant`, `path in [constants]`, `path` and `!path`. An absent path
    says nothing: the condition may then be an error, which makes a deny fire. Values of one path are of one type.
    """
    return [found for conjunct in _conjuncts(expression) for found in _demand(conjunct)]


def _conjuncts(expression: Expression) -> tuple[Expression, ...]:
    if isinstance(expression, Call) and expression.function == "logical_and":
        return expression.arguments
    return (expression,)


def _demand(node: Expression) -> Iterator[Necessary]:
    if isinstance(node, Call) and node.function == "equals":
        for side, other in (node.arguments, node.arguments[::-1]):
            path = path_of(side)
            if path is not None and isinstance(other, Constant) and other.type in _INDEXED:
                yield path, _values((other,))
                return
    elif isinstance(node, Call) and node.function == "in_list":
        path, values = path_of(node.arguments[0]), node.arguments[1]
        if path is not None and isinstance(values, ListOf) and node.arguments[0].type in _INDEXED:
            constants = [element for element in values.elements if isinstance(element, Constant)]
            if len(constants) == len(values.elements):
                yield path, _values(tuple(constants))
    elif isinstance(node, Call) and node.function == "logical_not":
        path = path_of(node.arguments[0])
        if path is not None:
            yield path, frozenset({False})
    elif node.type == "bool":
        path = path_of(node)
        if path is not None:
            yield path, frozenset({True})


def _values(constants: tuple[Constant, ...]) -> frozenset[Scalar]:
    return frozenset(constant.value for constant in constants if not isinstance(constant.value, bytes))


def path_of(node: Expression) -> Path | None:
    """Return `("resource", "code", "dirty")` for a plain attribute, `("action",)` for the action, else None."""
    if isinstance(node, Variable):
        return (node.name,) if node.name in ENTITIES or node.name == "action" else None
    if isinstance(node, Select):
        above = path_of(node.operand)
        return (*above, node.name) if above is not None else None
    return None
