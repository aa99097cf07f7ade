"""Reads the `kind: Schema` document: entity types, records, and attributes with type, unit and assurance."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Mapping as MappingOf
from typing import Any

from policyguard.conditions.former_names import present_schema
from policyguard.model.facts import Assurance
from policyguard.model.policy import Attribute, EntityType, Schema, ValueType
from policyguard.patterns.overlap import pattern_problem
from policyguard.policy.binder import (
    Field,
    Table,
    boolean,
    choice,
    distinct,
    duration,
    listing,
    name,
    nested,
    prose,
    scalar_of,
    table_of,
    text,
)
from policyguard.policy.nodes import Node, Scalar
from policyguard.policy.problems import Problems
from policyguard.policy.scalars import described, kind_of
from policyguard.text import quoted

ASSURANCES = {assurance.word: assurance for assurance in Assurance}

_NAME = r"[a-z][a-z0-9_]{0,62}"
_VERB = r"[a-z][a-z0-9_-]{0,62}"
_SIMPLE = ("bool", "int", "string", "timestamp", "duration")
_CEL_RESERVED = (
    "as break const continue else false for function if import in let loop namespace null package return true var"
    " void while"
)
"""Source: CEL specification, section Syntax."""
_RESERVED = frozenset((*_CEL_RESERVED.split(), "id", "type", "domain"))
"""Names that no attribute may have: CEL's reserved words and the built-in attributes."""

MAX_TYPE_DEPTH = 4


def id_pattern(node: Node, problems: Problems) -> str | None:
    """Kind: an id pattern such as `team/{team}/**`; `patterns/` has the grammar."""
    pattern = text(node, problems)
    problem = pattern_problem(pattern) if pattern is not None else None
    if pattern is None or problem is None:
        return pattern
    problems.add(node, "PG206", f"pattern {quoted(pattern)} {problem}, expected one such as `team/{{team}}/**`")
    return None


def _sensitive(node: Node, problems: Problems) -> bool | str | None:
    """Kind: `true`, `false`, or `trace` (shown only to the roles listed under `trace`)."""
    scalar = scalar_of(node, "`true`, `false` or `trace`", problems)
    if scalar is None:
        return None
    if scalar.text == "trace":
        return scalar.text
    if kind_of(scalar) == "bool":
        return scalar.text == "true"
    problems.add(node, "PG005", f"found {described(scalar)}, expected `true`, `false` or `trace`")
    return None


_ATTRIBUTE = Table(
    "an attribute",
    Field("type", text, required=True),
    Field("optional", boolean),
    Field("unit", name("a unit", r"[A-Za-z%][A-Za-z0-9_/%.-]{0,31}", "gpu")),
    Field("enum", listing(text)),
    Field("assurance", choice("assurance", ASSURANCES)),
    Field("maxAge", duration),
    Field("sensitive", _sensitive),
    Field("description", prose),
)
_TYPE_NAME = name("a type name", _NAME, "checkpoint")
_ATTRIBUTES = table_of(name("an attribute name", _NAME, "image_digest"), nested(_ATTRIBUTE), "a map of attributes")
_SUBJECT = Table("a subject type", Field("attributes", _ATTRIBUTES), Field("description", prose))
_RECORD = Table("a record", Field("attributes", _ATTRIBUTES, required=True), Field("description", prose))
_CONTEXT = Table("the context", Field("attributes", _ATTRIBUTES))
_ACTION = name("an action", rf"(?:{_NAME}:)?{_VERB}", "submit` or `checkpoint:load")
_RESOURCE = Table(
    "a resource type",
    Field("id", id_pattern),
    Field("actions", listing(_ACTION), required=True),
    Field("attributes", _ATTRIBUTES),
    Field("description", prose),
)

FIELDS = (
    Field("subjects", table_of(_TYPE_NAME, nested(_SUBJECT), "a map of subject types"), required=True),
    Field("resources", table_of(_TYPE_NAME, nested(_RESOURCE), "a map of resource types"), required=True),
    Field("context", nested(_CONTEXT)),
    Field("records", table_of(_TYPE_NAME, nested(_RECORD), "a map of records")),
)


