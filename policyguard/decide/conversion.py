"""Converts values in requests to the form that conditions compute with, or says why they do not fit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from policyguard.conditions.times import parse_span
from policyguard.model.policy import Attribute, Schema, ValueType
from policyguard.text import printable, quoted_list
from policyguard.values import FrozenMap, Instant, name_of, parse_instant

Converter = Callable[[Any], Any]

_LONGEST = 320
"""The maximum number of characters of a path or message."""


class Malformed(Exception):
    """The request does not fit the schema; `path` names the part. The engine catches it."""

    def __init__(self, path: str, message: str) -> None:
        # Paths and values are the requester's text; they must not be able to imitate another line.
        self.path = printable(path, _LONGEST)
        self.message = printable(message, _LONGEST)
        super().__init__(f"{self.path}: {self.message}")


def converter(kind: ValueType, schema: Schema) -> tuple[type, Converter | None]:
    """Return the Python type of a value in a request, and the function that converts it for conditions."""
    match kind.kind:
        case "bool":
            return bool, None
        case "int":
            return int, None
        case "string":
            return str, None
        case "timestamp":
            return str, _timestamp
        case "duration":
            return str, _duration
        case "list":
            return tuple, _items(kind.element, schema)
        case "map":
            return FrozenMap, _entries(kind.element, schema)
        case "record":
            return FrozenMap, _fields(schema.records[kind.record or ""], schema)


def never(value: Any) -> bool:  # noqa: ARG001
    """Return False for every value, so that each one is converted."""
    return False


def plain_test(kind: ValueType, schema: Schema) -> Callable[[Any], bool] | None:
    """Return a quick test for values that need no conversion; None if there is none.

    A value that fails it is converted, or refused with a reason.
    """
    if kind.kind == "record":
        fields = schema.records[kind.record or ""]
        return _plain_record({name: _scalar(field.type) for name, field in fields.items() if not field.enum})
    element = kind.element
    if element is None:
        return None
    scalar = _scalar(element)
    if scalar is not None:
        return _plain_map(scalar) if kind.kind == "map" else _plain_list(scalar)
    inner = plain_test(element, schema) if kind.kind == "list" and element.kind == "record" else None
    if inner is None:
        return None
    return lambda items: all(type(item) is FrozenMap and inner(item) for item in items) if items else True


_SCALARS: dict[str, type] = {"bool": bool, "int": int, "string": str}


def _scalar(kind: ValueType) -> type | None:
    return _SCALARS.get(kind.kind)


def _plain_record(kinds: Mapping[str, type | None]) -> Callable[[Any], bool]:
    def fits(members: Mapping[str, Any]) -> bool:
        for name, value in members.items():
            if kinds.get(name) is not type(value):
                return False
        return True

    return fits


def _plain_map(kind: type) -> Callable[[Any], bool]:
    def fits(members: Mapping[str, Any]) -> bool:
        for value in members.values():
            if type(value) is not kind:
                return False
        return True

    return fits


def _plain_list(kind: type) -> Callable[[Any], bool]:
    def fits(items: tuple[Any, ...]) -> bool:
        for value in items:
            if type(value) is not kind:
                return False
        return True

    return fits


def _timestamp(text: str) -> Instant:
    try:
        return parse_instant(text)
    except ValueError as problem:
        raise Malformed("", str(problem)) from None


def _duration(text: str) -> int:
    try:
        return parse_span(text)
    except ValueError as problem:
        raise Malformed("", str(problem)) from None


def _one(element: ValueType, schema: Schema) -> Converter:
    kind, convert = converter(element, schema)

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise Malformed("", f"found {name_of(value)}, expected {article(str(element))}")
        return value if convert is None else convert(value)

    return check


def _items(element: ValueType | None, schema: Schema) -> Converter:
    if element is None:
        raise ValueError("a list type names its element")
    check = _one(element, schema)

    def convert(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_at(f"[{i}]", check, item) for i, item in enumerate(items))

    return convert


def _entries(element: ValueType | None, schema: Schema) -> Converter:
    if element is None:
        raise ValueError("a map type names the type of its values")
    check = _one(element, schema)

    def convert(members: Mapping[str, Any]) -> dict[str, Any]:
        return {key: _at(f".{key}", check, item) for key, item in members.items()}

    return convert


def _fields(attributes: Mapping[str, Attribute], schema: Schema) -> Converter:
    checks: dict[str, Converter] = {}
    enums = {name: frozenset(a.enum) for name, a in attributes.items() if a.enum}

    def convert(members: Mapping[str, Any]) -> dict[str, Any]:
        if not checks:
            # Filled at first use, so that a record may refer to itself.
            checks.update({name: _one(attribute.type, schema) for name, attribute in attributes.items()})
        fields: dict[str, Any] = {}
        for key, item in members.items():
            check = checks.get(key)
            if check is None:
                raise Malformed(
                    f".{key}", f"unknown attribute `{key}`, expected one of {quoted_list(sorted(attributes))}"
                )
            fields[key] = _at(f".{key}", check, item)
            if key in enums and item not in enums[key]:
                raise Malformed(f".{key}", f"found `{item}`, expected one of {quoted_list(sorted(enums[key]))}")
        return fields

    return convert


def _at(step: str, check: Converter, item: Any) -> Any:
    try:
        return check(item)
    except Malformed as problem:
        raise Malformed(step + problem.path, problem.message) from None


_ARTICLES = {
    "int": "an integer",
    "string": "text",
    "bool": "a bool",
    "timestamp": "an RFC 3339 time as text",
    "duration": "a duration as text",
}


def article(type_name: str) -> str:
    """Return the name of a type with its article: `an integer`, `text`."""
    return _ARTICLES.get(type_name, type_name)
