"""An allow rests on nothing but what the requester says about themself."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.facts import Assurance

CODE = "PG218"
NAME = "untrusted-attribute"
SEVERITY = "warning"
HELP = (
    "give the attribute a least `assurance` in the schema (`observed`, `measured`, `attested`), or ask for one that has"
)


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow whose condition reads attributes of the schema, all of which count when merely claimed."""
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
                message = f"`{rule.id}` rests on `{'.'.join(path)}`, which counts when the requester merely claims it"
                yield Hit(condition.at(leftmost(node)), message)