def bind_schema(fields: dict[str, Any], node: Node, problems: Problems) -> Schema:
    """Build the schema from its fields; report invalid declarations and leave them out.

    Args:
        fields: the valid fields of the document.
        node: the document.
        problems: where errors are added.
    """
    records_ = fields.get("records", [])
    names = {name for name, _, _ in records_}
    records = {}
    for name_, key, (body, _) in records_:
        if name_ in _SIMPLE or name_ in ("list", "map", "subject", "resource", "context"):
            problems.add(key, "PG510", f"record `{name_}` has the name of a built-in type, expected another")
        records[name_] = _attributes(body.get("attributes"), names, problems, record=True)
    _check_recursive_records(records, problems)
    subjects = {
        name_: _subject(name_, key, body, names, problems) for name_, key, (body, _) in fields.get("subjects", [])
    }
    resources = {
        name_: _resource(name_, key, body, names, problems) for name_, key, (body, _) in fields.get("resources", [])
    }
    _check_not_empty(fields, subjects, resources, node, problems)
    _check_action_types(fields, resources, problems)
    _check_shared_attributes(subjects, problems)
    context = fields.get("context", ({}, None))[0].get("attributes")
    schema = Schema(
        subjects=subjects,
        resources=resources,
        context=_attributes(context, names, problems),
        records=records,
        span=node.span,
    )
    try:
        present_schema(schema)
    except ValueError as problem:
        problems.add(node, "PG006", str(problem))
    return schema


def _subject(name_: str, key: Node, body: dict[str, Any], records: set[str], problems: Problems) -> EntityType:
    if name_ == "role":
        problems.add(key, "PG510", "subject type `role` lets a subject be named like a role, expected another name")
    return EntityType(
        name=name_,
        attributes=_attributes(body.get("attributes"), records, problems),
        description=body.get("description"),
        span=key.span,
    )


def _resource(name_: str, key: Node, body: dict[str, Any], records: set[str], problems: Problems) -> EntityType:
    full = [(action if ":" in action else f"{name_}:{action}", node) for action, node in body.get("actions", [])]
    return EntityType(
        name=name_,
        attributes=_attributes(body.get("attributes"), records, problems),
        actions=distinct(full, "action", problems),
        id_pattern=body.get("id"),
        description=body.get("description"),
        span=key.span,
    )


def _attributes(
    declared: list[tuple[str, Scalar, Any]] | None, records: set[str], problems: Problems, *, record: bool = False
) -> dict[str, Attribute]:
    attributes = {}
    for name_, key, (body, node) in declared or ():
        if name_ in _RESERVED:
            problems.add(key, "PG003", f"attribute `{name_}` has a name that conditions reserve, expected another")
            continue
        attribute = _attribute(name_, key, body, node, records, problems)
        if record:
            for field in ("assurance", "maxAge"):
                if field in body:
                    expected = "expected it at the attribute that holds the record"
                    problems.add(node.key(field), "PG003", f"found `{field}` inside a record, {expected}")
        if attribute is not None:
            attributes[name_] = attribute
    return attributes


def _attribute(
    name_: str, key: Scalar, body: dict[str, Any], node: Any, records: set[str], problems: Problems
) -> Attribute | None:
    if "type" not in body:
        return None
    try:
        type_ = parse_type(body["type"], records)
    except ValueError as problem:
        type_node = node.get("type")
        details = problem.args
        if len(details) > 1:
            problems.unknown(
                type_node, "PG104", "type", details[1], (*_SIMPLE, "list(string)", "map(string, int)", *records)
            )
        else:
            problems.add(type_node, "PG104", details[0])
        return None
    if "enum" in body and str(type_) != "string":
        problems.add(node.key("enum"), "PG104", f"found `enum` on type `{type_}`, expected `string`")
    if "unit" in body and str(type_) not in ("int", "list(int)", "map(string, int)"):
        problems.add(node.key("unit"), "PG104", f"found `unit` on type `{type_}`, expected `int`")
    return Attribute(
        name=name_,
        type=type_,
        optional=body.get("optional", False),
        unit=body.get("unit"),
        enum=distinct(body.get("enum"), "text", problems),
        assurance=ASSURANCES[body.get("assurance", "claimed")],
        max_age_s=body.get("maxAge"),
        sensitive=body.get("sensitive") is True,
        audience="trace" if body.get("sensitive") == "trace" else None,
        description=body.get("description"),
        span=key.span,
    )


