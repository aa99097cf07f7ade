"""A rule or quorum names a role that nobody holds, directly or by inheritance."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG505"
NAME = "unreachable-role"
SEVERITY = "warning"
HELP = "bind somebody to it, or remove the rule or quorum that names it"


def check(context: Context) -> Iterator[Hit]:
    """Yield each role that an allow or quorum names but no binding grants; nothing if bindings are stored elsewhere."""
    policies = context.policy_set
    if policies.binding_sources or not policies.bindings:
        return
    required = {role for rule in context.allows for role in rule.roles}
    required.update(role for quorum in policies.quorums for group in quorum.approvers for role in group.roles)
    for role in policies.roles:
        if role.name in required and not context.bindings_to(role.name):
            yield Hit(role.span, f"role `{role.name}` is required, but no binding grants it to anyone")
