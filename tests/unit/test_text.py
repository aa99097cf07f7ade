"""Text for people: one rule for what is escaped, where copies used to differ."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyguard.text import (
    printable,
    printable_ascii,
    printable_json,
    printable_lines,
    printable_name,
    quoted,
    quoted_list,
)

DANGEROUS = {
    "an escape sequence": ("\x1b[2J", "\\x1b[2J"),
    "a carriage return": ("\r", "\\r"),
    "a line feed": ("\n", "\\n"),
    "a tab": ("\t", "\\t"),
    "delete": ("\x7f", "\\x7f"),
    "the one-character CSI of C1": ("\x9b", "\\u009b"),
    "next line": ("\x85", "\\u0085"),
    "a no-break space": ("\xa0", "\\u00a0"),
    "a soft hyphen": ("\xad", "\\u00ad"),
    "an Arabic letter mark": ("\u061c", "\\u061c"),
    "a zero-width space": ("\u200b", "\\u200b"),
    "a zero-width joiner": ("\u200d", "\\u200d"),
    "a left-to-right mark": ("\u200e", "\\u200e"),
    "a line separator": ("\u2028", "\\u2028"),
    "a paragraph separator": ("\u2029", "\\u2029"),
    "a right-to-left override": ("\u202e", "\\u202e"),
    "a word joiner": ("\u2060", "\\u2060"),
    "a first strong isolate": ("\u2068", "\\u2068"),
    "a byte order mark": ("\ufeff", "\\ufeff"),
    "an interlinear annotation": ("\ufff9", "\\ufff9"),
    "a noncharacter": ("\uffff", "\\uffff"),
    "a lone surrogate": ("\ud800", "\\ud800"),
    "a byte of a file name": ("\udcff", "\\udcff"),
    "a Hangul filler": ("\u3164", "\\u3164"),
    "a variation selector": ("\ufe0f", "\\ufe0f"),
    "a combining grapheme joiner": ("\u034f", "\\u034f"),
    "a tag character": ("\U000e0041", "\\U000e0041"),
    "a supplementary variation selector": ("\U000e0100", "\\U000e0100"),
}


@pytest.mark.parametrize(("text", "expected"), DANGEROUS.values(), ids=DANGEROUS)
def test_what_hides_reorders_or_breaks_a_line_is_escaped(text: str, expected: str) -> None:
    """Every character that one of the former copies escaped is escaped everywhere."""
    assert printable(f"a{text}b") == f"a{expected}b"
    assert quoted(text) == f"`{expected}`"
    assert quoted_list([text]) == f"`{expected}`"
    assert json.loads(printable_json([text])) == [text]
    assert printable(printable_json([text])) == printable_json([text])


def test_every_character_of_unicode_is_either_drawn_or_escaped() -> None:
    """No control, format, surrogate, separator, private or unassigned character passes."""
    passed = [c for c in map(chr, range(sys.maxunicode + 1)) if printable(c) == c]
    assert {unicodedata.category(c)[0] for c in passed} == {"L", "M", "N", "P", "S", "Z"}
    assert [c for c in passed if unicodedata.category(c)[0] == "Z"] == [" "]


def test_letters_of_every_script_stay_readable() -> None:
    assert printable("José 北京 é ✓ 𝛼") == "José 北京 é ✓ 𝛼"


def test_a_limit_counts_what_is_printed() -> None:
    """Escapes count with their full length and are never cut in the middle."""
    assert printable("\u202e" * 100, 60) == "\\u202e" * 9 + "..."
    assert printable("\n" * 5, 10) == "\\n" * 5
    assert printable("\n" * 6, 10) == "\\n" * 3 + "..."
    assert printable("x" * 60, 60) == "x" * 60
    assert printable("x" * 61, 60) == "x" * 57 + "..."


@given(st.text(), st.integers(4, 40))
def test_nothing_is_longer_than_its_limit(text: str, limit: int) -> None:
    for render in (printable, printable_ascii):
        result = render(text, limit)
        assert len(result) <= limit
        assert printable(result) == result


def test_ascii_shows_letters_that_are_similar() -> None:
    assert printable_ascii("оs.system\\", 40) == "\\u043es.system\\\\"


def test_lines_keep_their_line_feeds_only() -> None:
    assert printable_lines("a\n\tb\r\n\x1bc") == "a\n\\tb\\r\n\\x1bc"


def test_a_soft_hyphen_and_the_byte_ad_are_different_names() -> None:
    """Names were called alike if one held U+00AD and the other the byte AD."""
    assert printable_name("\xad") == "\\u00ad"
    assert printable_name(b"\xad") == "\\xad"


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_no_two_names_are_written_alike(one: bytes, other: bytes) -> None:
    assert (printable_name(one) == printable_name(other)) == (one == other)


@given(st.binary(max_size=12))
def test_a_name_is_written_alike_from_bytes_and_from_text(name: bytes) -> None:
    assert printable_name(name) == printable_name(name.decode("utf-8", "surrogateescape"))


def test_lists_are_joined_and_cut() -> None:
    assert quoted_list(()) == ""
    assert quoted_list(["a"]) == "`a`"
    assert quoted_list(["a", "b"], joiner=" or ") == "`a` or `b`"
    assert quoted_list(list("abcdef"), max_names=2) == "`a`, `b` and 4 more"
