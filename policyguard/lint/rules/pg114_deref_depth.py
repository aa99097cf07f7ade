"""A path is so deep that a reviewer cannot see where its value comes from."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG114"
NAME = "deref-depth"
SEVERITY = "error"
HELP = "lift the attribute to the entity, where it can have an assurance of its own"

MAX_DEPTH = 5
"""Names after `resource`, `subject` or `context`."""


def check(context: Context) -> Iterator[Hit]:
    """Yield each path with more than `MAX_DEPTH` names after its entity."""
    for _, condition in context.conditions():
        for path, node in value_reads(condition.expression):
            if len(path) - 1 > MAX_DEPTH:
                message = f"`{'.'.join(path)}` is {len(path) - 1} attributes deep, expected at most {MAX_DEPTH}"
                yield Hit(condition.at(leftmost(node)), message)
