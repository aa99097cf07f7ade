"""An allow of every action on every resource for everyone disables the policy."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.stars import allows_everything

CODE = "PG204"
NAME = "admin-star-star"
SEVERITY = "error"
HELP = "remove the rule; allow what is needed to the roles that need it"


def check(context: Context) -> Iterator[Hit]:
    """Yield each unconditional allow with a star for subject, action and resource; other lint rules skip it."""
    for rule in context.rules:
        if allows_everything(rule):
            yield Hit(rule.span, f"`{rule.id}` allows everything on everything to everyone")
