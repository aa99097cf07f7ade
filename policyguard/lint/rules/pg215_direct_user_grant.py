"""An allow to one person instead of a role outlives that person's task."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import WORKLOADS, words

CODE = "PG215"
NAME = "direct-user-grant"
SEVERITY = "warning"
HELP = "allow it to a role and bind the person to the role, with an end date"


def check(context: Context) -> Iterator[Hit]:
    """Yield each person whom an allow names; workloads may be named, and a rule with an end date is a decision."""
    for rule in context.allows:
        for subject in rule.subjects if rule.expires is None else ():
            kind = subject.partition(":")[0]
            if kind in context.schema.subjects and not set(words(kind)) & WORKLOADS:
                yield Hit(context.item(rule.span, "subjects", subject), f"`{rule.id}` allows to `{subject}` directly")
