"""Weights or data may be exported without a second person and without a check of their classification."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import CLASSES, DATA_TYPES, EXPORT_VERBS, last_words, type_words, with_verb
from policyguard.model.policy import Rule

CODE = "PG214"
NAME = "egress-or-export-unrestricted"
SEVERITY = "warning"
HELP = "check the classification or the licence in a condition, or require a quorum"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow to export weights or data if neither it nor a guard checks a classification or a quorum."""
    for rule in context.allows:
        for action in with_verb(rule.actions, EXPORT_VERBS) if not _tests_class(rule) else ():
            guards = context.guards(rule, action, "deny", "require")
            if type_words(action) & DATA_TYPES and not any(guard.quorum or _tests_class(guard) for guard in guards):
                message = f"`{rule.id}` allows `{action}` without a check of its classification"
                yield Hit(context.item(rule.span, "actions", action), message)


def _tests_class(rule: Rule) -> bool:
    return rule.when is not None and any(last_words(path) & CLASSES for path, _ in value_reads(rule.when.expression))
