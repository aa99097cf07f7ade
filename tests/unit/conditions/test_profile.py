"""The tables of the profile agree with each other, with the code and with `docs/conditions.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policyguard.conditions.check import Checker
from policyguard.conditions.functions import FUNCTIONS
from policyguard.conditions.problems import ConditionErrors
from policyguard.conditions.profile import CALLS, LOGIC, METHODS, OVERLOADS, REFUSED_TYPES, operator
from policyguard.conditions.signatures import SIGNATURES, _signature
from tests.properties.strategies_conditions import SCHEMA

ROOT = Path(__file__).parents[3]
ROOM = ROOT / "policyguard" / "conditions"
PAGE = (ROOT / "docs" / "conditions.md").read_text()
CHECKER = Checker(SCHEMA)


def test_every_overload_has_a_signature_a_encoding_and_an_implementation() -> None:
    """A function that is added in one table is missed in no other."""
    infix = {name for name in OVERLOADS if operator(name) is not None}
    rendered = {*METHODS, *CALLS, *LOGIC, "negate_int64", "index_list", "index_map", *infix}
    assert rendered >= OVERLOADS
    assert set(SIGNATURES) >= OVERLOADS
    assert set(FUNCTIONS) | LOGIC == OVERLOADS


def test_every_function_of_the_profile_is_on_the_page() -> None:
    """What an author may call is named in `docs/conditions.md`."""
    for name in {*METHODS.values(), *CALLS.values(), "has", "all", "exists", "exists_one", "filter", "map"}:
        assert re.search(rf"\b{re.escape(name)}\b", PAGE), name


def test_every_name_of_a_refusal_is_on_the_page() -> None:
    """`ProfileError.name` in the code and the first column of the page are the same set."""
    source = "".join((ROOM / name).read_text() for name in ("decoding.py", "checked_types.py"))
    used = {*re.findall(r'name="([a-z-]+)"', source), *(entry[0] for entry in REFUSED_TYPES.values())} - {"name"}
    section = PAGE.partition("## Outside the profile")[2].partition("##")[0]
    listed = set(re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"^\| (`[^|]*)\|", section, re.MULTILINE))))
    assert used - listed == set()
    assert listed - used - {"optional", "two-variables", "malformed"} == set()


ACCEPTED = [
    "resource.gpus == 0x1f",
    r"resource.team.matches(r'^\d+$')",
    "resource.team == '''a'b'''",
    'resource.team == """a"b"""',
    r"resource.team == 'tab\t\u00e9\x41\101'",
    "resource.nums[0] == 1",
    "resource.labels == {'a': 'b'}",
    "true < false",
    "int('7') == resource.gpus",
    "int(now) > 0",
    "string(now) == 'x'",
    "string(resource.limit) == '1s'",
    "bool('true')",
    "timestamp(0) < now",
    "int(resource.gpus) == 1",
    "string(resource.team) == 'x'",
    "resource.limit.getHours() > 1",
    "resource.tags + ['x'] == ['x']",
    "[] == resource.tags",
    "{} == resource.labels",
    "resource.tags.map(t, t.size()) == [1]",
    "resource.started.getFullYear() == 2026 && resource.started.getMonth('-08:00') == 0",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_page_lists_is_accepted(text: str) -> None:
    """The table "In the profile", construct by construct."""
    assert CHECKER.check(text, resource_type="job").type == "bool"


REFUSED = [
    "1.5 < 2.5",
    "double(1) < double(2)",
    "1u == 1u",
    "b'a' == b'a'",
    "null == null",
    "dyn(1) == 1",
    "[1, 'a'] == []",
    "type(1) == int",
    "resource == resource",
    "resource.code == resource.code",
    "{1: 2} == {}",
    "resource.?gpus == 1",
    "resource.labels.all(k, v, true)",
    "resource.tags.all(resource, true)",
    "now.getHours('Europe/Berlin') == 1",
    "now.getHours(resource.team) == 1",
    "math.greatest(1, 2) == 2",
    "cel.bind(x, 1, x == 1)",
    "'a'.charAt(0) == 'a'",
    "duration(1) == duration('1s')",
    "google.protobuf.Timestamp{} == now",
    "[1].exists(i, v, true)",
    "int == int",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_page_rules_out_is_refused(text: str) -> None:
    """The table "Outside the profile", construct by construct."""
    with pytest.raises(ConditionErrors):
        CHECKER.check(text, resource_type="job")


def test_the_table_of_signatures_is_computed_from_the_names_of_overloads() -> None:
    """One of each kind of name; all of them are what the table has."""
    assert {name: _signature(name) for name in SIGNATURES} == SIGNATURES
    assert _signature("conditional") == (("bool", "any", "any"), "any")
    assert _signature("less_equals_timestamp") == (("timestamp", "timestamp"), "bool")
    assert _signature("contains_string") == (("string", "string"), "bool")
    assert _signature("add_list") == (("list", "list"), "list")
    assert _signature("size_map") == (("map",), "int")
    assert _signature("timestamp_to_hours_with_tz") == (("timestamp", "string"), "int")
    assert _signature("duration_to_hours") == (("duration",), "int")
    assert _signature("string_to_bool") == (("string",), "bool")
