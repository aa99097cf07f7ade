"""A time without a time zone is ambiguous."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Call, walk

CODE = "PG404"
NAME = "naive-time"
SEVERITY = "error"
HELP = 'write the zone: `2026-03-01T09:00:00Z`, `now.getHours("+02:00")`, or `"UTC"` where it is meant'
FIXABLE = True
PRODUCED_BY = "load and lint"

_WALL_CLOCK = {
    f"timestamp_to_{part}": name
    for part, name in (
        ("hours", "getHours"),
        ("minutes", "getMinutes"),
        ("day_of_week", "getDayOfWeek"),
        ("month", "getMonth"),
        ("day_of_month", "getDayOfMonth"),
        ("day_of_month_1_based", "getDate"),
        ("day_of_year", "getDayOfYear"),
    )
}


def check(context: Context) -> Iterator[Hit]:
    """Yield each call that takes the hour, day or month of a time without a zone."""
    for _, condition in context.conditions():
        for node in walk(condition.expression):
            if isinstance(node, Call) and node.function in _WALL_CLOCK and len(node.arguments) == 1:
                name = _WALL_CLOCK[node.function]
                yield Hit(condition.at(leftmost(node)), f'`{name}()` has no zone, expected one such as `{name}("UTC")`')
