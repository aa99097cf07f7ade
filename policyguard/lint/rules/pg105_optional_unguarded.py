"""A deny or require reads an attribute that may be absent; where it is absent, the rule applies."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost, paths_tested, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG105"
NAME = "optional-unguarded"
SEVERITY = "warning"
HELP = "if that is meant, write it: `!has(resource.x) || resource.x > 3`; if not, make the attribute required"


def check(context: Context) -> Iterator[Hit]:
    """Yield, in a deny or require, the first read of each optional attribute that no `has()` tests.

    In an allow such a read is harmless: absence is an error, and an error allows nothing.
    """
    for rule, condition in context.conditions("deny", "require"):
        tested = paths_tested(condition.expression)
        seen = set()
        for path, node in value_reads(condition.expression):
            for depth in range(2, len(path) + 1):
                prefix = path[:depth]
                if prefix in tested or prefix in seen:
                    continue
                if any(attribute.optional for attribute in context.attributes(rule, prefix)):
                    seen.add(prefix)
                    message = f"`{rule.id}` applies wherever the optional `{'.'.join(prefix)}` is absent"
                    yield Hit(condition.at(leftmost(node)), message)
