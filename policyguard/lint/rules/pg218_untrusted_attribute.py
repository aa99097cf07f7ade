"""An allow depends only on attributes that the requester claims."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.facts import Assurance

CODE = "PG218"
NAME = "untrusted-attribute"
SEVERITY = "warning"
HELP = "set a minimum `assurance` for the attribute in the schema, such as `observed`, or use one that has it"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow whose condition reads attributes of the schema, all of which may be merely claimed."""
    for rule, condition in context.conditions("allow"):
        claimed = []
        for path, node in value_reads(condition.expression):
            attributes = context.attributes(rule, path[:2])
            if any(attribute.assurance > Assurance.CLAIMED for attribute in attributes):
                break
            claimed += [(path, node)] if attributes else []
        else:
            if claimed:
                path, node = claimed[0]
                message = f"`{rule.id}` depends on `{'.'.join(path)}`, which the requester may merely claim"
                yield Hit(condition.at(leftmost(node)), message)
