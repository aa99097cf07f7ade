"""Patterns of resource ids, such as `team/{team}/**`.

    pattern = segment *( "/" segment )
    segment = "**" / "{team}" / text with "*" for any part of one segment

`{team}` is the resource's domain. Patterns are parsed when the policies load; matching an id is a comparison, a prefix
test, or one linear walk. Opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from policyguard.patterns.glob import glob

DOMAIN = "{team}"

Matcher = Callable[[str], bool]


def domain_index(id_pattern: str | None) -> int | None:
    """Return the index of the segment that holds an id's domain; None for a type without domains."""
    segments = (id_pattern or "").split("/")
    return segments.index(DOMAIN) if DOMAIN in segments else None


def is_aligned(pattern: str | None, type_pattern: str | None) -> bool:
    """Return True if a rule's pattern has `{team}` nowhere, or in the same segment as its type's pattern."""
    return domain_index(pattern) in (None, domain_index(type_pattern))


def literal_domain(pattern: str | None, index: int | None) -> str | None:
    """Return the one domain that a rule's pattern can match; None if there may be several."""
    if pattern is None or index is None:
        return None
    segments = pattern.split("/")
    if "**" in segments[: index + 1] or len(segments) <= index:
        return None
    segment = segments[index]
    return None if segment == DOMAIN or "*" in segment else segment


def literal_prefix(pattern: str | None) -> tuple[str, ...]:
    """List the literal segments that every matching id begins with."""
    prefix: list[str] = []
    for segment in (pattern or "**").split("/"):
        if segment == DOMAIN or "*" in segment:
            break
        prefix.append(segment)
    return tuple(prefix)


def matcher(pattern: str | None, type_pattern: str | None) -> Matcher | None:
    """Build a test for ids that already match their type's pattern; None if every such id matches.

    A `{team}` where the type's own pattern has it is the domain by construction; see `is_aligned` for elsewhere.
    """
    if pattern is None:
        return None
    wild = pattern.replace(DOMAIN, "*")
    if type_pattern is not None and wild == type_pattern.replace(DOMAIN, "*"):
        return None
    if wild == "**":
        return None
    return compiled(wild)


def literal_slice(pattern: str | None, type_patterns: Collection[str | None]) -> tuple[slice, list[str]] | None:
    """Return the one run of literal segments if the pattern requires nothing else, else None.

    For ids that already match their type's pattern, `segments[stretch] == literals` is then the whole test. The run
    ends the pattern but for `**`, so that comparing it also shows that the id is long enough.
    """
    segments = (pattern or "").replace(DOMAIN, "*").split("/")
    if segments[-1] != "**" or any("*" in s and s != "*" for s in segments[:-1]):
        return None
    fixed = {
        at: segment
        for type_pattern in type_patterns
        for at, segment in enumerate(literal_prefix(type_pattern))
        if all(literal_prefix(other)[at : at + 1] == (segment,) for other in type_patterns)
    }
    compared = [at for at, segment in enumerate(segments[:-1]) if segment != "*" and fixed.get(at) != segment]
    if not compared or compared[-1] != len(segments) - 2 or compared != list(range(compared[0], compared[-1] + 1)):
        return None
    return slice(compared[0], compared[-1] + 1), segments[compared[0] : compared[-1] + 1]


def compiled(wild: str) -> Matcher:
    """Build the cheapest exact test for a pattern without `{team}`."""
    if "*" not in wild:
        return _Exactly(wild).matches
    head, _, tail = wild.rpartition("/")
    if tail == "**" and head and "*" not in head:
        return _Under(head).matches
    segments = wild.split("/")
    if tail == "**" and all(segment == "*" or "*" not in segment for segment in segments[:-1]):
        return _Below(segments[:-1]).matches
    return _Glob(wild).matches


class _Exactly:
    __slots__ = ("identifier",)

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier

    def matches(self, identifier: str) -> bool:
        return identifier == self.identifier


class _Glob:
    __slots__ = ("pattern",)

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern

    def matches(self, identifier: str) -> bool:
        return glob(identifier, self.pattern)


class _Below:
    """Matches leading segments, each a literal or `*`, followed by `**`: `team/*/**`."""

    __slots__ = ("count", "literals")

    def __init__(self, segments: list[str]) -> None:
        self.count = len(segments)
        self.literals = tuple((i, segment) for i, segment in enumerate(segments) if segment != "*")

    def matches(self, identifier: str) -> bool:
        parts = identifier.split("/", self.count)
        if len(parts) < self.count:
            return False
        for i, literal in self.literals:
            if parts[i] != literal:
                return False
        return True


class _Under:
    """Matches `head/**`: the id `head`, and everything below it."""

    __slots__ = ("below", "head")

    def __init__(self, head: str) -> None:
        self.head = head
        self.below = head + "/"

    def matches(self, identifier: str) -> bool:
        return identifier.startswith(self.below) or identifier == self.head
