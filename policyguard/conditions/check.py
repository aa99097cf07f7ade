"""Type-checks conditions against a schema. The only module that imports the CEL checker; used only at load time.

The checker gets message types built from the schema, so that `has()` keeps its meaning and fields of records inside
lists are checked. Conditions that differ only in literals are checked once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, duration_pb2, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool

from policyguard.conditions.ast import folded
from policyguard.conditions.checker_messages import Names, translate_report
from policyguard.conditions.decoding import decode_checked
from policyguard.conditions.entities import members, merged, schema_errors
from policyguard.conditions.lexing import Tokens, rename_ip_in, tokens
from policyguard.conditions.literals import literal_errors
from policyguard.conditions.problems import ConditionError, ConditionErrors, ProfileError
from policyguard.conditions.templates import Template, template_of
from policyguard.errors import PolicyErrors
from policyguard.model.expression import Expression
from policyguard.model.policy import Attribute, Schema, ValueType

__all__ = ["Checker", "ConditionError", "ConditionErrors"]

MAX_TEXT = 10_000
"""Longer conditions are refused before they are parsed."""

_FUNCTIONS = {
    "glob": ("glob_string_string", 2),
    "under": ("under_string_string", 2),
    "ip.iN": ("ip_in_string_string", 2),
}


@dataclass(frozen=True, slots=True)
class _Scope:
    """The names that a condition may use, and a checker environment that declares them."""

    environment: cel.Env
    names: Names


class Checker:
    """Checks conditions against one schema, and reuses results for conditions of the same shape.

    >>> from policyguard.model.policy import Attribute, EntityType, Schema, ValueType
    >>> gpus = Attribute(name="gpus", type=ValueType(kind="int"))
    >>> schema = Schema(subjects={}, resources={"job": EntityType(name="job", attributes={"gpus": gpus})})
    >>> Checker(schema).check("resource.gpus <= 64", resource_type="job").type
    'bool'

    Raises:
        PolicyErrors: the schema has types that conditions cannot use, or subjects that disagree.
    """

    def __init__(self, schema: Schema) -> None:
        problems = schema_errors(schema)
        if problems:
            raise PolicyErrors(problems)
        self._schema = schema
        self._pool = _descriptor_pool(schema)
        self._scopes: dict[tuple[str, str | None], _Scope] = {}
        self._templates: dict[tuple[str, str | None, str], Template | None] = {}

    def check(self, text: str, *, resource_type: str, subject_type: str | None = None) -> Expression:
        """Check a condition and return its typed nodes.

        Args:
            text: the condition; offsets of nodes and errors count its code points.
            resource_type: the type of `resource`.
            subject_type: the type of `subject`; None allows the attributes of all types.

        Raises:
            ConditionErrors: all mistakes that one pass of the checker reports.
            KeyError: the schema has no such type.
        """
        scope = self._scope(resource_type, subject_type)
        if len(text) > MAX_TEXT:
            message = f"the condition is {len(text)} characters long, expected at most {MAX_TEXT}"
            raise ConditionErrors([ConditionError(0, message, code="PG010")])
        split = tokens(text)
        expression = self._checked(text, split, (resource_type, subject_type), scope)
        problems = literal_errors(expression, scope.names.attributes)
        if expression.type != "bool":
            kind = scope.names.describe(expression.type)
            problems.append(ConditionError(0, f"the condition is {kind}, expected a bool", code="PG106"))
        if problems:
            raise ConditionErrors(problems)
        return expression

    def _checked(self, text: str, split: Tokens | None, key: tuple[str, str | None], scope: _Scope) -> Expression:
        if split is None:
            return folded(_compiled(text, scope))
        shape_key = (*key, split.shape)
        template = self._templates.get(shape_key)
        if template is not None:
            filled = template.filled(split)
            if filled is not None:
                return folded(filled)
        expression = _compiled(text, scope)
        if shape_key not in self._templates:
            self._templates[shape_key] = template_of(expression, split)
        return folded(expression)

    def _scope(self, resource_type: str, subject_type: str | None) -> _Scope:
        scope = self._scopes.get((resource_type, subject_type))
        if scope is None:
            scope = self._scopes[resource_type, subject_type] = self._new_scope(resource_type, subject_type)
        return scope

    def _new_scope(self, resource_type: str, subject_type: str | None) -> _Scope:
        names = Names(self._schema, members(self._schema, resource_type, subject_type))
        subject = "subject" if subject_type is None else f"subject_{subject_type}"
        variables = {
            "subject": cel.Type(f"policyguard.{subject}"),
            "resource": cel.Type(f"policyguard.resource_{resource_type}"),
            "context": cel.Type("policyguard.context"),
            "action": cel.Type.STRING,
            "now": cel.Type.TIMESTAMP,
        }
        return _Scope(cel.NewEnv(descriptor_pool=self._pool, variables=variables, functions=_declared()), names)


def _declared() -> list[cel.FunctionDecl]:
    return [
        cel.FunctionDecl(name, [cel.Overload(overload, cel.Type.BOOL, [cel.Type.STRING] * count)])
        for name, (overload, count) in _FUNCTIONS.items()
    ]


def _compiled(text: str, scope: _Scope) -> Expression:
    try:
        serialized = scope.environment.compile(rename_ip_in(text)).serialize()
    except (RuntimeError, ValueError) as problem:
        raise ConditionErrors(translate_report(text, str(problem), scope.names)) from None
    try:
        return decode_checked(serialized)
    except ProfileError as problem:
        error = ConditionError(problem.offset, problem.message, problem.help, "PG116")
        raise ConditionErrors([error]) from None


_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"bool": _Field.TYPE_BOOL, "int": _Field.TYPE_INT64, "string": _Field.TYPE_STRING}
_MESSAGES = {"timestamp": ".google.protobuf.Timestamp", "duration": ".google.protobuf.Duration"}


def _descriptor_pool(schema: Schema) -> DescriptorPool:
    """Build a message type for each entity and record, with an optional field for each attribute."""
    # INVARIANT I2: with dotted variables `has()` would vanish; with messages it stays a test of presence.
    file = descriptor_pb2.FileDescriptorProto(name="policyguard/schema.proto", package="policyguard", syntax="proto2")
    pool = DescriptorPool()
    for known in (timestamp_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        file.dependency.append(known.DESCRIPTOR.name)
    for name, resource in schema.resources.items():
        _add_message(file, f"resource_{name}", {**_texts("id", "type", "domain"), **resource.attributes})
    for name, subject in schema.subjects.items():
        _add_message(file, f"subject_{name}", {**_texts("id", "type", "name"), **subject.attributes})
    _add_message(file, "subject", {**_texts("id", "type", "name"), **merged(list(schema.subjects.values()))})
    _add_message(file, "context", schema.context)
    for name, fields in schema.records.items():
        _add_message(file, f"record_{name}", fields)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _texts(*names: str) -> dict[str, Attribute]:
    return {name: Attribute(name=name, type=ValueType(kind="string")) for name in names}


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str, attributes: Mapping[str, Attribute]) -> None:
    message = file.message_type.add(name=name)
    message.options.deprecated_legacy_json_field_conflicts = True
    for number, (attribute, declared) in enumerate(attributes.items(), start=1):
        field = message.field.add(name=attribute, number=number if number < 19_000 else number + 1_000)
        # Protobuf refuses fields whose JSON names are equal, and JSON names drop underscores: `a_b` and `ab` collide.
        field.json_name = f"f{number}"
        kind = declared.type
        field.label = _Field.LABEL_OPTIONAL
        if kind.kind == "map":
            _add_map(message, name, field, kind)
        else:
            field.label = _Field.LABEL_REPEATED if kind.kind == "list" else _Field.LABEL_OPTIONAL
            _set_type(field, kind.element if kind.element is not None else kind)


def _add_map(
    message: descriptor_pb2.DescriptorProto, owner: str, field: descriptor_pb2.FieldDescriptorProto, kind: ValueType
) -> None:
    entry = message.nested_type.add(name=_entry_name(field.name))
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
    _set_type(value, kind.element or ValueType(kind="string"))
    field.label = _Field.LABEL_REPEATED
    field.type = _Field.TYPE_MESSAGE
    field.type_name = f".policyguard.{owner}.{entry.name}"


def _entry_name(field: str) -> str:
    """Return the name that protobuf requires for the entry of a map field: `UserLabelsEntry` for `user_labels`."""
    return re.sub(r"(?:^|_)([a-z]?)", lambda match: match[1].upper(), field) + "Entry"


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: ValueType) -> None:
    if kind.kind in _SCALARS:
        field.type = _SCALARS[kind.kind]
        return
    field.type = _Field.TYPE_MESSAGE
    field.type_name = _MESSAGES.get(kind.kind, f".policyguard.record_{kind.record}")
