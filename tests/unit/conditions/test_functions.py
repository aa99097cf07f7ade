"""Functions of conditions: their short ways answer as the long ones, and refuse what has no meaning."""

from __future__ import annotations

from itertools import product

import pytest

from policyguard.conditions.functions import Failure, _regex, _search, matches, under
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
