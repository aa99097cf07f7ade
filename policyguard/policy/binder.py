"""Nodes to fields by table: each kind of document lists its fields, and every mistake is reported, not just the first.

A kind is a function from a node to a value, or to None with the error already reported. Tables of fields are data:
adding a field to the language is one line. This module knows YAML's shapes and nothing of policies.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from policyguard.errors import PolicyError
from policyguard.policy.nodes import Mapping, Node, Scalar, Sequence
from policyguard.policy.scalars import MAX_DIGITS, kind_of, said, shown
from policyguard.values import MAX_INTEGER, Instant, Span, parse_duration_s, parse_instant

T = TypeVar("T")


MAX_DURATION_S = 36_500 * 86_400
"""A hundred years: longer ones mean "for ever", which is said by leaving the field out."""

MOST_COMPARISONS = 200_000
"""So many names are compared to find near ones in one load, half a second's work; errors after that suggest none."""


class Problems:
    """The errors of one load, in the order in which they were found."""

    def __init__(self) -> None:
        self.errors: list[PolicyError] = []
        self.comparisons = 0

    def add(self, place: Node | Span, code: str, message: str, help: str | None = None) -> None:
        """Record one error at a node or span."""
        span = place if isinstance(place, Span) else place.span
        self.errors.append(PolicyError(message, span=span, code=code, help=help))

    def unknown(
        self, place: Node | Span, code: str, what: str, found: str, known: Iterable[str], *, where: str = ""
    ) -> None:
        """Record that `found` is none of the `known` names, nearest first and named as a help."""
        if self.comparisons > MOST_COMPARISONS:
            self.add(place, code, f"unknown {what} `{shown(found)}`{where}")
            return
        names = sorted(set(known))
        self.comparisons += len(names)
        near = nearest(found, names)
        expected = "none is declared" if not names else f"expected {one_of(names, near)}"
        self.add(
            place,
            code,
            f"unknown {what} `{shown(found)}`{where}, {expected}",
            f"did you mean `{near}`?" if near else None,
        )


