"""A measured fact can deny what is submitted, and a job is started whatever was measured."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import Path, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import QUANTITIES, RUN_VERBS, SUBMIT_VERBS, last_words, with_verb
from policyguard.model.facts import Assurance
from policyguard.model.policy import Rule

CODE = "PG225"
NAME = "start-without-measurement"
SEVERITY = "warning"
HELP = "add the action to the rule that denies by this fact"


def check(context: Context) -> Iterator[Hit]:
    """Yield allows of starting a job that no rule for everyone limits by a fact which denies submitting one."""
    judged = [(rule, facts) for rule in context.rules if (facts := _judged(context, rule))]
    for allow in context.allows if judged else ():
        for action in with_verb(allow.actions, RUN_VERBS):
            rules = (allow, *context.guards(allow, action, "deny", "require"))
            seen = {path for rule in rules for path in _facts(rule)}
            for rule, facts in judged:
                if set(rule.resource_types) & set(allow.resource_types):
                    for path in sorted(facts - seen):
                        message = (
                            f"`{allow.id}` allows `{action}` with any `{'.'.join(path)}`, by which `{rule.id}` denies"
                        )
                        yield Hit(context.item(allow.span, "actions", action), message)
                    seen |= facts


def _judged(context: Context, rule: Rule) -> set[Path]:
    """List the measured facts by which a rule denies everyone to submit; numbers of GPUs are for PG222."""
    if rule.effect != "deny" or rule.roles or rule.subjects or not any(with_verb(rule.actions, SUBMIT_VERBS)):
        return set()
    return {
        path
        for path in _facts(rule)
        if not last_words(path) & QUANTITIES
        and any(attribute.assurance >= Assurance.MEASURED for attribute in context.attributes(rule, path))
    }


def _facts(rule: Rule) -> set[Path]:
    if rule.when is None:
        return set()
    return {path[:2] for path, _ in value_reads(rule.when.expression) if path[0] == "resource" and len(path) > 1}
