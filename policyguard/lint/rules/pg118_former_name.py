"""A fact or value is written under the name of an earlier release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policyguard.conditions.former_names import literals_with_values, present_fact, renamed_values
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Constant, Has, Select, walk
from policyguard.model.former_names import former_values
from policyguard.model.policy import Attribute, Condition, Rule
from policyguard.values import Span

CODE = "PG118"
NAME = "former-name"
SEVERITY = "warning"
HELP = "write the present name: the next release no longer knows the former one"
FIXABLE = True


def check(context: Context) -> Iterator[Hit]:
    """Yield each use of a former name in the schema, a condition or `assurance`."""
    schema = context.schema
    for one in schema.subjects.values():
        yield from _in_attributes("subject", one.attributes)
    for one in schema.resources.values():
        yield from _in_attributes("resource", one.attributes)
    yield from _in_attributes("context", schema.context)
    for fields in schema.records.values():
        yield from _in_attributes("", fields)
    for rule in context.rules:
        for path, _ in rule.assurance:
            yield from _fact(context.field(rule.span, "assurance"), path)
        if rule.when is not None:
            yield from _in_condition(context, rule, rule.when)


def _in_attributes(entity: str, declared: Mapping[str, Attribute]) -> Iterator[Hit]:
    for name, attribute in declared.items():
        yield from _fact(attribute.span, f"{entity}.{name}")
        values = former_values(name, declared)
        for value in attribute.enum:
            if value in values:
                yield _hit(attribute.span, value, values[value])


def _in_condition(context: Context, rule: Rule, condition: Condition) -> Iterator[Hit]:
    for node in walk(condition.expression):
        if isinstance(node, Select | Has):
            yield from _fact(condition.at(node.offset), f"{node.operand.type}.{node.name}")
    literals, values = literals_with_values(condition.expression, renamed_values(context.schema, rule.resource_types))
    for literal in literals:
        if isinstance(literal, Constant) and literal.value in values:
            yield _hit(condition.at(literal.offset), str(literal.value), values[str(literal.value)])


def _fact(span: Span, path: str) -> Iterator[Hit]:
    if present_fact(path) != path:
        yield _hit(span, path, present_fact(path))


def _hit(span: Span, former: str, present: str) -> Hit:
    return Hit(span, f"found the former name `{former}`, expected `{present}`")
