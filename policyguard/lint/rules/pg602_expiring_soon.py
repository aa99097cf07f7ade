"""A rule or binding expires within two weeks."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.values import NANOSECONDS_PER_S, Instant, format_instant

CODE = "PG602"
NAME = "expiring-soon"
SEVERITY = "information"
HELP = "extend it now if it is still needed"

NOTICE = 14 * 86_400 * NANOSECONDS_PER_S


def check(context: Context) -> Iterator[Hit]:
    """Yield each rule and binding whose `expires` comes within the next 14 days."""
    for rule in context.rules:
        if _soon(rule.expires, context.now):
            yield Hit(
                context.field(rule.span, "expires"), f"`{rule.id}` expires on {format_instant(rule.expires or 0)}"
            )
    for binding in context.policy_set.bindings:
        if _soon(binding.expires, context.now):
            message = f"`{binding.subject}` as `{binding.role}` expires on {format_instant(binding.expires or 0)}"
            yield Hit(context.field(binding.span, "expires"), message)


def _soon(expires: Instant | None, now: Instant) -> bool:
    return expires is not None and now < expires <= now + NOTICE
