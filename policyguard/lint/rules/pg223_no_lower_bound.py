"""A number has an upper bound and no lower one, so 0 and negative numbers are allowed."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.bounds import bounds_of, quantities_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import GROW_VERBS, START_VERBS, with_verb

CODE = "PG223"
NAME = "no-lower-bound"
SEVERITY = "warning"
HELP = "write `resource.gpus >= 1 && ...`, or deny `resource.gpus < 1` for the same actions"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow whose number of GPUs, nodes or hours is bounded from above alone."""
    bounds = {rule.id: bounds_of(rule) for rule in context.rules}
    for rule in context.allows:
        for action in with_verb(rule.actions, START_VERBS | GROW_VERBS):
            rules = (rule, *context.guards(rule, action, "deny", "require"))
            sides = {(bound.path, bound.side) for one in rules for bound in bounds[one.id]}
            for path in sorted(quantities_of(context, rule, action)):
                if (path, "upper") in sides and (path, "lower") not in sides:
                    message = f"`{rule.id}` allows `{action}` with 0 or fewer `{'.'.join(path)}`, all of them to some"
                    yield Hit(context.item(rule.span, "actions", action), message)
