"""The form of a condition in a compiled snapshot: nested lists of text, integers and bools for any JSON encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policyguard.conditions.problems import ProfileError
from policyguard.conditions.profile import OVERLOADS
from policyguard.conditions.signatures import SIGNATURES
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
from policyguard.values import MAX_INTEGER, name_of

FORMAT = 1
"""The version of the format. Raise it when the meaning of stored conditions changes."""


def canonical_form(expression: Expression) -> list[Any]:
    """Convert an expression to nested lists, with the version of the format."""
    return [FORMAT, _listed(expression)]


_LARGE = ("timestamp", "duration")


def _listed(node: Expression) -> list[Any]:
    if isinstance(node, Constant):
        large = node.type in _LARGE or (type(node.value) is int and abs(node.value) > MAX_INTEGER)
        return ["c", str(node.value) if large else node.value, node.type, node.offset]
    if isinstance(node, Variable):
        return ["v", node.name, node.type, node.offset]
    if isinstance(node, Hole):
        return ["o", node.index, node.type, node.offset]
    if isinstance(node, Select):
        return ["s", _listed(node.operand), node.name, node.type, node.offset]
    if isinstance(node, Has):
        return ["h", _listed(node.operand), node.name, node.offset]
    if isinstance(node, Call):
        return ["f", node.function, [_listed(part) for part in node.arguments], node.type, node.offset]
    if isinstance(node, ListOf):
        return ["l", [_listed(part) for part in node.elements], node.type, node.offset]
    if isinstance(node, MapOf):
        return ["m", [[_listed(key), _listed(value)] for key, value in node.entries], node.type, node.offset]
    condition = _listed(node.condition) if node.condition is not None else []
    return ["q", node.kind, node.variable, _listed(node.range), _listed(node.body), node.type, condition, node.offset]


def from_canonical(data: object) -> Expression:
    """Rebuild an expression: `from_canonical(canonical_form(e)) == e`.

    Raises:
        ProfileError: an unknown version, or data that is not a canonical form.
    """
    if not isinstance(data, list) or len(data) != 2 or data[0] != FORMAT:
        raise ProfileError(f"malformed expression: expected one of format {FORMAT}")
    try:
        return _node(data[1])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as problem:
        raise ProfileError("malformed expression: not in canonical form") from problem


def _node(data: list[Any]) -> Expression:
    tag, *fields = data
    build, kinds = _NODES[tag]
    for field, kind in zip(fields, kinds, strict=True):
        if kind is not None and type(field) is not kind:
            raise TypeError(f"found {name_of(field)} in a node `{tag}`")
    return build(*fields)


def _constant_node(value: Any, kind: str, offset: int) -> Constant:
    if type(value) not in (bool, int, str):
        raise TypeError(f"found {name_of(value)} as a constant")
    if kind in _LARGE or (kind == "int" and type(value) is str):
        value = int(value)
    return Constant(value, kind, offset)


def _call_node(function: str, arguments: list[Any], kind: str, offset: int) -> Call:
    if function not in OVERLOADS:
        raise ProfileError(f"malformed expression: `{function}` is outside the profile", offset)
    if len(arguments) < len(SIGNATURES[function][0]):
        raise ProfileError(f"malformed expression: `{function}` without its arguments", offset)
    return Call(function, tuple([_node(part) for part in arguments]), kind, offset)


def _quantifier_node(
    kind: Any, variable: str, source: list[Any], body: list[Any], result: str, condition: list[Any], offset: int
) -> Quantifier:
    if kind not in ("all", "exists", "exists_one", "filter", "map"):
        raise ProfileError(f"malformed expression: `{kind}` is no macro", offset)
    guard = _node(condition) if condition else None
    return Quantifier(kind, variable, _node(source), _node(body), result, guard, offset)


_NODES: dict[str, tuple[Callable[..., Expression], tuple[type | None, ...]]] = {
    "c": (_constant_node, (None, str, int)),
    "v": (Variable, (str, str, int)),
    "o": (Hole, (int, str, int)),
    "s": (lambda operand, name, kind, offset: Select(_node(operand), name, kind, offset), (list, str, str, int)),
    "h": (lambda operand, name, offset: Has(_node(operand), name, offset), (list, str, int)),
    "f": (_call_node, (str, list, str, int)),
    "l": (lambda parts, kind, offset: ListOf(tuple([_node(part) for part in parts]), kind, offset), (list, str, int)),
    "m": (
        lambda entries, kind, offset: MapOf(tuple([(_node(k), _node(v)) for k, v in entries]), kind, offset),
        (list, str, int),
    ),
    "q": (_quantifier_node, (str, str, list, list, str, list, int)),
}
"""For each tag, the constructor and the types of the fields; None is checked by the constructor."""
