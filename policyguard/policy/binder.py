"""Binds YAML nodes to the fields of a table, and reports every mistake.

A *kind* is a function from a node to a value, or to None after it has reported the error. Tables of fields are data:
adding a field to the language is one line. This module knows the shapes of YAML and nothing about policies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from policyguard.policy.nodes import Mapping, Node, Scalar, Sequence
from policyguard.policy.problems import Problems
from policyguard.policy.scalars import MAX_DIGITS, described, kind_of
from policyguard.text import quoted
from policyguard.values import MAX_INTEGER, Instant, parse_duration_s, parse_instant

T = TypeVar("T")


MAX_DURATION_S = 36_500 * 86_400
"""A hundred years. For "for ever", leave the field out."""

Kind: TypeAlias = Callable[[Node, Problems], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a table: its name, its kind, and whether it is required."""

    name: str
    kind: Kind
    required: bool = False


class Table(dict[str, Field]):
    """The allowed fields of a map, by name; `what` names the map in errors ("a rule")."""

    def __init__(self, what: str, *fields: Field) -> None:
        super().__init__((field.name, field) for field in fields)
        self.what = what
        self.needed = tuple(field.name for field in fields if field.required)


def bind(node: Node, table: Table, problems: Problems) -> dict[str, Any] | None:
    """Read the fields of a map by its table; report unknown, missing and wrong ones.

    Args:
        node: the map.
        table: its fields.
        problems: where errors are added.

    Returns:
        The fields that are present and valid, by name; None if the node is not a map.
    """
    if not isinstance(node, Mapping):
        wrong_shape(node, f"{table.what} (a map)", problems)
        return None
    values: dict[str, Any] = {}
    for key, item in node.entries:
        field = table.get(key.text)
        if field is None:
            problems.unknown(key, "PG003", "field", key.text, table, where=f" in {table.what}")
        elif (value := field.kind(item, problems)) is not None:
            values[field.name] = value
    for name in table.needed:
        if name not in values and node.get(name) is None:
            problems.add(node, "PG003", f"`{name}` is missing, expected in {table.what}")
    return values


def wrong_shape(node: Node, expected: str, problems: Problems) -> None:
    """Report that a node has the wrong shape, unless the reader has already refused it.

    Args:
        node: the node in the policy file.
        expected: what was expected instead.
        problems: where errors are added.
    """
    if isinstance(node, Mapping):
        shape = "a map"
    elif isinstance(node, Sequence):
        shape = "a list"
    else:
        if node.style == "refused":
            return
        shape = described(node)
    problems.add(node, "PG003", f"found {shape}, expected {expected}")


def scalar_of(node: Node, expected: str, problems: Problems) -> Scalar | None:
    """Return the node if it is an accepted scalar; otherwise report it and return None.

    Args:
        node: the node in the policy file.
        expected: what was expected instead.
        problems: where errors are added.
    """
    if isinstance(node, Scalar):
        return None if node.style == "refused" else node
    wrong_shape(node, expected, problems)
    return None


def raw(node: Node, _: Problems) -> Node:
    """Kind: the node itself."""
    return node


def text(node: Node, problems: Problems) -> str | None:
    """Kind: text, not empty. A plain scalar that YAML reads as another type must be quoted."""
    scalar = scalar_of(node, "text", problems)
    if scalar is None:
        return None
    kind = kind_of(scalar)
    if kind == "text" and scalar.text.strip():
        return scalar.text
    if kind == "text":
        problems.add(node, "PG003", "found empty text, expected some")
    elif kind == "null":
        problems.add(node, "PG005", f"found {described(scalar)}, expected text")
    else:
        code = "PG405" if kind == "float" else "PG005"
        problems.add(node, code, f"found {described(scalar)}, expected text", "put it in quotes if text is meant")
    return None


def prose(node: Node, problems: Problems) -> str | None:
    """Kind: text for people, white space at its ends removed."""
    value = text(node, problems)
    return None if value is None else value.strip()


def boolean(node: Node, problems: Problems) -> bool | None:
    """Kind: `true` or `false`, nothing else."""
    scalar = scalar_of(node, "`true` or `false`", problems)
    if scalar is not None and kind_of(scalar) == "bool":
        return scalar.text == "true"
    if scalar is not None:
        problems.add(node, "PG005", f"found {described(scalar)}, expected `true` or `false`")
    return None


def integer(minimum: int = 0, maximum: int = MAX_INTEGER) -> Kind:
    """Kind: an integer within these bounds, written in decimal."""

    def read(node: Node, problems: Problems) -> int | None:
        expected = f"an integer from {minimum} to {maximum}"
        scalar = scalar_of(node, expected, problems)
        if scalar is None:
            return None
        kind = kind_of(scalar)
        if kind == "integer" and len(scalar.text) <= MAX_DIGITS and minimum <= int(scalar.text) <= maximum:
            return int(scalar.text)
        code = "PG405" if kind == "float" else "PG005"
        problems.add(node, code, f"found {described(scalar)}, expected {expected}")
        return None

    return read


