"""Removes the parts of a fact that only the roles of `trace` may see.

An attribute with `sensitive: true` is hidden completely, even if only a field of a record inside it has the mark
(INVARIANT I14). A field with `sensitive: trace` is removed alone, so that the rest of the record can be shown and
signed. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from policyguard.model.expression import Expression, Has, Select, walk
from policyguard.model.policy import Schema, ValueType
from policyguard.values import FrozenMap, Value

Redact = Callable[[Value], Value]
"""Returns a value without its parts for `trace`; a value of another shape than the schema's is withheld whole."""


def redactor(kind: ValueType, schema: Schema) -> Redact | None:
    """Build the function that removes the `trace` fields from values of this type; None if there are none."""
    if kind.element is not None:
        inner = redactor(kind.element, schema)
        return None if inner is None else (_items(inner) if kind.kind == "list" else _entries(inner))
    fields: dict[str, Redact] = {}
    for name, attribute in (schema.records[kind.record] if kind.record else {}).items():
        redact = withheld if attribute.audience is not None else redactor(attribute.type, schema)
        if redact is not None:
            fields[name] = redact
    return _fields(fields) if fields else None


def withheld(value: Value) -> Value:
    """Return the placeholder for a hidden value; for a list or map it contains the number of items.

    The placeholder has no digest: where few values are likely, a digest is the value.
    """
    # INVARIANT I14: what is for `trace` leaves its count and nothing else.
    return FrozenMap({"hidden": len(value) if isinstance(value, tuple | Mapping) else True})


def traced_names(kind: ValueType, schema: Schema) -> frozenset[str]:
    """Collect the names of `trace` fields in every record inside this type."""
    return frozenset(_names(kind, schema))


def reads_traced(expression: Expression, names: frozenset[str]) -> bool:
    """Return True if an expression may read one of these fields, so that its result could reveal it.

    The profile compares no records, so a field is read only where it is named.
    """
    return any(isinstance(node, Select | Has) and node.name in names for node in walk(expression))


def _items(inner: Redact) -> Redact:
    return lambda value: tuple(map(inner, value)) if isinstance(value, tuple) else withheld(value)


def _entries(inner: Redact) -> Redact:
    return lambda value: (
        FrozenMap({key: inner(item) for key, item in value.items()}) if isinstance(value, Mapping) else withheld(value)
    )


def _fields(fields: Mapping[str, Redact]) -> Redact:
    def redact(value: Value) -> Value:
        if not isinstance(value, Mapping):
            return withheld(value)
        return FrozenMap({name: fields[name](item) if name in fields else item for name, item in value.items()})

    return redact


def _names(kind: ValueType, schema: Schema) -> Iterator[str]:
    while kind.element is not None:
        kind = kind.element
    for name, attribute in (schema.records[kind.record] if kind.record else {}).items():
        if attribute.audience is not None:
            yield name
        else:
            yield from _names(attribute.type, schema)


__all__ = ["Redact", "reads_traced", "redactor", "traced_names", "withheld"]
