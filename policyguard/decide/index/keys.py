"""Extracts index keys from a condition: attributes without which it is FALSE.

Works on shapes, once for all rules that share one. A requirement is sound because CEL's `&&` is FALSE as soon as one
side is FALSE, whatever error the other side raises. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from policyguard.decide.index.tree import CONTEXT, RESOURCE, SUBJECT, Key, Requirement
from policyguard.model.expression import Call, Constant, Expression, Has, Hole, ListOf, Select, Variable

_ENTITIES = {"subject": SUBJECT, "resource": RESOURCE, "context": CONTEXT}
_INDEXED_TYPES = {"bool", "int", "string"}
_BOUNDS = {"greater_int64": ">", "greater_equals_int64": ">=", "less_int64": "<", "less_equals_int64": "<="}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
_CLOSED = {">": (">=", 1), "<": ("<=", -1)}
"""Replaces open bounds by closed ones: integers above 4 are those from 5 on."""

Path: TypeAlias = tuple[int, str, Any]
"""A key whose last part may be a hole: the key of a map."""


class Template(msgspec.Struct, frozen=True):
    """The requirements of a shape: attributes that must be present, and comparisons with holes for constants."""

    present: tuple[Path, ...]
    wanted: tuple[tuple[Path, str, tuple[Any, ...]], ...]


def extract(shape: Expression) -> Template:
    """Extract the requirements of a shape from its conjuncts."""
    present: list[Path] = []
    wanted: list[tuple[Path, str, tuple[Any, ...]]] = []
    for conjunct in _conjuncts(shape):
        path = _presence(conjunct)
        if path is not None:
            present.append(path)
        requirement = _requirement(conjunct)
        if requirement is not None:
            wanted.append(requirement)
    return Template(tuple(present), tuple(wanted))


def instantiate(shape: Template, constants: tuple[Any, ...]) -> tuple[Requirement, ...]:
    """Fill a shape's requirements with a rule's constants."""
    present = {_key(path, constants) for path in shape.present}
    return tuple(
        _bound(_key(path, constants), operator, tuple(_values(values, constants)), present)
        for path, operator, values in shape.wanted
    )


def _bound(key: Key, operator: str, values: tuple[Any, ...], present: set[Key]) -> Requirement:
    if operator in _CLOSED:
        operator, step = _CLOSED[operator]
        values = (values[0] + step,)
    return Requirement((key, operator), values, (key[0], key[1], None) in present, key in present)


def _key(path: Path, constants: tuple[Any, ...]) -> Key:
    entity, name, field = path
    return (entity, name, constants[field.index]) if type(field) is Hole else path


def _values(values: tuple[Any, ...], constants: tuple[Any, ...]) -> Iterator[Any]:
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


def _presence(node: Expression) -> Path | None:
    """Return the path that `has(x.y)` or `"k" in x.labels` requires to be present; None for anything else."""
    if isinstance(node, Has):
        return _path(Select(node.operand, node.name, "bool"))
    if isinstance(node, Call) and node.function == "in_map":
        key, labels = node.arguments
        return _member(labels, key)
    return None


def _requirement(node: Expression) -> tuple[Path, str, tuple[Any, ...]] | None:
    if isinstance(node, Select) and node.type == "bool":
        return _wanted(_path(node), "in", (True,))
    if not isinstance(node, Call):
        return None
    match node.function, node.arguments:
        case "logical_not", (Select() as operand,) if operand.type == "bool":
            return _wanted(_path(operand), "in", (False,))
        case "equals", (first, second):
            other, literal = (first, second) if _is_literal(second) else (second, first)
            return _wanted(_indexed(other), "in", (_literal(literal),)) if _is_literal(literal) else None
        case "in_list", (item, Hole() as options):
            return _wanted(_indexed(item), "in", (options,))
        case "in_list", (item, ListOf(elements=elements)) if elements and all(map(_is_literal, elements)):
            return _wanted(_indexed(item), "in", tuple(map(_literal, elements)))
        case function, (first, second) if function in _BOUNDS:
            operator = _BOUNDS[function]
            if _is_literal(second):
                return _wanted(_indexed(first), operator, (_literal(second),))
            return _wanted(_indexed(second), _MIRRORED[operator], (_literal(first),)) if _is_literal(first) else None
    return None


def _wanted(path: Path | None, operator: str, values: tuple[Any, ...]) -> tuple[Path, str, tuple[Any, ...]] | None:
    return None if path is None else (path, operator, values)


def _indexed(node: Expression) -> Path | None:
    return _path(node) if node.type in _INDEXED_TYPES else None


def _is_literal(node: Expression) -> bool:
    return isinstance(node, Constant | Hole)


def _literal(node: Expression) -> Any:
    return node.value if isinstance(node, Constant) else node


def _path(node: Expression) -> Path | None:
    """Return the path of `resource.queue`, `resource.code.dirty` or `resource.labels["k"]`; None for anything else."""
    if isinstance(node, Call) and node.function == "index_map":
        return _member(*node.arguments)
    if not isinstance(node, Select):
        return None
    inner = node.operand
    if isinstance(inner, Variable) and inner.name in _ENTITIES:
        return _ENTITIES[inner.name], node.name, None
    if isinstance(inner, Select) and isinstance(inner.operand, Variable) and inner.operand.name in _ENTITIES:
        return _ENTITIES[inner.operand.name], inner.name, node.name
    return None


def _member(labels: Expression, key: Expression) -> Path | None:
    # Texts of a shape are holes.
    if not isinstance(labels, Select) or not isinstance(key, Hole) or key.type != "string":
        return None
    entity = labels.operand
    if not isinstance(entity, Variable) or entity.name not in _ENTITIES:
        return None
    return _ENTITIES[entity.name], labels.name, key
