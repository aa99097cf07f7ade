"""A verdict is compared with another word than `clean`, so that a verdict of another name passes."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import comparisons, leftmost, memberships, text_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import VERDICTS, last_words
from policyguard.model.expression import Call, Expression
from policyguard.model.policy import Rule

CODE = "PG224"
NAME = "verdict-by-name"
SEVERITY = "warning"
HELP = "compare with `clean`: deny what is not `clean`, allow what is"

_CLEAN = "clean"


def check(context: Context) -> Iterator[Hit]:
    """Yield each comparison of a verdict with other words, unless a deny for everyone compares it with `clean`."""
    named = {rule.id: list(_compared(rule.when.expression)) for rule in context.rules if rule.when is not None}
    for rule, condition in context.conditions():
        if all(_is_guarded(context, rule, action, named) for action in rule.actions):
            continue
        for verdicts, node in named[rule.id]:
            if verdicts != [_CLEAN]:
                message = f"`{rule.id}` compares a verdict with {', '.join(f'`{verdict}`' for verdict in verdicts)}"
                yield Hit(condition.at(leftmost(node)), message)


def _compared(expression: Expression) -> Iterator[tuple[list[str], Call]]:
    """Yield the words that each verdict is compared with."""
    for path, operator, literal, node in comparisons(expression):
        if last_words(path) & VERDICTS and operator in ("equals", "not_equals"):
            yield [text_of(literal)], node
    for path, literals, node in memberships(expression):
        if last_words(path) & VERDICTS:
            yield [text_of(literal) for literal in literals], node


def _is_guarded(context: Context, rule: Rule, action: str, named: dict[str, list[tuple[list[str], Call]]]) -> bool:
    return any(
        verdicts == [_CLEAN]
        for guard in context.guards(rule, action, "deny", "require")
        if guard.effect == "deny"
        for verdicts, _ in named.get(guard.id, ())
    )
