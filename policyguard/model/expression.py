"""A condition after the checker: typed nodes of the CEL profile, immutable, with one canonical spelling.

Macros stand as one node (`Quantifier`), not as the comprehension the checker expands them to. Offsets are code points
into the condition's text and take no part in equality: two conditions of one meaning are equal wherever they stand.
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
    """A macro over a list or a map's keys: `range.all(variable, body)` and its kin.

    `transform` is the second argument of `map` with a filter, else None. For `map`, `body` is the mapped expression and
    `condition` the optional filter; for `filter`, `exists`, `exists_one` and `all`, `body` is the predicate.
    """

    kind: Literal["all", "exists", "exists_one", "filter", "map"]
    variable: str
    range: Expression
    body: Expression
    type: TypeName
    condition: Expression | None = None
    offset: int = 0


class Hole(Placed, frozen=True):
    """Where a constant was before its expression became a shape: `constants[index]`, of this type."""

    index: int
    type: TypeName
    offset: int = 0


Expression: TypeAlias = Constant | Variable | Select | Has | Call | ListOf | MapOf | Quantifier | Hole


def parts(node: Expression) -> tuple[Expression, ...]:
    """Return the nodes directly below this one, in source order."""
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
    """Yield every node, a parent before its parts."""
    yield expression
    for part in parts(expression):
        yield from walk(part)
