"""An emergency rule or role has no end date, requires no reason, or notifies nobody."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import paths_tested, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import last_words, names_break_glass
from policyguard.model.policy import Binding, Rule
from policyguard.text import quoted_list

CODE = "PG219"
NAME = "break-glass-unbounded"
SEVERITY = "error"
HELP = "add `expires`, require a reason (`has(context.ticket)`), and notify somebody with `obligations` or a quorum"

_REASONS = frozenset({"ticket", "reason", "incident", "justification", "case"})


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow and each binding to a role named for emergencies without an end, a reason or a notification."""
    for rule in context.allows:
        missing = list(_missing(context, rule)) if names_break_glass(rule.id) else []
        if missing:
            yield Hit(rule.span, f"`{rule.id}` is an emergency rule without {' and '.join(missing)}")
    for binding in context.policy_set.bindings:
        if names_break_glass(binding.role):
            lacks = [name for name in ("expires", "reason") if getattr(binding, name) is None]
            if lacks:
                message = f"`{binding.subject}` holds `{binding.role}` without {quoted_list(lacks, joiner=' and ')}"
                yield Hit(binding.span, message)


def _missing(context: Context, rule: Rule) -> Iterator[str]:
    quorum = all(any(context.guards(rule, action, "require")) for action in rule.actions)
    holders = [binding for role in rule.roles for binding in context.bindings_to(role)]
    # A quorum gives each use an end: its approvals expire.
    if rule.expires is None and not quorum and not (rule.roles and all(_ends(binding) for binding in holders)):
        yield "an end"
    if rule.reason is None and not _requires_reason(rule):
        yield "a reason"
    if not rule.obligations and not quorum:
        yield "a notification"


def _ends(binding: Binding) -> bool:
    return binding.expires is not None


def _requires_reason(rule: Rule) -> bool:
    if rule.when is None:
        return False
    expression = rule.when.expression
    tested = {path for path, _ in value_reads(expression)} | paths_tested(expression)
    return any(last_words(path) & _REASONS for path in tested)
