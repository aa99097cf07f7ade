"""What a condition demands by equality: facts without which it is FALSE, for the index to look up.

Works on shapes, once for all rules that share one. A demand is sound because CEL's `&&` is FALSE as soon as one side is
FALSE, whatever error the other side raises. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from policyguard.decide.index import CONTEXT, RESOURCE, SUBJECT, Key
from policyguard.model.expression import Call, Constant, Expression, Has, Hole, ListOf, Select, Variable

ShapeDemand: TypeAlias = tuple[Key, tuple[Any, ...], bool]
"""(key, holes or literal values, guarded)."""

_ENTITIES = {"subject": SUBJECT, "resource": RESOURCE, "context": CONTEXT}
_INDEXED_TYPES = {"bool", "int", "string"}


def shape_demands(shape: Expression) -> tuple[ShapeDemand, ...]:
    """Return the demands of a shape; a `Hole` among the values stands for the rule's own constant."""
    conjuncts = tuple(_conjuncts(shape))
    present = {path for conjunct in conjuncts if isinstance(conjunct, Has) and (path := _has_path(conjunct))}
    found: dict[Key, ShapeDemand] = {}
    for conjunct in conjuncts:
        demand = _demand(conjunct)
        if demand is not None and demand[0] not in found:
            key, values = demand
            found[key] = (key, values, _guards(key) <= present)
    return tuple(found.values())


def bind(demands: tuple[ShapeDemand, ...], constants: tuple[Any, ...]) -> tuple[ShapeDemand, ...]:
    """Return a rule's demands: the shape's, with its constants in the holes."""
    return tuple((key, tuple(_bound(values, constants)), guarded) for key, values, guarded in demands)


def _bound(values: tuple[Any, ...], constants: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if type(value) is not Hole:
            yield value
        elif value.type.startswith("list("):
            yield from constants[value.index]
        else:
            yield constants[value.index]


def _conjuncts(node: Expression) -> Iterator[Expression]:
    if isinstance(node, Call) and node.function == "logical_and":
        for argument in node.arguments:
            yield from _conjuncts(argument)
    else:
        yield node


def _demand(node: Expression) -> tuple[Key, tuple[Any, ...]] | None:
    if isinstance(node, Select) and node.type == "bool":
        return _keyed(node, (True,))
    if not isinstance(node, Call):
        return None
    match node.function, node.arguments:
        case "logical_not", (Select() as operand,) if operand.type == "bool":
            return _keyed(operand, (False,))
        case "equals", (left, right):
            if _is_literal(right):
                return _keyed(left, (_literal(right),))
            if _is_literal(left):
                return _keyed(right, (_literal(left),))
        case "in_list", (item, Hole() as options):
            return _keyed(item, (options,))
        case "in_list", (item, ListOf(elements=elements)) if elements and all(map(_is_literal, elements)):
            return _keyed(item, tuple(map(_literal, elements)))
    return None


def _keyed(node: Expression, values: tuple[Any, ...]) -> tuple[Key, tuple[Any, ...]] | None:
    key = _path(node) if node.type in _INDEXED_TYPES else None
    return None if key is None else (key, values)


def _is_literal(node: Expression) -> bool:
    return isinstance(node, Constant | Hole)


def _literal(node: Expression) -> Any:
    return node.value if isinstance(node, Constant) else node


def _path(node: Expression) -> Key | None:
    """Return the key of `resource.queue` or `resource.code.dirty`, None for anything else."""
    if not isinstance(node, Select):
        return None
    inner = node.operand
    if isinstance(inner, Variable) and inner.name in _ENTITIES:
        return _ENTITIES[inner.name], node.name, None
    if isinstance(inner, Select) and isinstance(inner.operand, Variable) and inner.operand.name in _ENTITIES:
        if inner.type.startswith("map("):
            return None
        return _ENTITIES[inner.operand.name], inner.name, node.name
    return None


def _has_path(node: Has) -> Key | None:
    return _path(Select(node.operand, node.name, "bool"))


def _guards(key: Key) -> set[Key]:
    """Return the `has` tests that make an absent key FALSE instead of an error."""
    entity, name, field = key
    return {(entity, name, None)} if field is None else {(entity, name, None), key}
