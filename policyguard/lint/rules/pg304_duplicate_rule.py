"""Two rules have the same meaning; a change to one of them has no effect."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import conjuncts
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.policy import Rule

CODE = "PG304"
NAME = "duplicate-rule"
SEVERITY = "warning"
HELP = "remove one of them"
FIXABLE = True


def check(context: Context) -> Iterator[Hit]:
    """Yield each rule that repeats an earlier one; the order of lists and of operands of `&&` does not matter."""
    first: dict[tuple[object, ...], Rule] = {}
    for rule in context.rules:
        other = first.setdefault(_meaning(rule), rule)
        if other is not rule:
            yield Hit(rule.span, f"`{rule.id}` means the same as `{other.id}`", related=(other.span,))


def _meaning(rule: Rule) -> tuple[object, ...]:
    """Return everything that affects a decision or its explanation, in a normal form."""
    return (
        rule.effect,
        rule.actions,
        rule.resource_types,
        frozenset(rule.roles),
        frozenset(rule.subjects),
        rule.id_pattern,
        frozenset(conjuncts(rule.when.expression)) if rule.when is not None else None,
        rule.assurance,
        rule.quorum,
        rule.scope,
        rule.reason,
        frozenset(rule.obligations),
        rule.not_before,
        rule.expires,
    )
