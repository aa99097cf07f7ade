"""One person may change what decides about that person: roles, policies, approvals or keys, without a second one."""

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
    """Yield each allow of a change to a type that holds power, where no quorum is required for all of its actions."""
    for rule in context.allows:
        changes = [action for action in with_verb(rule.actions, CHANGE_VERBS) if type_words(action) & POWER_TYPES]
        if changes and not any(guard.quorum for guard in context.guards(rule, "require")):
            message = f"`{rule.id}` lets one person alone do `{changes[0]}`"
            yield Hit(context.item(rule.span, "actions", changes[0]), message)
