"""Jobs are allowed, and no rule asks whether the subject is the account that asks."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import paths_tested, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import START_VERBS, type_words, with_verb
from policyguard.model.policy import Rule

CODE = "PG221"
NAME = "subject-not-tied"
SEVERITY = "warning"
HELP = "add a deny with `!has(subject.authenticated) || !subject.authenticated` on the actions that start jobs"

_TIES = frozenset({("subject", "authenticated"), ("subject", "account"), ("subject", "os_user")})


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow that starts jobs, if no condition that applies to its requests reads the account."""
    for rule in context.allows:
        for action in with_verb(rule.actions, START_VERBS):
            guards = context.guards(rule, action, "deny", "require")
            if "job" in type_words(action) and not any(map(_reads_account, (rule, *guards))):
                yield Hit(
                    rule.span, f"`{rule.id}` allows `{action}` and no rule ties the subject to the account that asks"
                )
                break


def _reads_account(rule: Rule) -> bool:
    if rule.when is None:
        return False
    expression = rule.when.expression
    return bool(({path for path, _ in value_reads(expression)} | paths_tested(expression)) & _TIES)