_LIST = re.compile(r"list\((.*)\)", re.ASCII)
_MAP = re.compile(r"map\(\s*([^,()]*?)\s*,(.*)\)", re.ASCII)


def parse_type(name_: str, records: Iterable[str], depth: int = MAX_TYPE_DEPTH) -> ValueType:
    """Parse the name of a type.

    type = "bool" / "int" / "string" / "timestamp" / "duration" / "list(" type ")" / "map(string," type ")" / record

    Args:
        name_: the name, such as `list(string)`.
        records: the names of the declared records.
        depth: how many levels of lists and maps may still nest.

    Raises:
        ValueError: not a type; the second argument, if there is one, is the unknown name.
    """
    name_ = name_.strip()
    if depth <= 0:
        raise ValueError(f"type is nested deeper than {MAX_TYPE_DEPTH} levels")
    if name_ in _SIMPLE:
        return ValueType(kind=name_)  # type: ignore[arg-type]
    if match := _LIST.fullmatch(name_):
        return ValueType(kind="list", element=parse_type(match[1], records, depth - 1))
    if match := _MAP.fullmatch(name_):
        if match[1] != "string":
            raise ValueError(f"found map keys of type {quoted(match[1])}, expected `string`")
        return ValueType(kind="map", element=parse_type(match[2], records, depth - 1))
    if name_ in records:
        return ValueType(kind="record", record=name_)
    if name_ in ("float", "double", "number", "null", "dyn", "any"):
        raise ValueError(f"type `{name_}` is none that facts have, expected `int` in a smaller unit, or `string`")
    raise ValueError("unknown type", name_)


def _check_recursive_records(records: MappingOf[str, MappingOf[str, Attribute]], problems: Problems) -> None:
    """Report records that contain themselves, directly or through other records."""
    inside = {
        name_: {leaf for attribute in attributes.values() if (leaf := _record_in(attribute.type))}
        for name_, attributes in records.items()
    }
    for name_, attributes in records.items():
        reached: set[str] = set()
        waiting = list(inside[name_])
        while waiting:
            here = waiting.pop()
            if here not in reached:
                reached.add(here)
                waiting += inside.get(here, ())
        if name_ in reached:
            span = next(iter(attributes.values())).span
            problems.add(span, "PG104", f"record `{name_}` contains itself, expected no recursion")


def _record_in(type_: ValueType) -> str | None:
    while type_.element is not None:
        type_ = type_.element
    return type_.record


def _check_not_empty(
    fields: dict[str, Any],
    subjects: dict[str, EntityType],
    resources: dict[str, EntityType],
    node: Node,
    problems: Problems,
) -> None:
    for what, types in (("subjects", subjects), ("resources", resources)):
        if fields.get(what) == [] and not types:
            problems.add(node, "PG003", f"`{what}` is empty, expected at least one type")


def _check_action_types(fields: dict[str, Any], resources: dict[str, EntityType], problems: Problems) -> None:
    """Report actions (`type:verb`) whose type is not declared."""
    for _, _, (body, _) in fields.get("resources", []):
        for action, node in body.get("actions", []):
            prefix = action.partition(":")[0] if ":" in action else None
            if prefix is not None and prefix not in resources:
                problems.unknown(node, "PG102", "resource type", prefix, resources)


def _check_shared_attributes(subjects: dict[str, EntityType], problems: Problems) -> None:
    """Report attributes whose type differs between subject types, as conditions see one `subject`."""
    first: dict[str, tuple[str, Attribute]] = {}
    for subject in subjects.values():
        for attribute in subject.attributes.values():
            other, earlier = first.setdefault(attribute.name, (subject.name, attribute))
            if earlier.type != attribute.type:
                problems.add(
                    attribute.span,
                    "PG104",
                    f"attribute `{attribute.name}` has type `{attribute.type}`, "
                    f"expected `{earlier.type}` as in subject type `{other}`",
                )
