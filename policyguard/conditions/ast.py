"""Transforms checked conditions: constant folding, shapes without constants, atoms, paths read.

Works only on nodes; `decoding.py` builds them, `canonical.py` stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, cast

from policyguard.conditions.functions import FUNCTIONS, Failure
from policyguard.conditions.profile import LOGIC
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
    Variable,
)
from policyguard.values import MAX_INTEGER

Scalar: TypeAlias = "bool | int | str"
ConstantValue: TypeAlias = "Scalar | tuple[Scalar, ...]"
Path: TypeAlias = tuple[str, ...]


def folded(expression: Expression) -> Expression:
    """Replace `timestamp("...")` and `duration("...")` of literals by constants.

    An invalid literal is not replaced: evaluating it is an error, and the checker refuses it.
    """
    return rebuilt(expression, _fold)


_FOLDED = {"string_to_timestamp": "timestamp", "string_to_duration": "duration"}


def _fold(node: Expression) -> Expression:
    if isinstance(node, Call) and node.function in _FOLDED and isinstance(node.arguments[0], Constant):
        try:
            value = FUNCTIONS[node.function](node.arguments[0].value)
        except Failure:
            return node
        return Constant(value, _FOLDED[node.function], node.offset)
    return node


def rebuilt(node: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """Apply `change` to every node of a tree, children before parents."""
    return change(_with_parts(node, lambda part: rebuilt(part, change)))


def _with_parts(node: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """Apply `change` to the children of a node, in source order; a macro's filter comes first."""
    if isinstance(node, Call):
        return Call(node.function, tuple([change(part) for part in node.arguments]), node.type, node.offset)
    if isinstance(node, Select):
        return Select(change(node.operand), node.name, node.type, node.offset)
    if isinstance(node, Has):
        return Has(change(node.operand), node.name, node.offset)
    if isinstance(node, ListOf):
        return ListOf(tuple([change(part) for part in node.elements]), node.type, node.offset)
    if isinstance(node, MapOf):
        entries = tuple([(change(key), change(value)) for key, value in node.entries])
        return MapOf(entries, node.type, node.offset)
    if isinstance(node, Quantifier):
        condition = change(node.condition) if node.condition is not None else None
        source, body = change(node.range), change(node.body)
        return Quantifier(node.kind, node.variable, source, body, node.type, condition, node.offset)
    return node


def shape(expression: Expression) -> tuple[Expression, tuple[ConstantValue, ...]]:
    """Replace constants by holes; return the shape and the constants in the order of the holes.

    A list of constants becomes one hole. Bools stay, because they are structure. Integers beyond 2^53 - 1 stay too, so
    that code compiled for a shape can rely on the range of its constants.
    """
    constants: list[ConstantValue] = []

    def visit(node: Expression) -> Expression:
        value = _constant_value(node)
        if value is None:
            return node
        constants.append(value)
        return Hole(len(constants) - 1, node.type, node.offset)

    return _shaped(expression, visit), tuple(constants)


def _shaped(node: Expression, visit: Callable[[Expression], Expression]) -> Expression:
    if isinstance(node, Constant | ListOf):
        node = visit(node)
    return _with_parts(node, lambda part: _shaped(part, visit))


def _constant_value(node: Expression) -> ConstantValue | None:
    if isinstance(node, ListOf) and node.elements:
        values = [_constant_value(element) for element in node.elements]
        if all(value is not None and not isinstance(value, tuple) for value in values):
            return cast("tuple[Scalar, ...]", tuple(values))
    if not isinstance(node, Constant) or isinstance(node.value, bool | bytes):
        return None
    if node.type == "int" and abs(cast(int, node.value)) > MAX_INTEGER:
        return None
    return node.value


def filled(expression: Expression, constants: tuple[ConstantValue, ...]) -> Expression:
    """Fill the holes of a shape: `filled(*shape(e)) == e`."""
    return rebuilt(expression, lambda node: _fill(node, constants))


def _fill(node: Expression, constants: tuple[ConstantValue, ...]) -> Expression:
    if not isinstance(node, Hole):
        return node
    value = constants[node.index]
    if isinstance(value, tuple):
        element = node.type[5:-1]
        return ListOf(tuple(Constant(item, element, node.offset) for item in value), node.type, node.offset)
    return Constant(value, node.type, node.offset)


def is_constant_list(node: Expression) -> bool:
    """Return True for a list literal whose elements are all literals."""
    if isinstance(node, ListOf):
        return all(isinstance(element, Constant | Hole) for element in node.elements)
    return isinstance(node, Hole)


def atoms(expression: Expression) -> tuple[Expression, ...]:
    """Return the smallest bool operands of `&&`, `||`, `!` and `?:`, in source order; a quantifier is one atom."""
    return tuple(_atoms(expression))


def _atoms(node: Expression) -> Iterator[Expression]:
    if isinstance(node, Call) and node.function in LOGIC and node.type == "bool":
        for argument in node.arguments:
            yield from _atoms(argument)
    else:
        yield node


def paths_read(expression: Expression) -> frozenset[Path]:
    """Return every path that the expression may read: `("resource", "code", "dirty")`, `("now",)`.

    An element of a list or a key of a map is `[]`: `("resource", "checkpoints", "[]", "format")`. The prefixes of a
    path are not included.
    """
    paths: set[Path] = set()
    _read(expression, {}, paths)
    return frozenset(path for path in paths if not any(_begins(path, other) for other in paths))


def _begins(path: Path, other: Path) -> bool:
    return len(path) < len(other) and other[: len(path)] == path


def _read(node: Expression, bound: Mapping[str, Path | None], paths: set[Path]) -> Path | None:
    path: Path | None = None
    if isinstance(node, Variable):
        path = bound.get(node.name, (node.name,))
    elif isinstance(node, Select | Has):
        above = _read(node.operand, bound, paths)
        path = (*above, node.name) if above is not None else None
    elif isinstance(node, Quantifier):
        above = _read(node.range, bound, paths)
        inner = {**bound, node.variable: (*above, "[]") if above is not None else None}
        for part in (node.condition, node.body):
            if part is not None:
                _read(part, inner, paths)
        path = above if node.kind == "filter" else None
    else:
        path = _read_parts(node, bound, paths)
    if path is not None:
        paths.add(path)
    return path


def _read_parts(node: Expression, bound: Mapping[str, Path | None], paths: set[Path]) -> Path | None:
    if isinstance(node, Call):
        read = [_read(argument, bound, paths) for argument in node.arguments]
        if node.function in ("index_list", "index_map") and read[0] is not None:
            return (*read[0], "[]")
    elif isinstance(node, ListOf):
        for element in node.elements:
            _read(element, bound, paths)
    elif isinstance(node, MapOf):
        for entry in node.entries:
            for part in entry:
                _read(part, bound, paths)
    return None
