"""Where the comments of a YAML text are: YAML's own parsers throw them away, and lint's suppressions live in them.

A `#` starts a comment only at the start of a line or after white space, and never inside a quoted or a block scalar
(YAML 1.2.2, sections 6.6 and 8.1). The scan is line by line and does not judge the text: it is run on what the strict
reader accepts, and where it is unsure whether it stands in a scalar it sees no comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK_HEADER = re.compile(r"(?:^|[\s:\-?])[|>](?:[1-9][+-]?|[+-][1-9]?)?\s*$")
_INDICATORS = re.compile(r"\s*(?:[-?](?:\s+|$))*")


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment, its `#` included. `alone` if nothing else stands on its line. Line and column start at one."""

    text: str
    line: int
    column: int
    alone: bool


def comments(text: str) -> Iterator[Comment]:
    """Yield the comments of a YAML text in order."""
    quote = ""
    block: _Block | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if block is not None and block.holds(line):
            continue
        block = None
        hash_at, quote = _scan(line, quote)
        if hash_at is not None:
            yield Comment(line[hash_at:], number, hash_at + 1, not line[:hash_at].strip())
        if not quote:
            block = _Block.opened_by(line if hash_at is None else line[:hash_at])


@dataclass(slots=True)
class _Block:
    """A block scalar being read: its lines are those indented more than its parent, or as its first line."""

    parent: int
    indent: int | None = None

    @classmethod
    def opened_by(cls, code: str) -> _Block | None:
        if _BLOCK_HEADER.search(code) is None:
            return None
        lead = _INDICATORS.match(code)
        column = lead.end() if lead is not None else 0
        opens_key = ":" in code
        return cls(parent=column if opens_key else max(code.rfind("-", 0, column), -1))

    def holds(self, line: str) -> bool:
        stripped = line.lstrip(" ")
        if not stripped:
            return True
        indent = len(line) - len(stripped)
        if self.indent is None:
            if indent <= self.parent:
                return False
            self.indent = indent
        return indent >= self.indent


def _scan(line: str, quote: str) -> tuple[int | None, str]:
    """Return where the line's comment starts, if it has one, and the quote that is still open at its end."""
    position, length, token_starts = 0, len(line), True
    while position < length:
        character = line[position]
        if quote:
            if quote == '"' and character == "\\":
                position += 1
            elif character == quote:
                if quote == "'" and line[position + 1 : position + 2] == "'":
                    position += 1
                else:
                    quote = ""
            token_starts = False
        elif character == "#" and (position == 0 or line[position - 1] in " \t"):
            return position, ""
        elif character in "\"'" and token_starts:
            quote = character
        else:
            token_starts = _token_may_start(line, position, token_starts)
        position += 1
    return None, quote


def _token_may_start(line: str, position: int, before: bool) -> bool:
    """Return whether a quoted scalar could start right after this character: a quote inside a plain scalar is text."""
    character = line[position]
    if character in " \t":
        return before
    if character in "[{,":
        return True
    if character == ":" and line[position - 1 : position] in ('"', "'"):
        return True  # After a quoted key in a flow mapping no space is needed.
    return character in ":-?" and (position + 1 == len(line) or line[position + 1] in " \t")
