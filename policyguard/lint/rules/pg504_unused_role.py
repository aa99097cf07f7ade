"""A role has no effect: no rule, quorum or exclusion depends on it."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG504"
NAME = "unused-role"
SEVERITY = "warning"
HELP = "name it in a rule, or remove it; a misspelt rule may be why it is unused"


def check(context: Context) -> Iterator[Hit]:
    """Yield each role that no rule, quorum, exclusion or `trace` names, nor any role that it inherits."""
    policies = context.policy_set
    named = set(policies.trace_roles)
    named.update(role for rule in policies.rules for role in rule.roles)
    named.update(role for quorum in policies.quorums for group in quorum.approvers for role in group.roles)
    named.update(role for exclusion in policies.exclusions for role in exclusion.roles)
    for role in policies.roles:
        if not context.closed_roles[role.name] & named:
            yield Hit(role.span, f"role `{role.name}` is used by no rule, quorum or exclusion")
