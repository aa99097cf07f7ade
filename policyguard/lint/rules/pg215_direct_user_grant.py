"""An allow names a person instead of a role, so it remains after the person's task has ended."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import WORKLOADS, split_words

CODE = "PG215"
NAME = "direct-user-grant"
SEVERITY = "warning"
HELP = "allow it to a role and bind the person to the role, with an end date"


def check(context: Context) -> Iterator[Hit]:
    """Yield each person that an allow without an end date names; workloads may be named."""
    for rule in context.allows:
        for subject in rule.subjects if rule.expires is None else ():
            kind = subject.partition(":")[0]
            if kind in context.schema.subjects and not set(split_words(kind)) & WORKLOADS:
                yield Hit(context.item(rule.span, "subjects", subject), f"`{rule.id}` allows to `{subject}` directly")
