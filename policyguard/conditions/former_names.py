"""Replaces former names of facts and values in schemas and checked conditions by their present names. Pure.

The table is in `model/former_names.py`. A condition is checked against its schema with both as written; for decisions,
both are converted to the present names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from policyguard.conditions.ast import rebuilt
from policyguard.model.expression import Call, Constant, Expression, Has, Hole, Select, walk
from policyguard.model.former_names import FORMER_FACTS, former_values
from policyguard.model.policy import Attribute, EntityType, Schema

_COMPARISONS = frozenset({"equals", "not_equals", "in_list"})
Renamed = Mapping[tuple[str, str], Mapping[str, str]]
"""Former to present values of a field, by the type of what holds it (`resource` or a record's name) and its name."""


def present_fact(path: str) -> str:
    """Return the present path of a fact."""
    return FORMER_FACTS.get(path, path)


def present_schema(schema: Schema) -> Schema:
    """Rename attributes and enumerated values of a schema; return the same object if nothing changes.

    Raises:
        ValueError: a type declares a fact under both names, so that a rule could mean either.
    """
    present = replace(
        schema,
        subjects=_present_types("subject", schema.subjects),
        resources=_present_types("resource", schema.resources),
        context=_present_attributes("context", schema.context),
        records={name: _present_attributes("", fields) for name, fields in schema.records.items()},
    )
    return schema if present == schema else present


def _present_types(entity: str, declared: Mapping[str, EntityType]) -> dict[str, EntityType]:
    return {
        name: replace(one, attributes=_present_attributes(entity, one.attributes)) for name, one in declared.items()
    }


def _present_attributes(entity: str, declared: Mapping[str, Attribute]) -> dict[str, Attribute]:
    renamed = {}
    for name, attribute in declared.items():
        present = present_fact(f"{entity}.{name}").partition(".")[2]
        if present != name and present in declared:
            raise ValueError(f"`{name}` is the former name of `{present}`, which is declared too, expected one of them")
        values = former_values(name, declared)
        enum = tuple(dict.fromkeys(values.get(value, value) for value in attribute.enum))
        changed = present != name or enum != attribute.enum
        renamed[present] = replace(attribute, name=present, enum=enum) if changed else attribute
    return renamed


def renamed_values(schema: Schema, resource_types: Sequence[str]) -> Renamed:
    """List the fields with renamed values that a rule on these resource types can read."""
    groups = [("resource", schema.resources[name].attributes) for name in resource_types]
    groups += [("subject", type_.attributes) for type_ in schema.subjects.values()]
    groups += [("context", schema.context), *schema.records.items()]
    fields = [(owner, name, former_values(name, declared)) for owner, declared in groups for name in declared]
    return {(owner, name): values for owner, name, values in fields if values}


def present_condition(expression: Expression) -> Expression:
    """Rename the facts that a condition reads."""

    def change(node: Expression) -> Expression:
        if isinstance(node, Select | Has):
            path = f"{node.operand.type}.{node.name}"
            return replace(node, name=present_fact(path).partition(".")[2]) if path in FORMER_FACTS else node
        return node

    return rebuilt(expression, change)


def literals_with_values(expression: Expression, fields: Renamed) -> tuple[list[Constant | Hole], Mapping[str, str]]:
    """Find the literals in which a former value may be written.

    A literal may reach a field through a list, a map or a macro; only those compared directly with another field are
    left out.

    Args:
        expression: a checked condition, or a shape with holes.
        fields: what `renamed_values` lists.

    Returns:
        The literals, and the former values that the condition can meet; both are empty if it reads no such field.
    """
    values: dict[str, str] = {}
    for node in walk(expression):
        if isinstance(node, Select):
            values.update(fields.get((node.operand.type, node.name), {}))
    if not values:
        return [], values
    others = {id(node) for node in _literals_of_others(expression, fields)}
    return [node for node in walk(expression) if isinstance(node, Constant | Hole) and id(node) not in others], values


def _literals_of_others(expression: Expression, fields: Renamed) -> Iterator[Expression]:
    for node in walk(expression):
        if isinstance(node, Call) and node.function in _COMPARISONS:
            read = [part for part in node.arguments if isinstance(part, Select)]
            if read and all((part.operand.type, part.name) not in fields for part in read):
                yield from walk(node)


def present_constants(shape: Expression, constants: Sequence[Any], fields: Renamed) -> tuple[Any, ...]:
    """Rename the values among the constants that fill a shape's holes.

    Args:
        shape: a condition with holes.
        constants: its constants, by hole.
        fields: the fields with renamed values.
    """
    former = {value for values in fields.values() for value in values}
    if not any(value in former for item in constants for value in (item if isinstance(item, tuple) else (item,))):
        return tuple(constants)
    literals, values = literals_with_values(shape, fields)
    holes = {node.index for node in literals if isinstance(node, Hole)}
    return tuple(_present(value, values) if index in holes else value for index, value in enumerate(constants))


def _present(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_present(item, values) for item in value)
    return values.get(value, value) if isinstance(value, str) else value
