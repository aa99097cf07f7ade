"""Shapes, canonical form, atoms and paths of checked conditions."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import HealthCheck, assume, given, settings

from policyguard.conditions.ast import atoms, filled, paths_read, shape
from policyguard.conditions.canonical import canonical_form, from_canonical
from policyguard.conditions.check import Checker
from policyguard.conditions.problems import ConditionErrors, ProfileError
from policyguard.conditions.rendering import render
from policyguard.model.expression import Constant, Expression
from tests.properties.strategies_conditions import SCHEMA, conditions

CHECKER = Checker(SCHEMA)


def check(text: str) -> Expression:
    return CHECKER.check(text, resource_type="job")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(conditions(depth=3))
def test_every_condition_survives_its_shape_and_its_canonical_form(text: str) -> None:
    """`filled(shape(e)) == e` and `from_canonical(json(canonical_form(e))) == e`."""
    try:
        expression = check(text)
    except ConditionErrors:
        assume(False)
        raise
    pattern, constants = shape(expression)
    assert filled(pattern, constants) == expression
    for tree in (expression, pattern):
        assert from_canonical(json.loads(json.dumps(canonical_form(tree)))) == tree


def test_instants_beyond_64_bits_survive_any_json() -> None:
    """A timestamp of the year 9999 does not fit 64 bits of nanoseconds, so it is spelled as text."""
    expression = check('now < timestamp("9999-12-31T23:59:59Z")')
    form = canonical_form(expression)
    assert "253402300799000000000" in json.dumps(form)
    assert from_canonical(form) == expression


@pytest.mark.parametrize(
    "form",
    [
        [],
        [2, ["c", True, "bool", 0]],
        [1],
        [1, []],
        [1, ["x"]],
        [1, ["c"]],
        [1, ["f", "logical_and", [], "bool", 0]],
        [1, ["f", "system", [["c", "x", "string", 0]], "bool", 0]],
        [1, ["f", "not_strictly_false", [["c", True, "bool", 0]], "bool", 0]],
        [1, ["c", "x", "timestamp", 0]],
        [1, ["q", "any", "x", ["l", [], "list(int)", 0], ["c", True, "bool", 0], "bool", [], 0]],
        [1, ["c", True, "bool", 0], 0],
        [1, ["c", True, "bool", 0, 0]],
        [1, ["c", None, "bool", 0]],
        [1, ["c", 1.5, "int", 0]],
        [1, ["c", [1], "int", 0]],
        [1, ["v", 1, "bool", 0]],
        [1, ["v", "action", "bool", "0"]],
        [1, ["v", "action", "bool", True]],
        [1, ["s", "resource", "x", "bool", 0]],
        [1, ["m", [[["c", "a", "string", 0]]], "map(string, int)", 0]],
        {"a": 1},
        None,
    ],
)
def test_other_data_is_no_canonical_form(form: object) -> None:
    """Another version, unknown nodes, functions outside the profile, missing arguments: `ProfileError`."""
    with pytest.raises(ProfileError, match="malformed expression"):
        from_canonical(form)


def test_a_snapshot_of_many_conditions_is_read_in_milliseconds() -> None:
    """1,000 conditions of a dozen nodes."""
    text = "resource.gpus <= 64 && resource.team == 'vision' && has(resource.labels) && !resource.code.dirty"
    forms = [canonical_form(check(text)) for _ in range(1000)]
    started = time.process_time()
    for form in forms:
        from_canonical(form)
    assert time.process_time() - started < 0.1


def test_atoms_are_what_logic_joins() -> None:
    """Through `&&`, `||`, `!` and `?:`; comparisons and quantifiers are whole."""
    text = (
        "!(resource.gpus > 1 || resource.flag) && (has(resource.path) ? true : resource.tags.all(t, t == 'a' || true))"
    )
    assert [render(atom) for atom in atoms(check(text))] == [
        "resource.gpus > 1",
        "resource.flag",
        "has(resource.path)",
        "true",
        'resource.tags.all(t, t == "a" || true)',
    ]


def test_paths_read_go_into_records_and_elements() -> None:
    """The longest paths, with `[]` for elements of lists and keys of maps."""
    text = (
        "resource.checkpoints.filter(c, c.size > 1).exists(d, d.format == subject.id) && resource.code.dirty "
        "&& resource.labels['a'] == resource.tags[0] && has(context.addr) && now > resource.started && action != ''"
    )
    assert sorted(".".join(path) for path in paths_read(check(text))) == [
        "action",
        "context.addr",
        "now",
        "resource.checkpoints.[].format",
        "resource.checkpoints.[].size",
        "resource.code.dirty",
        "resource.labels.[]",
        "resource.started",
        "resource.tags.[]",
        "subject.id",
    ]


def test_rendering_needs_no_parentheses_that_mean_nothing() -> None:
    """Precedence is kept, and only that."""
    for text in (
        "(1 + 2) * 3 - (4 - 5) > resource.gpus",
        "!(resource.flag && true) || resource.gpus == -1",
        "(resource.flag ? 1 : 2) == 1",
        "resource.flag == (resource.gpus == 8)",
        "-resource.gpus < 0",
        'resource.team == "a\\"b\\\\c\\n\\u0001"',
        "resource.nums.map(n, n > 1, n + 1) == [2]",
        'now < timestamp("2026-03-01T09:00:00.5Z")',
        'ip.in(context.addr, "10.0.0.0/8")',
        'resource.started.getHours("+02:00") == 1',
        'resource.limit > duration("5400s")',
    ):
        assert render(check(text)) == text


def test_equal_meaning_is_equal_at_every_position() -> None:
    """Offsets take no part in equality; spelling of literals neither."""
    assert check("resource.team=='a'") == check('  resource.team  ==  "a"')
    assert check("now < timestamp('2026-03-01T09:00:00Z')") == check('now < timestamp("2026-03-01T10:00:00+01:00")')
    assert check("resource.gpus == 1") != check("resource.gpus == 2")
    assert Constant(True, "bool") != Constant(1, "int")
