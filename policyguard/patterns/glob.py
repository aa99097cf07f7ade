"""Globs over paths, segment by segment and without backtracking. Opens nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

Segment: TypeAlias = "str | tuple[str, tuple[str, ...], str]"
Block: TypeAlias = tuple[Segment, ...]

CACHED_LENGTH = 512
"""Longer patterns are not cached: they may come from facts, which could fill the cache."""


def glob(path: str, pattern: str) -> bool:
    """Return True if the whole path matches the pattern, segment by segment.

    pattern = segment *( "/" segment ); segment = "**" / *( "*" / character )

    `*` is any run of characters inside one segment, `**` any number of whole segments, none included; all else is
    itself. Never backtracks: the time is at most proportional to the length of the path times that of the pattern.
    """
    if len(pattern) > CACHED_LENGTH:
        return _walk(path, _blocks(pattern))
    return _matcher(pattern)(path)


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Callable[[str], bool]:
    """Choose the cheapest exact test: a comparison, a linear-time regular expression, or a walk."""
    if "*" not in pattern:
        return pattern.__eq__
    *segments, last = pattern.split("/")
    # At most one star a segment and `**` at the end only: every try ends inside its segment, so the time is linear.
    if segments and last == "**" and "**" not in segments and all(part.count("*") < 2 for part in segments):
        return _searched("/".join(map(_expression, segments)) + "(?:/.*)?")
    if "**" not in (*segments, last) and all(part.count("*") < 2 for part in (*segments, last)):
        return _searched("/".join(map(_expression, (*segments, last))))
    blocks = _blocks(pattern)
    return lambda path: _walk(path, blocks)


def _expression(segment: str) -> str:
    return "[^/]*".join(map(re.escape, segment.split("*")))


def _searched(expression: str) -> Callable[[str], bool]:
    fullmatch = re.compile(expression, re.DOTALL).fullmatch
    return lambda path: fullmatch(path) is not None


def _walk(path: str, blocks: tuple[Block, ...]) -> bool:
    segments = path.split("/")
    first = blocks[0]
    if len(blocks) == 1:
        return len(first) == len(segments) and _fits(segments, 0, first)
    last = blocks[-1]
    end = len(segments) - len(last)
    if len(first) > end or not _fits(segments, 0, first) or not _fits(segments, end, last):
        return False
    position = len(first)
    for block in blocks[1:-1]:
        while position + len(block) <= end and not _fits(segments, position, block):
            position += 1
        position += len(block)
        if position > end:
            return False
    return True


def _fits(segments: list[str], start: int, block: Block) -> bool:
    return all(_fit(segments[start + index], segment) for index, segment in enumerate(block))


def _fit(text: str, segment: Segment) -> bool:
    if isinstance(segment, str):
        return text == segment
    prefix, middles, suffix = segment
    end = len(text) - len(suffix)
    if len(prefix) > end or not text.startswith(prefix) or not text.endswith(suffix):
        return False
    position = len(prefix)
    for middle in middles:
        start = text.find(middle, position, end)
        if start < 0:
            return False
        position = start + len(middle)
    return True


def _blocks(pattern: str) -> tuple[Block, ...]:
    blocks: list[list[Segment]] = [[]]
    for segment in pattern.split("/"):
        if segment == "**":
            blocks.append([])
        elif "*" in segment:
            prefix, *middles, suffix = segment.split("*")
            blocks[-1].append((prefix, tuple(middle for middle in middles if middle), suffix))
        else:
            blocks[-1].append(segment)
    return tuple(tuple(block) for block in blocks)
