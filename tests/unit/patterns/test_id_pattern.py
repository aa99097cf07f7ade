"""Patterns of ids: each cheap test that a pattern is compiled to says the same as `glob`, and no more is cut short."""

from __future__ import annotations

import time
from itertools import product

import pytest

from policyguard.conditions.functions import glob
from policyguard.patterns.id_pattern import (
    compiled,
    domain_index,
    literal_domain,
    literal_prefix,
    literal_slice,
    matcher,
)

SEGMENTS = ("a", "b", "*", "**", "a*")
IDS = ["/".join(parts) for length in (1, 2, 3, 4) for parts in product(("a", "b", "ab"), repeat=length)]


def test_every_small_pattern_matches_as_glob_does() -> None:
    """All patterns of up to three segments over all ids of up to four: the compiled test is exact."""
    for length in (1, 2, 3):
        for parts in product(SEGMENTS, repeat=length):
            pattern = "/".join(parts)
            test = compiled(pattern)
            assert [glob(each, pattern) for each in IDS] == [test(each) for each in IDS], pattern


TYPE = "team/{team}/**"
TYPED_IDS = [f"team/{each}" for each in IDS]


def test_a_matcher_left_out_would_have_matched() -> None:
    """Where a rule's pattern needs no test, every id of the type matches it; where it has one, the test is exact."""
    for parts in product(("{team}", "a", "*", "**"), ("a", "*", "**", "a*"), ("", "a", "**")):
        pattern = "/".join(("team", *filter(None, parts)))
        test = matcher(pattern, TYPE)
        wild = pattern.replace("{team}", "*")
        expected = [glob(each, wild) for each in TYPED_IDS]
        assert expected == [test is None or test(each) for each in TYPED_IDS], pattern


def test_a_stretch_is_the_whole_test() -> None:
    """For ids that fit their type, comparing the stretch says what glob says, for every small pattern."""
    fitting = [each for each in TYPED_IDS if glob(each, TYPE.replace("{team}", "*"))]
    found = 0
    for parts in product(("{team}", "a", "b", "*"), ("a", "*", "a*"), ("", "b", "*")):
        pattern = "/".join(("team", *filter(None, parts), "**"))
        stretch = literal_slice(pattern, [TYPE])
        if stretch is None:
            continue
        found += 1
        where, literals = stretch
        wild = pattern.replace("{team}", "*")
        assert [glob(each, wild) for each in fitting] == [each.split("/")[where] == literals for each in fitting], (
            pattern
        )
    assert found > 5


def test_a_stretch_holds_for_every_type_it_is_used_for() -> None:
    """What one type gives and another does not has to be compared; what all give goes without saying."""
    assert literal_slice("team/a/**", [TYPE, "team/{team}/x/**"]) == (slice(1, 2), ["a"])
    for types in (["lab/{team}/**", TYPE], [TYPE, "lab/{team}/**"], [TYPE, None], [None, TYPE]):
        assert literal_slice("team/a/**", types) == (slice(0, 2), ["team", "a"])
    for pattern in ("team/**", "**", "", None, "team/a"):
        assert literal_slice(pattern, [TYPE]) is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("team/vision/**", "vision"),
        ("team/{team}/**", None),
        ("team/*/**", None),
        ("team/vis*/**", None),
        ("**", None),
        ("**/vision", None),
        ("team", None),
        (None, None),
    ],
)
def test_only_a_literal_in_its_place_names_a_domain(pattern: str | None, expected: str | None) -> None:
    """A rule is filed under one team only if every id that it matches is of that team."""
    assert expected == literal_domain(pattern, domain_index(TYPE))
    if expected is not None and pattern is not None:
        assert all(each.split("/")[1] == expected for each in TYPED_IDS if glob(each, pattern))


def test_prefixes_end_at_the_first_wildcard() -> None:
    """What is compared as a prefix is spelled so by every id that matches."""
    assert literal_prefix("team/vision/run-*/x") == ("team", "vision")
    assert literal_prefix("team/{team}/x") == ("team",)
    assert literal_prefix("**") == ()
    assert literal_prefix(None) == ()


def test_a_type_without_a_team_has_no_domain() -> None:
    """Only a whole segment `{team}` names the domain."""
    assert domain_index("team/{team}/**") == 1
    assert domain_index("{team}") == 0
    assert domain_index("team/x{team}/**") is None
    assert domain_index(None) is None


def test_long_ids_are_matched_in_linear_time() -> None:
    """A pattern made to backtrack does not: thousands of segments take milliseconds."""
    hostile = "/".join(["**", "a"] * 12)
    start = time.perf_counter()
    assert not glob("/".join(["a"] * 200 + ["b"]), hostile)
    assert time.perf_counter() - start < 0.5
