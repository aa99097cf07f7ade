"""Former names of facts and values: what is renamed in a schema and a condition, and what stays the same object."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.conditions.ast import shape
from policyguard.conditions.check import Checker
from policyguard.conditions.former_names import (
    literals_with_values,
    present_condition,
    present_constants,
    present_schema,
    renamed_values,
)
from policyguard.model.expression import Constant, Expression, Has, Select, walk
from policyguard.model.policy import Attribute, EntityType, Schema, ValueType

TEXT = ValueType(kind="string")


def attributes(*names: str, enum: tuple[str, ...] = ()) -> dict[str, Attribute]:
    return {name: Attribute(name=name, type=TEXT, enum=enum) for name in names}


ENUM = ("archive", "pickle", "other")
FILES = attributes("format", "named_format", enum=ENUM)
SCHEMA = Schema(
    subjects={"user": EntityType(name="user", attributes=attributes("format"))},
    resources={
        "job": EntityType(name="job", attributes={**FILES, **attributes("env_doors", "queue")}),
        "queue": EntityType(name="queue", attributes=attributes("format", enum=ENUM)),
    },
    context=attributes("env_doors"),
    records={"file": FILES},
)
PRESENT = Schema(
    subjects=SCHEMA.subjects,
    resources={"queue": SCHEMA.resources["queue"]},
    context=SCHEMA.context,
)
RENAMED = {"archive": "other"}
FIELDS = {("resource", "format"): RENAMED, ("resource", "named_format"): RENAMED}


def checked(text: str) -> Expression:
    return Checker(SCHEMA).check(text, resource_type="job")


def test_a_schema_without_former_names_stays_the_same_object() -> None:
    """Its digest and its compiled conditions stay, too; an attribute that stays is the same one."""
    assert present_schema(PRESENT) is PRESENT
    present = present_schema(SCHEMA)
    assert present.resources["job"].attributes["queue"] is SCHEMA.resources["job"].attributes["queue"]


def test_a_schema_has_the_present_names_and_each_value_once() -> None:
    """The attribute where its entity has a row, the value where both attributes are declared."""
    present = present_schema(SCHEMA)
    job = present.resources["job"].attributes
    assert set(job) == {"format", "named_format", "code_injecting_env", "queue"}
    assert job["code_injecting_env"].name == "code_injecting_env"
    assert job["format"].enum == job["named_format"].enum == ("other", "pickle")
    assert present.records["file"]["format"].enum == ("other", "pickle")
    # One step away: another entity, and a type with one of the two attributes.
    assert set(present.context) == {"env_doors"}
    assert present.resources["queue"].attributes["format"].enum == ENUM


def test_a_fact_under_both_names_is_refused() -> None:
    both = EntityType(name="job", attributes=attributes("env_doors", "code_injecting_env"))
    with pytest.raises(
        ValueError, match="`env_doors` is the former name of `code_injecting_env`, which is declared too"
    ):
        present_schema(Schema(subjects={}, resources={"job": both}))


def test_only_fields_with_renamed_values_are_listed() -> None:
    assert renamed_values(SCHEMA, ["job"]) == {
        **FIELDS,
        ("file", "format"): RENAMED,
        ("file", "named_format"): RENAMED,
    }
    assert renamed_values(PRESENT, ["queue"]) == {}


@pytest.mark.parametrize("text", ["resource.env_doors == 'x'", "has(resource.env_doors)"])
def test_a_condition_reads_the_fact_under_its_present_name(text: str) -> None:
    names = [node.name for node in walk(present_condition(checked(text))) if isinstance(node, Select | Has)]
    assert names == ["code_injecting_env"]
    other = checked(text.replace("resource.", "context."))
    assert present_condition(other) == other


LITERALS: dict[str, list[str]] = {
    "resource.format == 'pickle'": ["pickle"],
    "resource.format == 'pickle' && resource.queue == 'b'": ["pickle"],
    "resource.queue in ['b', 'c'] || resource.format != 'pickle'": ["pickle"],
    "['pickle'].exists(f, f == resource.format)": ["pickle"],
    "resource.format == 'pickle' && 'b' == 'c'": ["b", "c", "pickle"],
    "resource.format == 'pickle' && resource.queue.startsWith('b')": ["b", "pickle"],
    "resource.queue == 'b'": [],
    "'b' == 'c'": [],
}


@pytest.mark.parametrize(("text", "literals"), LITERALS.items(), ids=list(LITERALS))
def test_only_literals_compared_with_another_field_alone_are_left_out(text: str, literals: list[str]) -> None:
    """A literal may reach the field through a list or a macro."""
    nodes, values = literals_with_values(checked(text), FIELDS)
    assert sorted(node.value for node in nodes if isinstance(node, Constant)) == literals
    assert values == (RENAMED if literals else {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resource.format == 'archive'", ("other",)),
        ("resource.format == 'archive' && resource.queue == 'archive'", ("other", "archive")),
        ("resource.format in ['archive', 'pickle']", (("other", "pickle"),)),
        ("resource.format == 'pickle'", ("pickle",)),
        ("resource.queue == 'archive'", ("archive",)),
        ("resource.format == 'archive' && 3 > 2", ("other", 3, 2)),
        # Not every literal of a shape is a hole.
        ("resource.format == 'archive' && (resource.queue == 'x' || true)", ("other", "x")),
    ],
)
def test_constants_of_a_shape_are_renamed_where_they_can_meet_the_field(text: str, expected: tuple[Any, ...]) -> None:
    skeleton, constants = shape(checked(text))
    assert sorted(map(str, present_constants(skeleton, constants, FIELDS))) == sorted(map(str, expected))
