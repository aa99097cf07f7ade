"""A destructive action is allowed without any condition."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import DESTROY_VERBS, with_verb

CODE = "PG213"
NAME = "write-without-condition"
SEVERITY = "warning"
HELP = "add a condition (`when: resource.owner == subject.id`) or a `require` rule with a quorum"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow to delete or overwrite that has no condition, if no deny or require covers it."""
    for rule in context.allows:
        for action in with_verb(rule.actions, DESTROY_VERBS) if rule.when is None else ():
            if not any(context.guards(rule, action, "deny", "require")):
                message = f"`{rule.id}` allows `{action}` unconditionally"
                yield Hit(context.item(rule.span, "actions", action), message)
