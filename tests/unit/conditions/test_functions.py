"""Functions of conditions: their short ways answer as the long ones, and refuse what has no meaning."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from policyguard.conditions.functions import FUNCTIONS, Failure, _regex, _search, matches, under
from policyguard.patterns.glob import CACHED_LENGTH

TEXTS = ("", "a", "ab", "abc", "xabc", "abcx", "xabcx", "a.b", "axb", "abc\n", "\nabc")


@pytest.mark.parametrize(
    ("start", "body", "end"), list(product(("", "^"), ("", "abc", r"a\.b", "a.b", "."), ("", "$")))
)
def test_a_literal_pattern_matches_as_a_regular_expression(start: str, body: str, end: str) -> None:
    """Anchored at its start, at its end, at both or at neither."""
    pattern = start + body + end
    assert [matches(text, pattern) for text in TEXTS] == [bool(_regex(pattern)(text)) for text in TEXTS]


def test_a_long_pattern_is_not_remembered() -> None:
    """Patterns may come with requests: what is remembered of them is bounded in number and length."""
    before = _search.cache_info().misses
    assert matches("x" * (CACHED_LENGTH + 1), "x" * (CACHED_LENGTH + 1))
    assert _search.cache_info().misses == before
    assert matches("y" * CACHED_LENGTH, "y" * CACHED_LENGTH)
    assert _search.cache_info().misses == before + 1


def test_nothing_is_under_nothing() -> None:
    """An empty prefix would be a prefix of every path."""
    for path in ("", "/", "/a", "a"):
        with pytest.raises(Failure, match="prefix of `under` is empty"):
            under(path, "")
    assert under("/a", "/")
    assert not under("a", "/")


LIST, MAP = ("a", "b"), {"a": 1}
RESULTS: list[tuple[str, tuple[Any, ...], Any]] = [
    ("index_list", (LIST, 0), "a"),
    ("index_list", (LIST, 1), "b"),
    ("index_list", (LIST, 2), "index 2 is outside"),
    ("index_list", (LIST, -1), "index -1 is outside"),
    ("index_map", (MAP, "a"), 1),
    ("index_map", (MAP, "b"), "there is no key `b`"),
    ("string_to_int64", ("-9223372036854775808",), -(2**63)),
    ("string_to_int64", ("9223372036854775808",), "beyond 64 bits"),
    ("string_to_int64", ("1.5",), "`1.5` is no integer"),
    ("string_to_int64", ("",), "`` is no integer"),
    ("string_to_bool", ("t",), True),
    ("string_to_bool", ("False",), False),
    ("string_to_bool", ("yes",), "`yes` is no bool"),
    ("add_int64", (2**63 - 2, 1), 2**63 - 1),
    ("add_int64", (2**63 - 1, 1), "beyond 64 bits"),
    ("subtract_int64", (-(2**63), 0), -(2**63)),
    ("subtract_int64", (-(2**63), 1), "beyond 64 bits"),
    ("divide_int64", (-7, 2), -3),
    ("divide_int64", (7, 0), "division by zero"),
    ("divide_int64", (-(2**63), -1), "beyond 64 bits"),
    ("modulo_int64", (-7, 2), -1),
    ("modulo_int64", (7, -2), 1),
    ("modulo_int64", (7, 0), "modulus by zero"),
    ("equals", ((1, (2,)), (1, [2])), True),
    ("equals", ((1, 2), (1,)), False),
    ("equals", ((1, 2), (1, 3)), False),
    ("equals", ({"a": 1}, {"a": 1}), True),
    ("equals", ({"a": 1}, {"b": 1}), False),
    ("equals", ({"a": 1}, {"a": 2}), False),
    ("equals", (True, 1), False),
    ("equals", ((True,), (1,)), False),
    ("equals", ({"a": True}, {"a": 1}), False),
    ("in_list", (True, (1,)), False),
    ("int64_to_timestamp", (253_402_300_799,), 253_402_300_799 * 10**9),
    ("int64_to_timestamp", (253_402_300_800,), "outside the years"),
    ("int64_to_timestamp", (-62_135_596_801,), "outside the years"),
]


@pytest.mark.parametrize(("function", "arguments", "expected"), RESULTS)
def test_a_function_gives_the_result_of_the_specification(
    function: str, arguments: tuple[Any, ...], expected: Any
) -> None:
    """At the edges of integers, lists and types; an error in words where there is none."""
    if isinstance(expected, str) and " " in expected:
        with pytest.raises(Failure, match=expected):
            FUNCTIONS[function](*arguments)
    else:
        result = FUNCTIONS[function](*arguments)
        assert (type(result), result) == (type(expected), expected)
