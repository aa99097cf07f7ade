"""A rule or binding has expired and has no effect."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.values import format_instant

CODE = "PG601"
NAME = "expired-rule"
SEVERITY = "warning"
PRODUCED_BY = "load and lint"
HELP = "remove it, or set a new end date if it is still needed"
FIXABLE = True


def check(context: Context) -> Iterator[Hit]:
    """Yield each rule and, for information only, each binding whose `expires` is not after now."""
    for rule in context.rules:
        if rule.expires is not None and rule.expires <= context.now:
            yield Hit(context.field(rule.span, "expires"), f"`{rule.id}` expired on {format_instant(rule.expires)}")
    for binding in context.policy_set.bindings:
        if binding.expires is not None and binding.expires <= context.now:
            message = f"`{binding.subject}` as `{binding.role}` expired on {format_instant(binding.expires)}"
            yield Hit(context.field(binding.span, "expires"), message, severity="information")
