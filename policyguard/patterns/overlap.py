"""The syntax of id patterns, and whether two of them can match the same id.

pattern = segment *( "/" segment )
segment = "**" / "{team}" / part, where a part is literal text in which "*" matches any run of characters

`**` is any number of whole segments; `{team}` is one segment and names the domain. `glob.py` matches ids; this module
only compares patterns, when policies load.
"""

from __future__ import annotations

from policyguard.model.ids import id_problem
from policyguard.patterns.id_pattern import DOMAIN
from policyguard.text import printable

_REFUSED = frozenset("/{}[]?\\")
"""Characters of no part of a pattern; white space is the other kind."""


def pattern_problem(pattern: str) -> str | None:
    """Say what is wrong with a pattern; None if nothing is."""
    segments = pattern.split("/")
    if len(pattern) > 512 or len(segments) > 32:
        return "is longer than 512 characters or 32 segments"
    for segment in segments:
        if segment in ("**", DOMAIN):
            continue
        if segment in ("", ".", ".."):
            return f"has the segment `{segment}`, which no id has" if segment else "has an empty segment"
        if "**" in segment:
            return "has `**` inside a segment, where it must be one by itself"
        if not _REFUSED.isdisjoint(segment) or segment.split() != [segment]:
            return f"has the segment `{printable(segment, 60)}`, where only `*`, `**` and `{DOMAIN}` are special"
    if id_problem(pattern.replace(DOMAIN, "x").replace("*", "x")) is not None:
        return "has what no id has: characters that cannot be seen, not in composed form (NFC), or percent-encoded"
    if segments.count(DOMAIN) > 1:
        return f"has `{DOMAIN}` twice"
    if DOMAIN in segments and "**" in segments[: segments.index(DOMAIN)]:
        return f"has `**` before `{DOMAIN}`, so that no one segment is the domain"
    return None


def overlap(one: str, other: str) -> bool:
    """Return True if some id may match both patterns; never False if one does."""
    first, second = one.split("/"), other.split("/")
    reach = {(0, 0)}
    seen = set(reach)
    while reach:
        i, j = reach.pop()
        if i == len(first) and j == len(second):
            return True
        for step in _steps(first, i, second, j):
            if step not in seen:
                seen.add(step)
                reach.add(step)
    return False


def _steps(first: list[str], i: int, second: list[str], j: int) -> list[tuple[int, int]]:
    """List the positions in both patterns after one more segment of a common id."""
    steps = []
    if i < len(first) and first[i] == "**":
        steps.append((i + 1, j))
    if j < len(second) and second[j] == "**":
        steps.append((i, j + 1))
    if i < len(first) and j < len(second) and segments_overlap(first[i], second[j]):
        steps.append((i if first[i] == "**" else i + 1, j if second[j] == "**" else j + 1))
    return steps


def segments_overlap(one: str, other: str) -> bool:
    """Return True if one segment may match both; the text between stars is not compared."""
    if one in ("**", DOMAIN) or other in ("**", DOMAIN):
        return True
    if "*" not in one and "*" not in other:
        return one == other
    head, head_ = one.partition("*")[0], other.partition("*")[0]
    tail, tail_ = one.rpartition("*")[2], other.rpartition("*")[2]
    if "*" not in one:
        return one.startswith(head_) and one.endswith(tail_) and len(one) >= len(head_) + len(tail_)
    if "*" not in other:
        return other.startswith(head) and other.endswith(tail) and len(other) >= len(head) + len(tail)
    return (head.startswith(head_) or head_.startswith(head)) and (tail.endswith(tail_) or tail_.endswith(tail))
