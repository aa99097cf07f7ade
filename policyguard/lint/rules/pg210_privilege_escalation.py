"""One person alone may change roles, policies, approvals or keys, which control that person's own access."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import CHANGE_VERBS, POWER_TYPES, type_words, with_verb

CODE = "PG210"
NAME = "privilege-escalation"
SEVERITY = "error"
HELP = "add a `require` rule with a quorum for these actions"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow to change a type that controls access, if no quorum is required."""
    for rule in context.allows:
        for action in with_verb(rule.actions, CHANGE_VERBS):
            if type_words(action) & POWER_TYPES and not any(context.guards(rule, action, "require")):
                message = f"`{rule.id}` lets one person alone do `{action}`"
                yield Hit(context.item(rule.span, "actions", action), message)