def name(what: str, pattern: str, example: str) -> Kind:
    """Kind: text that matches a pattern.

    Args:
        what: what the text is, for the message ("a name").
        pattern: a regular expression that must match the whole text.
        example: a valid text, for the message.
    """
    compiled = re.compile(pattern, re.ASCII)

    def read(node: Node, problems: Problems) -> str | None:
        value = text(node, problems)
        if value is None or compiled.fullmatch(value):
            return value
        problems.add(node, "PG003", f"found {quoted(value)}, expected {what} such as `{example}`")
        return None

    return read


def choice(what: str, names: Iterable[str]) -> Kind:
    """Kind: one of a closed list of texts."""
    known = tuple(names)

    def read(node: Node, problems: Problems) -> str | None:
        value = text(node, problems)
        if value is None or value in known:
            return value
        problems.unknown(node, "PG004", what, value, known)
        return None

    return read


def instant(node: Node, problems: Problems) -> Instant | None:
    """Kind: an RFC 3339 time with a zone, plain or quoted."""
    return _parsed(node, problems, parse_instant, "an RFC 3339 time with a zone", "PG404")


def duration(node: Node, problems: Problems) -> int | None:
    """Kind: a duration such as `15m`, in whole seconds, at least one and at most a hundred years."""
    seconds = _parsed(node, problems, parse_duration_s, "a duration such as `15m`", "PG005")
    if seconds is None or 0 < seconds <= MAX_DURATION_S:
        return seconds
    problems.add(node, "PG003", f"found a duration of {seconds} seconds, expected at least `1s` and at most `36500d`")
    return None


def _parsed(node: Node, problems: Problems, parser: Callable[[str], int], expected: str, code: str) -> int | None:
    scalar = scalar_of(node, expected, problems)
    if scalar is None:
        return None
    try:
        return parser(scalar.text)
    except ValueError as problem:
        fit = 0 < len(scalar.text) <= 60 and scalar.text.isprintable()
        problems.add(node, code, str(problem) if fit else f"found {described(scalar)}, expected {expected}")
        return None


def listing(kind: Kind, *, minimum: int = 1, what: str = "a list") -> Kind:
    """Kind: a list of items of one kind, as `(value, node)` pairs; invalid items are reported and left out.

    Args:
        kind: the kind of the items.
        minimum: the smallest number of items.
        what: what the list is, for the message.
    """

    def read(node: Node, problems: Problems) -> list[tuple[Any, Node]] | None:
        if not isinstance(node, Sequence):
            wrong_shape(node, what, problems)
            return None
        # INVARIANT I6: an empty list is an error; it never means everybody.
        if len(node.items) < minimum:
            size = "an empty list" if not node.items else "a list of one"
            problems.add(node, "PG003", f"found {size}, expected at least {minimum} item{'s' if minimum > 1 else ''}")
            return None
        pairs = [(kind(item, problems), item) for item in node.items]
        return [pair for pair in pairs if pair[0] is not None]

    return read


def values(pairs: Iterable[tuple[T, Node]] | None) -> tuple[T, ...]:
    """Return the values of a list without their nodes."""
    return tuple(value for value, _ in pairs or ())


def distinct(pairs: Iterable[tuple[str, Node]] | None, what: str, problems: Problems) -> tuple[str, ...]:
    """Return the texts of a list and report duplicates.

    Args:
        pairs: texts with their nodes.
        what: what the texts are, for the message ("role").
        problems: where errors are added.
    """
    seen: dict[str, Node] = {}
    for value, node in pairs or ():
        if value in seen:
            problems.add(node, "PG006", f"found the {what} {quoted(value)} twice in one list")
        seen.setdefault(value, node)
    return tuple(seen)


def table_of(key: Kind, kind: Kind, what: str) -> Kind:
    """Kind: a map from names to values of one kind, as a list of `(name, key node, value)`.

    Args:
        key: the kind of the names.
        kind: the kind of the values.
        what: what the map is, for the message.
    """

    def read(node: Node, problems: Problems) -> list[tuple[str, Scalar, Any]] | None:
        if not isinstance(node, Mapping):
            wrong_shape(node, what, problems)
            return None
        entries = [(key(name, problems), name, kind(item, problems)) for name, item in node.entries]
        return [(name, node, value) for name, node, value in entries if name is not None and value is not None]

    return read


def nested(table: Table) -> Kind:
    """Kind: a map with the fields of a table, as `(fields, node)`."""

    def read(node: Node, problems: Problems) -> tuple[dict[str, Any], Node] | None:
        fields = bind(node, table, problems)
        return None if fields is None else (fields, node)

    return read
