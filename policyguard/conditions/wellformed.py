"""Checks the types of stored conditions again when a signed snapshot loads; nothing in it is trusted.

Everything that evaluating, rendering and indexing rely on holds afterwards: variables are known, fields belong to what
they are read of, operands have the types of their overload, constants are what their type says, holes are numbered.
A condition that the loader compiles always passes. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from policyguard.conditions.problems import ProfileError
from policyguard.conditions.profile import ENTITIES, VARIABLES
from policyguard.conditions.signatures import fits
from policyguard.conditions.times import MAX_DURATION, MAX_TIMESTAMP, MIN_TIMESTAMP
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
from policyguard.values import MAX_INTEGER

MAX_DEPTH = 80
MAX_NODES = 20_000

Field = tuple[TypeName, str, TypeName]
"""A field that a condition reads: its owner's type (`resource`, a record), its name, and its type; "" for any type."""

SCALARS = frozenset({"bool", "int", "string", "timestamp", "duration"})
HOLES = frozenset({"int", "string", "timestamp", "duration"})


class Checked(msgspec.Struct, frozen=True):
    """What a checked condition reads, for comparison with a schema, the types of its holes, and if it uses `has()`."""

    fields: frozenset[Field]
    holes: tuple[TypeName, ...]
    tests_presence: bool = False


def check_shape(expression: Expression) -> Checked:
    """Check the types of a condition, with or without holes.

    Raises:
        ProfileError: a node has another type than its parts give it, or names what is not there.
    """
    checker = _Checker()
    if checker.check(expression, {}, MAX_DEPTH) != "bool":
        raise _malformed(expression, "a condition is a bool")
    if sorted(checker.holes) != list(range(len(checker.holes))):
        raise _malformed(expression, "holes are numbered from 0")
    holes = tuple([checker.holes[index] for index in range(len(checker.holes))])
    return Checked(frozenset(checker.fields), holes, checker.tests_presence)


def is_constant(value: object, kind: TypeName) -> bool:
    """Return True if a rule's own constant, decoded, is of the type of its hole.

    Compiled code relies on integers within 2^53 - 1; larger ones are part of the shape.
    """
    if kind.startswith("list("):
        element = kind[5:-1]
        return isinstance(value, tuple) and len(value) > 0 and all(is_constant(item, element) for item in value)
    if kind == "int":
        return type(value) is int and -MAX_INTEGER <= value <= MAX_INTEGER
    return kind in HOLES and _is_scalar(value, kind)


def _is_scalar(value: Any, kind: TypeName) -> bool:
    if kind == "string":
        return type(value) is str and is_text(value)
    if kind == "bool":
        return type(value) is bool
    bounds = _BOUNDS.get(kind)
    return bounds is not None and type(value) is int and bounds[0] <= value <= bounds[1]


_BOUNDS = {
    "int": (-(2**63), 2**63 - 1),
    "timestamp": (MIN_TIMESTAMP, MAX_TIMESTAMP),
    "duration": (-MAX_DURATION, MAX_DURATION),
}


