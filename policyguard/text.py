r"""Text for people: escapes input, so that it cannot move the cursor, hide, reorder or break a line.

Escaped is whatever `str.isprintable` refuses (controls, direction and zero-width characters, line separators, spaces
other than U+0020, lone surrogates, unassigned and private characters) and the characters that most fonts draw as
nothing. ASCII controls become `\x1b` or `\n`, everything else `\u202e` or `\U000e0001`. Opens nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import accumulate

ELLIPSIS = "..."
MAX_QUOTED_CHARS = 80

# Default_Ignorable_Code_Point of Unicode 16.0 (DerivedCoreProperties.txt), as far as `isprintable` accepts it.
_IGNORABLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


def printable(text: str, max_chars: int | None = None) -> str:
    r"""Escape unprintable characters and limit the text to one line of `max_chars` characters.

    Nothing is cut inside an escape. Backslashes stay as they are, so this is for reading, not for parsing back.

    >>> printable("a\nb\u202e")
    'a\\nb\\u202e'
    >>> printable("abcdefghij", 8)
    'abcde...'
    """
    # INVARIANT I7: text from a policy file cannot forge a line of a report.
    # INVARIANT I7: nothing that others wrote reaches a terminal as a command to it.
    # INVARIANT I7: what others named, a file or a run, stays on its own line.
    if _is_plain(text):
        return text if max_chars is None or len(text) <= max_chars else text[: max_chars - len(ELLIPSIS)] + ELLIPSIS
    return _escaped(text, max_chars, _escape)


def printable_ascii(text: str, max_chars: int | None = None) -> str:
    r"""Escape like `printable`, and also every non-ASCII character; backslashes are doubled.

    For names where a confusable letter is an attack: a Cyrillic `os` is not `os`.

    >>> printable_ascii("\u043es")
    '\\u043es'
    """
    return _escaped(text, max_chars, lambda c: c if " " <= c <= "~" and c != "\\" else _escape_always(c))


def printable_lines(text: str) -> str:
    """Escape each line of a text like `printable`."""
    return "\n".join([printable(line) for line in text.split("\n")])


def printable_name(name: str | bytes) -> str:
    r"""Escape a file name to one line; different names stay different.

    Bytes that are no UTF-8 are written as `\xff`, line breaks as `\n`, a backslash as two.

    >>> printable_name(b"a\nb\xff")
    'a\\nb\\xff'
    """
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    if "\\" not in text and _is_plain(text):
        return text
    return "".join([_escape_in_name(character) for character in text])


def printable_json(data: object) -> str:
    """Encode as one line of JSON, with unprintable characters escaped; it reads back as the same data."""
    text = json.dumps(data, ensure_ascii=False, separators=(", ", ": "))
    return text if _is_plain(text) else "".join([c if _is_plain(c) else json.dumps(c)[1:-1] for c in text])


def quoted(text: str, max_chars: int = MAX_QUOTED_CHARS) -> str:
    """Escape a text like `printable`, and put it in backticks, as error messages do."""
    return f"`{printable(text, max_chars)}`"


def quoted_list(names: Iterable[str], *, joiner: str = ", ", max_names: int | None = None) -> str:
    """Join names in backticks; beyond `max_names`, only count them.

    >>> quoted_list(["a", "b", "c"], max_names=2)
    '`a`, `b` and 1 more'

    Args:
        names: the names.
        joiner: the text between two names.
        max_names: how many names to list; None for all.
    """
    all_names = list(names)
    listed = all_names[:max_names]
    more = f" and {len(all_names) - len(listed)} more" if len(all_names) > len(listed) else ""
    return joiner.join([f"`{printable(name)}`" for name in listed]) + more


def counted(number: int, one: str, many: str | None = None) -> str:
    """Write a number and its noun: `1 entry`, `2 entries`.

    Args:
        number: how many.
        one: the noun for one.
        many: the noun for another number; by default with an `s`, or `ies` for a `y` at the end.
    """
    if many is None:
        many = f"{one[:-1]}ies" if one.endswith("y") else f"{one}s"
    return f"{number} {one if number == 1 else many}"


def _is_plain(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _IGNORABLE.isdisjoint(text))


def _escaped(text: str, max_chars: int | None, escape: Callable[[str], str]) -> str:
    if max_chars is None:
        return "".join([escape(character) for character in text])
    pieces = [escape(character) for character in text[: max_chars + 1]]
    whole = "".join(pieces)
    if len(whole) <= max_chars:
        return whole
    ends = accumulate(map(len, pieces))
    room = max_chars - len(ELLIPSIS)
    return "".join([piece for piece, end in zip(pieces, ends, strict=True) if end <= room]) + ELLIPSIS


def _escape(character: str) -> str:
    return character if _is_plain(character) else _escape_always(character)


def _escape_always(character: str) -> str:
    code = ord(character)
    # `\xad` is left to bytes that are no UTF-8: U+00AD and the byte AD are different names.
    return f"\\u{code:04x}" if 0x80 <= code <= 0xFF else character.encode("unicode_escape").decode()


def _escape_in_name(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return "\\\\" if character == "\\" else _escape(character)
