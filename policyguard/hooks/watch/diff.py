"""What differs between two values of one fact, in one short line. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from policyguard.text import MAX_QUOTED_CHARS, printable
from policyguard.values import Value, canonical

MOST_WORDS = 400
MOST_ITEMS = 5


def difference(before: Value | None, after: Value) -> str:
    """Return the difference in words: `dirty_files: + optim.py; tree: was 4d1f..., is 9e02...`."""
    if before is None:
        return "was not measured at the decision"
    words = "; ".join(_words(before, after)) or "changed"
    return printable(words, MOST_WORDS)


def _words(before: Value, after: Value) -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            f"{name}: {' '.join(_members(before.get(name), after.get(name)))}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    return _members(before, after)


def _members(before: Value | None, after: Value | None) -> list[str]:
    """Say which members of a list came and went; a record that has a `path` is named by it."""
    if isinstance(before, tuple) and isinstance(after, tuple):
        was, now = {_name(each): each for each in before}, {_name(each): each for each in after}
        changed = [f"~ {name}" for name in sorted(was.keys() & now.keys()) if was[name] != now[name]]
        came = [f"+ {name}" for name in sorted(now.keys() - was.keys())]
        went = [f"- {name}" for name in sorted(was.keys() - now.keys())]
        found = [*changed, *came, *went]
        return found if len(found) <= MOST_ITEMS else [*found[:MOST_ITEMS], f"and {len(found) - MOST_ITEMS} more"]
    return [f"was {_short(before)}, is {_short(after)}"]


def _name(value: Value) -> str:
    return str(value["path"]) if isinstance(value, Mapping) and "path" in value else _short(value)


def _short(value: Value | None) -> str:
    if value is None:
        return "absent"
    return printable(value if isinstance(value, str) else canonical(value).decode(), MAX_QUOTED_CHARS)
