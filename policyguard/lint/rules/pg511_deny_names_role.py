"""A deny applies only to holders of a role, so losing the role grants access."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.text import quoted_list

CODE = "PG511"
NAME = "deny-names-role"
SEVERITY = "warning"
HELP = "deny by a property of the request, or make the roles exclusive with `exclusive`"


def check(context: Context) -> Iterator[Hit]:
    """Yield each deny that names roles."""
    for rule in context.rules:
        if rule.effect == "deny" and rule.roles:
            roles = quoted_list(rule.roles[:3])
            yield Hit(
                context.field(rule.span, "roles"), f"`{rule.id}` no longer denies a subject that loses the role {roles}"
            )
