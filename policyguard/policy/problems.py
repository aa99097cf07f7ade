"""Collects the errors of one load; suggests known names for unknown ones, and detects duplicate ids."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable
from typing import TypeAlias

from policyguard.errors import PolicyError
from policyguard.policy.nodes import Node
from policyguard.text import quoted, quoted_list
from policyguard.values import Span

MAX_COMPARISONS = 200_000
"""The number of names compared for suggestions in one load, about half a second's work."""


class Problems:
    """The errors of one load, in the order in which they were reported."""

    def __init__(self) -> None:
        self.errors: list[PolicyError] = []
        self.comparisons = 0

    def add(self, at: Node | Span, code: str, message: str, help: str | None = None) -> None:
        """Report an error at a node or span.

        Args:
            at: the node or span.
            code: the lint code.
            message: what is wrong.
            help: what to do next.
        """
        span = at if isinstance(at, Span) else at.span
        self.errors.append(PolicyError(message, span=span, code=code, help=help))

    def unknown(
        self, at: Node | Span, code: str, what: str, unknown: str, known: Iterable[str], *, where: str = ""
    ) -> None:
        """Report an unknown name, and suggest the nearest known one.

        Args:
            at: the node or span of the name.
            code: the code of the lint rule.
            what: what the name should be, for the message ("role").
            unknown: the name as written.
            known: the names that are allowed.
            where: a suffix for the message, with a leading space.
        """
        if self.comparisons > MAX_COMPARISONS:
            self.add(at, code, f"unknown {what} {quoted(unknown)}{where}")
            return
        names = sorted(set(known))
        self.comparisons += len(names)
        near = nearest(unknown, names)
        expected = "none is declared" if not names else f"expected {one_of(names, near)}"
        self.add(
            at,
            code,
            f"unknown {what} {quoted(unknown)}{where}, {expected}",
            f"did you mean `{near}`?" if near else None,
        )


def nearest(unknown: str, names: Iterable[str]) -> str | None:
    """Return the known name that the author most likely meant, or None if none is close."""
    matches = difflib.get_close_matches(unknown[:200], list(names), n=1, cutoff=0.6)
    if matches:
        return matches[0]
    folded = unknown.casefold()
    return next((name for name in names if name.casefold() == folded), None)


def one_of(names: list[str], near: str | None = None, max_names: int = 8) -> str:
    """Format names as "one of `a`, `b` and 3 more".

    Args:
        names: the names in order.
        near: the name to list first, if it is among them.
        max_names: the number of names to list.
    """
    ordered = [near, *(name for name in names if name != near)] if near in names else names
    listed = quoted_list(ordered, max_names=max_names)
    return listed if len(ordered) == 1 else f"one of {listed}"


def fold(name: str) -> str:
    """Normalize a name for comparing ids: NFC and case-folded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


FirstUses: TypeAlias = "dict[str, tuple[str, Span]]"
"""Folded id to the id as first written, and its span."""


def register_id(identifier: str, at: Node | Span, first_uses: FirstUses, what: str, problems: Problems) -> bool:
    """Register an id; report a duplicate, also one that differs only in case or Unicode form.

    Args:
        identifier: the id as written.
        at: the node or span of the noun that has it.
        first_uses: the ids registered so far; changed in place.
        what: what the id names, for the message ("rule").
        problems: where errors are added.

    Returns:
        True if the id is new.
    """
    span = at if isinstance(at, Span) else at.span
    first = first_uses.setdefault(fold(identifier), (identifier, span))
    if first[1] is span:
        return True
    like = "" if first[0] == identifier else f" (reads like {quoted(first[0])})"
    problems.add(span, "PG006", f"duplicate {what} {quoted(identifier)}{like}, first at {first[1]}")
    return False
