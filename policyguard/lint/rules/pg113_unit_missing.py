"""A quantity without a unit is easily compared with a number in a different unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import MEASURES, UNITS, split_words
from policyguard.model.policy import Attribute

CODE = "PG113"
NAME = "unit-missing"
SEVERITY = "warning"
HELP = "add `unit:` to the attribute, or put the unit in its name (`disk_gib`), or use the type `duration`"


def check(context: Context) -> Iterator[Hit]:
    """Yield each integer attribute named like a measure, without a unit in its declaration or its name."""
    schema = context.schema
    for owner in (*schema.subjects.values(), *schema.resources.values()):
        yield from _without_unit(owner.attributes.values())
    yield from _without_unit(schema.context.values())
    for record in schema.records.values():
        yield from _without_unit(record.values())


def _without_unit(attributes: Iterable[Attribute]) -> Iterator[Hit]:
    for attribute in attributes:
        name_words = set(split_words(attribute.name))
        if attribute.type.kind == "int" and attribute.unit is None and name_words & MEASURES and not name_words & UNITS:
            yield Hit(attribute.span, f"attribute `{attribute.name}` is a quantity without a unit")
