"""The syntax tree of a YAML file: scalars, mappings and sequences, with their positions.

A scalar records its range in the source text, so that an offset inside its value (a column inside a condition) maps
back to the line and column in the file. This module opens nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, TypeAlias

from policyguard.values import Span

Style = Literal["plain", "single", "double", "literal", "folded", "refused"]
"""How a scalar is written. `refused` marks a placeholder for an alias, which the reader has already reported."""


class Source:
    """A file's name and text; converts offsets to spans."""

    __slots__ = ("_starts", "file", "text")

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self._starts: list[int] = []

    def span(self, index: int) -> Span:
        """Return the span of an offset, in code points from the start of the text."""
        if not self._starts:
            self._starts = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(self._starts, index)
        return Span(self.file, line, index - self._starts[line - 1] + 1)


class _Positioned:
    """A node at an offset of a source; line and column are computed on demand."""

    __slots__ = ("index", "source")
    source: Source
    index: int

    @property
    def span(self) -> Span:
        return self.source.span(self.index)

    @property
    def line(self) -> int:
        return self.span.line

    @property
    def column(self) -> int:
        return self.span.column


class Scalar(_Positioned):
    """A text with quotes, escapes and folding resolved; `index` to `end` is its range in the source."""

    __slots__ = ("end", "style", "text")

    def __init__(self, source: Source, index: int, end: int, text: str, style: Style) -> None:
        self.source = source
        self.text = text
        self.style = style
        self.index = index
        self.end = end

    def __repr__(self) -> str:
        return f"Scalar({self.text!r}, {self.span})"

    def at(self, offset: int) -> Span:
        """Return the span of the character at this offset of `text`; past the end, just after the last one."""
        origins = self.origins()
        if not origins:
            return self.span
        if offset >= len(origins):
            return self.source.span(origins[-1] + 1)
        return self.source.span(origins[max(offset, 0)])

    def segments(self) -> tuple[tuple[int, int, int], ...]:
        """Return (offset, line, column) for each segment of `text` that is contiguous in the file, in order."""
        if self.style == "plain" and self.end - self.index == len(self.text):
            return ((0, self.span.line, self.span.column),)
        segments: list[tuple[int, int, int]] = []
        before = -2
        for offset, origin in enumerate(self.origins()):
            if origin != before + 1 or self.source.text[before] == "\n":
                span = self.source.span(origin)
                segments.append((offset, span.line, span.column))
            before = origin
        return tuple(segments)

    def origins(self) -> list[int]:
        """Return the source offset of each character of `text`.

        Exact for every character that is not white space. White space that comes from folding maps to the line break.
        """
        if self.style == "plain" and self.end - self.index == len(self.text):
            return list(range(self.index, self.end))
        raw = self.source.text[self.index : self.end]
        return [self.index + position for position in _align(self.text, raw, self.style)]


class Mapping(_Positioned):
    """Keys and values in file order; every key is a scalar and unique."""

    __slots__ = ("_by_name", "entries")

    def __init__(self, source: Source, index: int) -> None:
        self.source = source
        self.index = index
        self.entries: list[tuple[Scalar, Node]] = []
        self._by_name: dict[str, Node] = {}

    def __repr__(self) -> str:
        return f"Mapping({[key.text for key, _ in self.entries]!r}, {self.span})"

    def add(self, key: Scalar, node: Node) -> bool:
        """Add an entry; return False and change nothing if the key exists."""
        if key.text in self._by_name:
            return False
        self._by_name[key.text] = node
        self.entries.append((key, node))
        return True

    def get(self, name: str) -> Node | None:
        """Return the node under this key, or None."""
        return self._by_name.get(name)

    def key(self, name: str) -> Scalar | None:
        """Return the scalar of this key, or None."""
        return next((key for key, _ in self.entries if key.text == name), None)


class Sequence(_Positioned):
    """Items in file order."""

    __slots__ = ("items",)

    def __init__(self, source: Source, index: int) -> None:
        self.source = source
        self.index = index
        self.items: list[Node] = []

    def __repr__(self) -> str:
        return f"Sequence({len(self.items)} items, {self.span})"


Node: TypeAlias = Scalar | Mapping | Sequence


def walk(node: Node) -> Iterator[Node]:
    """Yield this node and everything below it, keys included, in file order."""
    stack: list[Node] = [node]
    while stack:
        here = stack.pop()
        yield here
        if isinstance(here, Mapping):
            for key, value in reversed(here.entries):
                stack += (value, key)
        elif isinstance(here, Sequence):
            stack.extend(reversed(here.items))


_SPACE = " \t\r\n"
_ESCAPES = {
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "t": "\t",
    "\t": "\t",
    "n": "\n",
    "v": "\v",
    "f": "\f",
    "r": "\r",
    "e": "\x1b",
    " ": " ",
    '"': '"',
    "/": "/",
    "\\": "\\",
    "N": "\x85",
    "_": "\xa0",
    "L": "\u2028",
    "P": "\u2029",
}
_HEX = {"x": 2, "u": 4, "U": 8}


def _align(text: str, raw: str, style: Style) -> list[int]:
    """Return, for each character of a scalar's value, its offset in the scalar's source `raw`.

    Except for white space, quotes and escapes, both have the same characters in the same order, so one pass pairs them.
    """
    position = _start(raw, style)
    pairs: list[int] = []
    for character in text:
        if character in _SPACE:
            if style == "double" and raw.startswith("\\", position) and _unescape(raw, position)[0] == character:
                pairs.append(position)
                position = _unescape(raw, position)[1]
                continue
            pairs.append(min(position, len(raw) - 1))
            if raw.startswith(character, position) or raw.startswith("\r\n", position):
                position += 2 if raw.startswith("\r\n", position) else 1
            continue
        position = _seek(character, raw, position, style)
        pairs.append(min(position, len(raw) - 1))
        position = _step(raw, position, style)
    return pairs


def _start(raw: str, style: Style) -> int:
    if style in ("literal", "folded"):
        return raw.find("\n") + 1 or len(raw)
    return 1 if style in ("single", "double") else 0


def _seek(character: str, raw: str, position: int, style: Style) -> int:
    """Return the next offset of `character`, skipping white space and escapes of other characters."""
    while position < len(raw):
        if raw[position] in _SPACE:
            position += 1
        elif style == "double" and raw[position] == "\\" and _unescape(raw, position)[0] != character:
            position = _unescape(raw, position)[1]
        else:
            return position
    return position


def _step(raw: str, position: int, style: Style) -> int:
    if style == "double" and raw.startswith("\\", position):
        return _unescape(raw, position)[1]
    if style == "single" and raw.startswith("''", position):
        return position + 2
    return position + 1


def _unescape(raw: str, position: int) -> tuple[str, int]:
    """Decode the escape at this backslash; return the character, "" for a line break, and the end offset."""
    letter = raw[position + 1 : position + 2]
    width = _HEX.get(letter)
    if width is None:
        return _ESCAPES.get(letter, ""), position + (3 if raw.startswith("\r\n", position + 1) else 2)
    return chr(int(raw[position + 2 : position + 2 + width], 16)), position + 2 + width
