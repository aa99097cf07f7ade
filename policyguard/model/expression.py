"""A checked condition: typed, immutable nodes of the CEL profile.

A macro is one node (`Quantifier`), not the comprehension that the checker expands it to. Offsets count code points in
the text of the condition and are ignored by equality: conditions with the same meaning are equal wherever they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from policyguard.values import Placed

TypeName: TypeAlias = str
"""`bool`, `int`, `string`, `bytes`, `timestamp`, `duration`, `list(T)`, `map(string, T)`, or a record's name."""


class Constant(Placed, frozen=True):
    """A literal. Timestamps and durations are integers of nanoseconds, with their own type."""

    value: bool | int | str | bytes
    type: TypeName
    offset: int = 0


class Variable(Placed, frozen=True):
    """`subject`, `resource`, `context`, `action`, `now`, or a name bound by a quantifier."""

    name: str
    type: TypeName
    offset: int = 0


class Select(Placed, frozen=True):
    """`operand.name`; an absent field is an error."""

    operand: Expression
    name: str
    type: TypeName
    offset: int = 0


class Has(Placed, frozen=True):
    """`has(operand.name)`: true if the field is present, an empty list included."""

    operand: Expression
    name: str
    offset: int = 0
    type: TypeName = "bool"


class Call(Placed, frozen=True):
    """An operator or function by its overload id (`less_equals_int64`, `logical_and`, `equals`, `glob_string_string`).

    A method's receiver is the first argument.
    """

    function: str
    arguments: tuple[Expression, ...]
    type: TypeName
    offset: int = 0


class ListOf(Placed, frozen=True):
    """`[a, b, c]`."""

    elements: tuple[Expression, ...]
    type: TypeName
    offset: int = 0


class MapOf(Placed, frozen=True):
    """`{"a": x}` with text keys."""

    entries: tuple[tuple[Expression, Expression], ...]
    type: TypeName
    offset: int = 0


class Quantifier(Placed, frozen=True):
    """A macro over a list or a map's keys, such as `range.all(variable, body)`.

    For `map`, `body` is the mapped expression and `condition` the optional filter. For `all`, `exists`, `exists_one`
    and `filter`, `body` is the predicate and `condition` is None.
    """

    kind: Literal["all", "exists", "exists_one", "filter", "map"]
    variable: str
    range: Expression
    body: Expression
    type: TypeName
    condition: Expression | None = None
    offset: int = 0


class Hole(Placed, frozen=True):
    """A placeholder for a constant in the shape of an expression: `constants[index]`, of this type."""

    index: int
    type: TypeName
    offset: int = 0


Expression: TypeAlias = Constant | Variable | Select | Has | Call | ListOf | MapOf | Quantifier | Hole


def parts(node: Expression) -> tuple[Expression, ...]:
    """Return the children of this node, in source order."""
    if isinstance(node, Call):
        return node.arguments
    if isinstance(node, Select | Has):
        return (node.operand,)
    if isinstance(node, ListOf):
        return node.elements
    if isinstance(node, MapOf):
        return tuple(part for entry in node.entries for part in entry)
    if isinstance(node, Quantifier):
        inner = (node.condition, node.body) if node.condition is not None else (node.body,)
        return (node.range, *inner)
    return ()


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield every node, parents before children."""
    yield expression
    for part in parts(expression):
        yield from walk(part)
