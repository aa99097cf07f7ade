"""Finds the comments in a YAML text: YAML parsers drop them, but suppressions are comments.

A `#` starts a comment only at the start of a line or after white space, and never inside a quoted or a block scalar
(YAML 1.2.2, sections 6.6 and 8.1). The scan goes line by line and does not validate: it runs on text that the strict
reader has accepted. If it is unsure whether a `#` is inside a scalar, it reports no comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK_HEADER = re.compile(r"(?:^|[\s:\-?])[|>][+-]?(?P<indent>[1-9])?[+-]?\s*$")
_INDICATORS = re.compile(r"\s*(?:[-?](?:\s+|$))*")


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment with its `#`; `alone` is True if nothing else is on its line. Line and column start at one."""

    text: str
    line: int
    column: int
    alone: bool


def comments(text: str) -> Iterator[Comment]:
    """Yield the comments of a YAML text in order."""
    state = _Open()
    block: _Block | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if block is not None and block.holds(line):
            continue
        block = None
        hash_at = state.comment_in(line)
        if hash_at is not None:
            yield Comment(line[hash_at:], number, hash_at + 1, not line[:hash_at].strip())
        if not state.quote:
            block = _Block.opened_by(line if hash_at is None else line[:hash_at])


@dataclass(slots=True)
class _Block:
    """An open block scalar: its lines are indented more than its parent, or as much as its first line."""

    parent: int
    indent: int | None = None

    @classmethod
    def opened_by(cls, code: str) -> _Block | None:
        """Return the block scalar whose header ends this line (without its comment), or None."""
        header = _BLOCK_HEADER.search(code)
        if header is None:
            return None
        lead = _INDICATORS.match(code)
        column = lead.end() if lead is not None else 0
        parent = column if ":" in code else code.rfind("-", 0, column)
        return cls(parent, max(parent, 0) + int(header["indent"]) if header["indent"] else None)

    def holds(self, line: str) -> bool:
        """Return True if the line belongs to the scalar; the first one that does sets the indentation."""
        stripped = line.lstrip(" ")
        if not stripped:
            return True
        indent = len(line) - len(stripped)
        if self.indent is None:
            if indent <= self.parent:
                return False
            self.indent = indent
        return indent >= self.indent


@dataclass(slots=True)
class _Open:
    """State from one line to the next: the quote of an open scalar, and the number of open flow collections."""

    quote: str = ""
    depth: int = 0

    def comment_in(self, line: str) -> int | None:
        """Return the position of the line's comment; None if there is none."""
        position, token_starts = 0, True
        while position < len(line):
            character = line[position]
            if self.quote:
                position = self._within(line, position)
                token_starts = False
            elif character == "#" and (position == 0 or line[position - 1] in " \t"):
                return position
            elif token_starts and character in "\"'":
                self.quote = character
            else:
                token_starts = self._token_may_start(line, position, token_starts)
            position += 1
        return None

    def _within(self, line: str, position: int) -> int:
        """Return the last position of this character or escape of a quoted scalar; a closing quote ends it."""
        character = line[position]
        escaped = self.quote == '"' and character == "\\"
        doubled = character == self.quote == "'" and line[position + 1 : position + 2] == "'"
        if escaped or doubled:
            return position + 1
        if character == self.quote:
            self.quote = ""
        return position

    def _token_may_start(self, line: str, position: int, before: bool) -> bool:
        """Return True if a quoted scalar can start after this character; a quote inside a plain scalar is text."""
        character = line[position]
        if character in " \t":
            return before
        if character in "[{" and (before or self.depth):
            self.depth += 1
            return True
        if character in "]}" and self.depth:
            self.depth -= 1
        if character == ",":
            return self.depth > 0
        ends_word = position + 1 == len(line) or line[position + 1] in " \t"
        if character == ":":
            # After a quoted key in a flow mapping no space is needed.
            return ends_word or line[position - 1 : position] in ('"', "'")
        return before and ends_word and character in "-?"
