"""Describes how two values of one fact differ, in one short line. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from policyguard.text import MAX_QUOTED_CHARS, printable
from policyguard.values import Value, canonical

MAX_CHARS = 400
MAX_ITEMS = 5


def difference(before: Value | None, after: Value) -> str:
    """Describe a difference: `dirty_files: + optim.py; tree: was 4d1f..., is 9e02...`."""
    if before is None:
        return "was not measured at the decision"
    text = "; ".join(_changes(before, after)) or "changed"
    return printable(text, MAX_CHARS)


def _changes(before: Value, after: Value) -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            f"{name}: {' '.join(_members(before.get(name), after.get(name)))}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return _members(before, after)


def _members(before: Value | None, after: Value | None) -> list[str]:
    """List the members that were changed, added and removed; a record with a `path` is named by it."""
    if isinstance(before, tuple) and isinstance(after, tuple):
        was, now = {_name(value): value for value in before}, {_name(value): value for value in after}
        changed = [f"~ {name}" for name in sorted(was.keys() & now.keys()) if was[name] != now[name]]
        added = [f"+ {name}" for name in sorted(now.keys() - was.keys())]
        removed = [f"- {name}" for name in sorted(was.keys() - now.keys())]
        items = [*changed, *added, *removed]
        return items if len(items) <= MAX_ITEMS else [*items[:MAX_ITEMS], f"and {len(items) - MAX_ITEMS} more"]
    return [f"was {_describe(before)}, is {_describe(after)}"]


def _name(value: Value) -> str:
    return str(value["path"]) if isinstance(value, Mapping) and "path" in value else _describe(value)


def _describe(value: Value | None) -> str:
    if value is None:
        return "absent"
    return printable(value if isinstance(value, str) else canonical(value).decode(), MAX_QUOTED_CHARS)
