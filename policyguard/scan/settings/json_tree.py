"""Reads JSON tolerantly: keeps every entry, and accepts what any common reader accepts.

text = *( value white-space ); JSON Lines has one value per line. NaN, infinities, control characters in strings and
numbers of any length are accepted, because Python's reader can be set to accept them.
"""

from __future__ import annotations

import json
import re

from policyguard.scan.settings.tree import Map, TooDeep, Unreadable

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(object_pairs_hook=Map, parse_int=float, parse_float=float, strict=False)
_TEXT = r"""\"[^\"\\\n]*+(?:\\.[^\"\\\n]*+)*+\"?|'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'?"""
"""Also without its end: what begins at a quote is read once."""
_COMMENT = re.compile(rf"{_TEXT}|//[^\n]*|/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?", re.DOTALL)
_COMMA = re.compile(rf"{_TEXT}|,(?=\s*[\]}}])", re.DOTALL)
MAX_DOCUMENTS = 1_000_000
MAX_CONTAINERS = 2_000_000
MAX_ITEMS = 15_000_000


def json_documents(text: str) -> list[object]:
    """Read the JSON values in a text, one or several in a row.

    Raises:
        TooDeep: nested deeper than the interpreter's stack, or too many values.
        Unreadable: not JSON; the values before that place are in `partial`.
    """
    # A container takes a hundred times the memory of its text.
    if text.count("{") + text.count("[") > MAX_CONTAINERS or text.count(",") > MAX_ITEMS:
        raise TooDeep(f"more than {MAX_CONTAINERS} containers or {MAX_ITEMS} values")
    values: list[object] = []
    at = _space(text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except RecursionError:
            raise TooDeep("JSON nested too deep") from None
        except json.JSONDecodeError as problem:
            reason = problem.msg.lower()
            raise Unreadable(f"not JSON: {reason}", f"{problem.lineno}:{problem.colno}", tuple(values)) from None
        values.append(value)
        if len(values) > MAX_DOCUMENTS:
            raise TooDeep(f"more than {MAX_DOCUMENTS} values one after another")
        at = _space(text, at)
    return values


def without_comments(text: str) -> str:
    """Remove the comments and trailing commas that JSON5 and JSON with comments allow."""
    return _COMMA.sub(_text_or_space, _COMMENT.sub(_text_or_space, text))


def _text_or_space(match: re.Match[str]) -> str:
    return match[0] if match[0][0] in "\"'" else " "


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