Kind: TypeAlias = Callable[[Node, Problems], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a table: what it is called, how it is read, and whether it must be there."""

    name: str
    kind: Kind
    required: bool = False


class Table(dict[str, Field]):
    """The fields that a map may have, by name, and what the map is called in errors ("a rule")."""

    def __init__(self, what: str, *fields: Field) -> None:
        super().__init__((field.name, field) for field in fields)
        self.what = what
        self.needed = tuple(field.name for field in fields if field.required)


def nearest(found: str, names: Iterable[str]) -> str | None:
    """Return the known name that `found` most likely meant, if one is near enough."""
    matches = difflib.get_close_matches(found[:200], list(names), n=1, cutoff=0.6)
    if matches:
        return matches[0]
    folded = found.casefold()
    return next((name for name in names if name.casefold() == folded), None)


def one_of(names: list[str], near: str | None = None, most: int = 8) -> str:
    """Return "one of `a`, `b`" with the nearest name first and the tail cut."""
    ordered = [near, *(name for name in names if name != near)] if near in names else names
    listed = ", ".join(f"`{name}`" for name in ordered[:most])
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return listed if len(ordered) == 1 else f"one of {listed}{more}"


def fold(name: str) -> str:
    """Return the name as ids are compared: NFC, without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def bind(node: Node, table: Table, problems: Problems) -> dict[str, Any] | None:
    """Return the fields that are there and read well; None if this is no map at all.

    A field that is there but wrong is left out, its error reported.
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
    """Report that a node is not of the expected shape, unless the reader has refused it already."""
    if isinstance(node, Mapping):
        found = "a map"
    elif isinstance(node, Sequence):
        found = "a list"
    else:
        if node.style == "refused":
            return
        found = said(node)
    problems.add(node, "PG003", f"found {found}, expected {expected}")


def scalar_of(node: Node, expected: str, problems: Problems) -> Scalar | None:
    """Return the node if it is a scalar that the reader let pass, else None with the wrong shape reported."""
    if isinstance(node, Scalar):
        return None if node.style == "refused" else node
    wrong_shape(node, expected, problems)
    return None


def raw(node: Node, _: Problems) -> Node:
    """Kind: the node itself."""
    return node


def text(node: Node, problems: Problems) -> str | None:
    """Kind: text, not empty. A plain spelling that is no text by YAML's rules must be quoted."""
    scalar = scalar_of(node, "text", problems)
    if scalar is None:
        return None
    kind = kind_of(scalar)
    if kind == "text" and scalar.text.strip():
        return scalar.text
    if kind == "text":
        problems.add(node, "PG003", "found empty text, expected some")
    elif kind == "null":
        problems.add(node, "PG005", f"found {said(scalar)}, expected text")
    else:
        code = "PG405" if kind == "float" else "PG005"
        problems.add(node, code, f"found {said(scalar)}, expected text", "put it in quotes if text is meant")
    return None


def prose(node: Node, problems: Problems) -> str | None:
    """Kind: text for people, white space at its ends removed."""
    found = text(node, problems)
    return None if found is None else found.strip()


def boolean(node: Node, problems: Problems) -> bool | None:
    """Kind: `true` or `false`, nothing else."""
    scalar = scalar_of(node, "`true` or `false`", problems)
    if scalar is not None and kind_of(scalar) == "bool":
        return scalar.text == "true"
    if scalar is not None:
        problems.add(node, "PG005", f"found {said(scalar)}, expected `true` or `false`")
    return None


def integer(least: int = 0, most: int = MAX_INTEGER) -> Kind:
    """Kind: an integer within these bounds, written in decimal."""

    def read(node: Node, problems: Problems) -> int | None:
        expected = f"an integer from {least} to {most}"
        scalar = scalar_of(node, expected, problems)
        if scalar is None:
            return None
        kind = kind_of(scalar)
        if kind == "integer" and len(scalar.text) <= MAX_DIGITS and least <= int(scalar.text) <= most:
            return int(scalar.text)
        code = "PG405" if kind == "float" else "PG005"
        problems.add(node, code, f"found {said(scalar)}, expected {expected}")
        return None

    return read


def name(what: str, pattern: str, example: str) -> Kind:
    """Kind: text of this form."""
    compiled = re.compile(pattern, re.ASCII)

    def read(node: Node, problems: Problems) -> str | None:
        found = text(node, problems)
        if found is None or compiled.fullmatch(found):
            return found
        problems.add(node, "PG003", f"found `{shown(found)}`, expected {what} such as `{example}`")
        return None

    return read


def choice(what: str, names: Iterable[str]) -> Kind:
    """Kind: one of a closed list of texts."""
    known = tuple(names)

    def read(node: Node, problems: Problems) -> str | None:
        found = text(node, problems)
        if found is None or found in known:
            return found
        problems.unknown(node, "PG004", what, found, known)
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
        problems.add(node, code, str(problem) if fit else f"found {said(scalar)}, expected {expected}")
        return None


def listing(kind: Kind, *, least: int = 1, what: str = "a list") -> Kind:
    """Kind: a list of at least so many items of one kind; the items that are right come back as `(value, node)`."""

    def read(node: Node, problems: Problems) -> list[tuple[Any, Node]] | None:
        if not isinstance(node, Sequence):
            wrong_shape(node, what, problems)
            return None
        # INVARIANT I23: an empty list is an error; it never means everybody.
        if len(node.items) < least:
            found_ = "an empty list" if not node.items else "a list of one"
            problems.add(node, "PG003", f"found {found_}, expected at least {least} item{'s' if least > 1 else ''}")
            return None
        found = [(kind(item, problems), item) for item in node.items]
        return [pair for pair in found if pair[0] is not None]

    return read


def values(pairs: Iterable[tuple[T, Node]] | None) -> tuple[T, ...]:
    """Return the values of a list without their nodes."""
    return tuple(value for value, _ in pairs or ())


def distinct(pairs: Iterable[tuple[str, Node]] | None, what: str, problems: Problems) -> tuple[str, ...]:
    """Return the texts of a list, each once; a second one is an error."""
    seen: dict[str, Node] = {}
    for value, node in pairs or ():
        if value in seen:
            problems.add(node, "PG006", f"found the {what} `{shown(value)}` twice in one list")
        seen.setdefault(value, node)
    return tuple(seen)


def table_of(key: Kind, kind: Kind, what: str) -> Kind:
    """Kind: a map from names to things of one kind, as a list of `(name, key node, value)`."""

    def read(node: Node, problems: Problems) -> list[tuple[str, Scalar, Any]] | None:
        if not isinstance(node, Mapping):
            wrong_shape(node, what, problems)
            return None
        found = [(key(name, problems), name, kind(item, problems)) for name, item in node.entries]
        return [(name, node, value) for name, node, value in found if name is not None and value is not None]

    return read


def nested(table: Table) -> Kind:
    """Kind: a map with the fields of this table, as `(fields, node)`."""

    def read(node: Node, problems: Problems) -> tuple[dict[str, Any], Node] | None:
        fields = bind(node, table, problems)
        return None if fields is None else (fields, node)

    return read


def claim(name_: str, place: Node | Span, taken: dict[str, tuple[str, Span]], what: str, problems: Problems) -> bool:
    """Take an id; False, with the error reported, if it is taken already (also after case and NFC folding)."""
    span = place if isinstance(place, Span) else place.span
    first = taken.setdefault(fold(name_), (name_, span))
    if first[1] is span:
        return True
    like = "" if first[0] == name_ else f" (reads like `{shown(first[0])}`)"
    problems.add(span, "PG006", f"duplicate {what} `{shown(name_)}`{like}, first at {first[1]}")
    return False
