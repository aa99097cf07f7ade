"""A condition uses a time that the requester sends instead of the engine's `now`."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import split_words
from policyguard.model.facts import Assurance

CODE = "PG403"
NAME = "time-read-twice"
SEVERITY = "error"
HELP = "use `now`: one instant for the whole decision, signed with it"
FIXABLE = True

_CLOCKS = frozenset({("now",), ("time",), ("clock",), ("current", "time"), ("timestamp",), ("request", "time")})


def check(context: Context) -> Iterator[Hit]:
    """Yield each read of a timestamp in `context` that has the name of a clock and may be merely claimed."""
    for rule, condition in context.conditions():
        for path, node in value_reads(condition.expression):
            if len(path) == 2 and path[0] == "context" and split_words(path[1]) in _CLOCKS:
                clock = context.attributes(rule, path)
                if any(a.type.kind == "timestamp" and a.assurance == Assurance.CLAIMED for a in clock):
                    message = f"`{'.'.join(path)}` is a clock that the requester sets"
                    yield Hit(condition.at(leftmost(node)), message)
