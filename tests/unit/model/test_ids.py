"""The grammar of ids, and its table of characters against the interpreter's."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from policyguard.model.id_characters import is_refused
from policyguard.model.ids import id_problem, is_segment, ref_problem

UNICODE_VERSION = "14.0.0"
"""That of the table; see `policyguard/model/id_characters.py`."""

DEFAULT_IGNORABLE = (
    "ad 34f 61c 115f-1160 17b4-17b5 180b-180f 200b-200f 202a-202e 2060-206f 3164 fe00-fe0f feff ffa0 fff0-fff8"
    " 1bca0-1bca3 1d173-1d17a e0000-e0fff"
)
"""Default_Ignorable_Code_Point, DerivedCoreProperties.txt of Unicode 14.0.0; the same in 15.1 and 16.0."""
BLANK = (0x2800, 0xFFFC, 0x16FE4, 0x1D159)


def ignorable() -> set[int]:
    code_points: set[int] = set()
    for text in DEFAULT_IGNORABLE.split():
        first, _, last = text.partition("-")
        code_points.update(range(int(first, 16), int(last or first, 16) + 1))
    return code_points


def test_the_table_is_that_of_its_unicode_version() -> None:
    """Every character of the categories C and Z, every default-ignorable one, four blanks, and nothing else."""
    hidden = ignorable() | set(BLANK)
    same = unicodedata.unidata_version == UNICODE_VERSION
    for code_point in range(0x80, sys.maxunicode + 1):
        character = chr(code_point)
        refused = code_point in hidden or unicodedata.category(character)[0] in "CZ"
        # A later Unicode assigns characters, which the table refuses until it is made anew.
        assert is_refused(character) == refused or (not same and is_refused(character) and not refused), hex(code_point)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty text"),
        ("a b", "no spaces"),
        ("a*", "without `*`"),
        ("a//b", "no empty"),
        ("%2e", "percent-encoded"),
        ("\u3164", "visible"),
        ("e\u0301", "composed form"),
        ("\ud800", "surrogate"),
    ],
)
def test_a_problem_says_what_was_expected(text: str, part: str) -> None:
    """Found, expected, in one line."""
    problem = id_problem(text)
    assert problem is not None
    assert part in problem
    assert "\n" not in problem


@pytest.mark.parametrize("ref", ["carol", ":carol", "User:carol", "user:", "user", "us er:carol", "*:carol"])
def test_a_reference_has_a_type(ref: str) -> None:
    """Bare words and other types are refused."""
    assert ref_problem(ref) is not None
    assert ref_problem("user:carol") is None


def test_a_segment_has_no_slash() -> None:
    """A domain is one segment of an id."""
    assert is_segment("vision")
    assert not is_segment("a/b")
    assert not is_segment("*")
