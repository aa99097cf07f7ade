"""The attributes that conditions can read from entities and records, and the names they cannot use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from policyguard.conditions.profile import ENTITIES, REFUSED_TYPES
from policyguard.errors import PolicyError
from policyguard.model.expression import TypeName
from policyguard.model.policy import Attribute, EntityType, Schema, ValueType

Members: TypeAlias = Mapping[TypeName, Mapping[str, Attribute]]
"""Type name (`resource`, `subject`, `context`, or a record's name) to its attributes."""

_TEXT = ValueType(kind="string")
_BUILT_IN = {"subject": ("id", "type", "name"), "resource": ("id", "type", "domain"), "context": ()}

_TYPES = ("bool", "int", "string", "timestamp", "duration", "list", "map")
RESERVED = frozenset({*_TYPES, *ENTITIES, *REFUSED_TYPES})
"""Names that no record may have."""

_NOT_A_NAME = frozenset({"in", "true", "false", "null"})


def members(schema: Schema, resource_type: str, subject_type: str | None) -> Members:
    """Return the attributes that conditions may read, including the built-in ones (`id`, `type`, `domain`).

    Args:
        schema: the schema.
        resource_type: the type of `resource`.
        subject_type: the type of `subject`; None merges all types.

    Raises:
        KeyError: the schema has no such type.
    """
    subjects = list(schema.subjects.values()) if subject_type is None else [schema.subjects[subject_type]]
    return {
        **schema.records,
        "resource": _with_built_in("resource", schema.resources[resource_type].attributes),
        "subject": _with_built_in("subject", merged(subjects)),
        "context": schema.context,
    }


def merged(types: list[EntityType]) -> dict[str, Attribute]:
    """Merge the attributes of several types; the first declaration of a name wins."""
    attributes: dict[str, Attribute] = {}
    for entity in types:
        for name, attribute in entity.attributes.items():
            attributes.setdefault(name, attribute)
    return attributes


def _with_built_in(entity: str, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {**{name: Attribute(name=name, type=_TEXT) for name in _BUILT_IN[entity]}, **attributes}


def schema_errors(schema: Schema) -> list[PolicyError]:
    """List the declarations of a schema that conditions cannot use."""
    return [*_attribute_errors(schema), *_record_errors(schema), *_merge_errors(schema)]


def _attribute_errors(schema: Schema) -> Iterator[PolicyError]:
    for path, attributes in _groups(schema):
        entity = path.partition(" ")[0]
        for name, attribute in attributes.items():
            if name in _NOT_A_NAME:
                yield PolicyError(f"{path}: `{name}` cannot be named in a condition", span=attribute.span, code="PG103")
            if name in _BUILT_IN.get(entity, ()) and attribute.type.kind != "string":
                message = f"{path}: `{name}` is {attribute.type}, expected string; every {entity} has a text `{name}`"
                yield PolicyError(message, span=attribute.span, code="PG104")
            element = attribute.type.element
            if element is not None and element.kind in ("list", "map"):
                yield PolicyError(
                    f"{path}: `{name}` is {attribute.type}, expected no list or map directly inside another",
                    span=attribute.span,
                    code="PG104",
                    help="name the inner one as a field of a record",
                )
            yield from _unknown_records(schema, path, attribute)


def _unknown_records(schema: Schema, path: str, attribute: Attribute) -> Iterator[PolicyError]:
    inner = attribute.type
    while inner.element is not None:
        inner = inner.element
    if inner.record is not None and inner.record not in schema.records:
        message = f"{path}: `{attribute.name}` has the unknown type `{inner.record}`"
        yield PolicyError(message, span=attribute.span, code="PG104")


def _groups(schema: Schema) -> Iterator[tuple[str, Mapping[str, Attribute]]]:
    for name, entity in schema.subjects.items():
        yield f"subject {name}", entity.attributes
    for name, entity in schema.resources.items():
        yield f"resource {name}", entity.attributes
    yield "context", schema.context
    for name, fields in schema.records.items():
        yield f"record {name}", fields


def _record_errors(schema: Schema) -> Iterator[PolicyError]:
    for name in schema.records:
        if name in RESERVED or not name.isidentifier() or not name.isascii():
            yield PolicyError(f"a record cannot be called `{name}`", span=schema.span, code="PG104")


def _merge_errors(schema: Schema) -> Iterator[PolicyError]:
    first: dict[str, tuple[str, Attribute]] = {}
    for entity in schema.subjects.values():
        for name, attribute in entity.attributes.items():
            owner, earlier = first.setdefault(name, (entity.name, attribute))
            if earlier.type != attribute.type:
                yield PolicyError(
                    f"subject {entity.name}: `{name}` is {attribute.type}, but {earlier.type} on subject {owner}",
                    span=attribute.span,
                    code="PG104",
                    help="same-named attributes of subjects agree in type",
                )
