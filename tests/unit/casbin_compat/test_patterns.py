"""casbin's patterns, translated, match the very same paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from casbin.util import glob_match, key_match, key_match2, key_match3
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.casbin_compat.patterns import alternatives, glob_regex, key_match2_regex, key_match_prefix
from policyguard.conditions.functions import matches
from policyguard.errors import PolicyError
from policyguard.values import NO_SPAN

SEGMENT = st.sampled_from(["a", "ab", "b", "data1", ".hidden", "a.b", "x-y", "A", "1"])
PATHS = st.lists(SEGMENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
PLAIN = st.sampled_from(["a", "ab", "data1", "x-y", "*"])


def patterns(*special: str) -> st.SearchStrategy[str]:
    segments = st.one_of(PLAIN, st.sampled_from(special)) if special else PLAIN
    return st.lists(segments, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def agree(theirs: Callable[[str, str], bool], regex: str, pattern: str, path: str) -> bool:
    return bool(theirs(path, pattern)) is matches(path.removeprefix("/"), f"^{regex}$")


@settings(max_examples=200, deadline=None)
@given(PATHS, patterns(":id", ":x"))
def test_key_match2_is_translated_exactly(path: str, pattern: str) -> None:
    """Variables are one segment, `*` is the rest."""
    assert agree(key_match2, key_match2_regex(pattern, "keyMatch2", NO_SPAN), pattern, path)


@settings(max_examples=200, deadline=None)
@given(PATHS, patterns("{id}", "{x}"))
def test_key_match3_is_translated_exactly(path: str, pattern: str) -> None:
    """The same with braces."""
    assert agree(key_match3, key_match2_regex(pattern, "keyMatch3", NO_SPAN), pattern, path)


@settings(max_examples=200, deadline=None)
@given(PATHS, patterns("a*", "data*", "x-*"))
def test_glob_match_is_translated_exactly(path: str, pattern: str) -> None:
    """A star is one segment that does not begin with a dot, or the rest of a segment."""
    assert agree(glob_match, glob_regex(pattern, NO_SPAN), pattern, path)


@settings(max_examples=300, deadline=None)
@given(PATHS, patterns().map(lambda p: p.replace("*", "")), st.sampled_from(["", "*"]))
def test_key_match_is_translated_exactly(path: str, head: str, star: str) -> None:
    """A star at the end is any rest; without one the whole id is compared."""
    prefix, whole = key_match_prefix(head + star, NO_SPAN)
    assert key_match(path, head + star) is (path == prefix if whole else path.startswith(prefix))


@pytest.mark.parametrize(
    ("translate", "pattern", "message"),
    [
        (key_match_prefix, "/teams/*/public", "expected `*` at the end only: keyMatch ignores what follows it"),
        (lambda p, s: key_match2_regex(p, "keyMatch2", s), "/index.html", "found `index.html` in `/index.html`"),
        (lambda p, s: key_match2_regex(p, "keyMatch2", s), "/a/(b|c)", "reads the rest as a regular expression"),
        (lambda p, s: key_match2_regex(p, "keyMatch2", s), "/a/x:id", "found `x:id` in `/a/x:id`"),
        (lambda p, s: key_match2_regex(p, "keyMatch2", s), "/a/b*", "found `b*` in `/a/b*`"),
        (glob_regex, "/a/**", "found `**` in `/a/**`, expected plain segments and `*`"),
        (glob_regex, "/a/[1-9]", "found `[1-9]` in `/a/[1-9]`"),
        (glob_regex, "/a/{b,c}", "expected plain segments"),
        (alternatives, "GET.*", "found the regular expression `GET.*`, expected words such as"),
        (alternatives, "(a+)+$", "expected words such as"),
        (alternatives, "(GET|POST", "expected words such as"),
    ],
)
def test_what_has_no_exact_translation_is_refused(translate: Callable[..., object], pattern: str, message: str) -> None:
    """Each with what was found and what would be understood."""
    with pytest.raises(PolicyError) as caught:
        translate(pattern, NO_SPAN)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("GET", ["GET"]), ("(GET)|(POST)", ["GET", "POST"]), ("^(read|write)$", ["read", "write"]), (".*", [])],
)
def test_a_regular_expression_of_words_is_its_words(pattern: str, expected: list[str]) -> None:
    """The twin: these name actions."""
    assert alternatives(pattern, NO_SPAN) == expected