def is_text(text: str) -> bool:
    """Return True for text that can be encoded: no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Checker:
    """Checks one condition, and collects `fields`, `holes` and `tests_presence`."""

    def __init__(self) -> None:
        self.fields: set[Field] = set()
        self.holes: dict[int, TypeName] = {}
        self.nodes = 0
        self.tests_presence = False

    def check(self, node: Expression, bound: dict[str, TypeName], depth: int) -> TypeName:
        """Check a node and its parts and return its type; `bound` are the variables of macros."""
        self.nodes += 1
        if depth <= 0 or self.nodes > MAX_NODES:
            raise _malformed(node, "a condition is neither nested too deeply nor too long")
        if not node.type.isprintable() or type(node.offset) is not int:
            raise _malformed(node, "a node has a type and an offset")
        return _CHECKS[type(node)](self, node, bound, depth - 1)

    def value(self, node: Expression, bound: dict[str, TypeName], depth: int) -> TypeName:
        kind = self.check(node, bound, depth)
        # INVARIANT I2: an entity is never a value, so no comparison sees that a fact is absent.
        if kind in ENTITIES:
            raise _malformed(node, "an entity is no value")
        return kind

    def constant(self, node: Constant, _bound: dict[str, TypeName], _depth: int) -> TypeName:
        if not _is_scalar(node.value, node.type):
            raise _malformed(node, f"a constant is of its type `{node.type}`")
        return node.type

    def variable(self, node: Variable, bound: dict[str, TypeName], _depth: int) -> TypeName:
        declared = bound.get(node.name) or VARIABLES.get(node.name)
        if declared is None or not _agree(declared, node.type):
            raise _malformed(node, f"a variable `{node.name}` of type `{node.type}` is declared")
        return node.type

    def hole(self, node: Hole, _bound: dict[str, TypeName], _depth: int) -> TypeName:
        kind = node.type
        if (kind[5:-1] if kind.startswith("list(") and kind.endswith(")") else kind) not in HOLES:
            raise _malformed(node, "a hole is for a constant or a list of constants")
        if self.holes.setdefault(node.index, kind) != kind:
            raise _malformed(node, f"hole {node.index} has one type")
        return kind

    def select(self, node: Select, bound: dict[str, TypeName], depth: int) -> TypeName:
        self.field(node, node.type, bound, depth)
        return node.type

    def has(self, node: Has, bound: dict[str, TypeName], depth: int) -> TypeName:
        self.tests_presence = True
        self.field(node, "", bound, depth)
        return "bool"

    def field(self, node: Select | Has, kind: TypeName, bound: dict[str, TypeName], depth: int) -> None:
        owner = self.check(node.operand, bound, depth)
        if not node.name:
            raise _malformed(node, "a field has a name")
        if owner.startswith("map("):
            if kind and not _agree(_element(owner), kind):
                raise _malformed(node, f"a value of `{owner}` is of its type")
        elif owner in SCALARS or not owner.isidentifier():
            raise _malformed(node, f"a field belongs to an entity or a record, not to `{owner}`")
        else:
            self.fields.add((owner, node.name, kind))

    def call(self, node: Call, bound: dict[str, TypeName], depth: int) -> TypeName:
        kinds = [self.value(argument, bound, depth) for argument in node.arguments]
        if not fits(node.function, node.arguments, node.type) or not _operands_fit(node.function, kinds, node.type):
            raise _malformed(node, f"`{node.function}` has operands and a result of its types")
        return node.type

    def list_of(self, node: ListOf, bound: dict[str, TypeName], depth: int) -> TypeName:
        if not node.type.startswith("list("):
            raise _malformed(node, "a list is a list")
        element = _element(node.type)
        if not all(_agree(self.value(part, bound, depth), element) for part in node.elements):
            raise _malformed(node, f"the elements of `{node.type}` are of its type")
        return node.type

    def map_of(self, node: MapOf, bound: dict[str, TypeName], depth: int) -> TypeName:
        if not node.type.startswith("map("):
            raise _malformed(node, "a map is a map")
        element = _element(node.type)
        for key, value in node.entries:
            if self.value(key, bound, depth) != "string" or not _agree(self.value(value, bound, depth), element):
                raise _malformed(node, f"the entries of `{node.type}` are of its types")
        return node.type

    def quantifier(self, node: Quantifier, bound: dict[str, TypeName], depth: int) -> TypeName:
        source = self.value(node.range, bound, depth)
        if not source.startswith(("list(", "map(")):
            raise _malformed(node, "a macro runs over a list or a map")
        if not node.variable.isidentifier() or node.variable in VARIABLES:
            raise _malformed(node, f"`{node.variable}` is a name for the variable of a macro")
        element = "string" if source.startswith("map(") else _element(source)
        inner = {**bound, node.variable: element}
        body = self.value(node.body, inner, depth)
        if node.condition is not None and (node.kind != "map" or self.value(node.condition, inner, depth) != "bool"):
            raise _malformed(node, "only `map` has a filter, which is a bool")
        results = {"filter": f"list({element})", "map": f"list({body})"}
        if (node.kind != "map" and body != "bool") or not _agree(results.get(node.kind, "bool"), node.type):
            raise _malformed(node, f"`{node.kind}` has a body and a result of its types")
        return node.type


_CHECKS: dict[type, Callable[[_Checker, Any, dict[str, TypeName], int], TypeName]] = {
    Constant: _Checker.constant,
    Variable: _Checker.variable,
    Hole: _Checker.hole,
    Select: _Checker.select,
    Has: _Checker.has,
    Call: _Checker.call,
    ListOf: _Checker.list_of,
    MapOf: _Checker.map_of,
    Quantifier: _Checker.quantifier,
}


def _operands_fit(function: str, kinds: list[TypeName], result: TypeName) -> bool:
    """Return True if the operands' types agree with each other; `fits` has checked them singly."""
    if function == "conditional":
        return _agree(kinds[1], result) and _agree(kinds[2], result)
    if function in ("equals", "not_equals"):
        return _agree(kinds[0], kinds[1]) and _is_comparable(kinds[0])
    if function == "in_list":
        return _agree(kinds[0], _element(kinds[1])) and _is_comparable(kinds[0])
    if function in ("index_list", "index_map"):
        return _agree(_element(kinds[0]), result)
    if function == "in_map":
        return kinds[0] == "string"
    return function != "add_list" or (_agree(kinds[0], result) and _agree(kinds[1], result))


def _is_comparable(kind: TypeName) -> bool:
    """Return True if values of this type hold no record."""
    while kind.startswith(("list(", "map(")):
        kind = _element(kind)
    return kind in SCALARS or kind == "dyn"


def _element(kind: TypeName) -> TypeName:
    """Return the type of a list's elements or of a map's values."""
    return kind[5:-1] if kind.startswith("list(") else kind[4:-1].partition(", ")[2]


def _agree(one: TypeName, other: TypeName) -> bool:
    """Return True if two types are equal, or one is the type of an empty list or map."""
    if one == other or "dyn" in (one, other):
        return True
    if "dyn" not in one and "dyn" not in other:
        return False
    same = one.partition("(")[0] == other.partition("(")[0]
    return same and one.endswith(")") and other.endswith(")") and _agree(_element(one), _element(other))


def _malformed(node: Expression, expected: str) -> ProfileError:
    return ProfileError(f"malformed expression: expected that {expected}", node.offset)
