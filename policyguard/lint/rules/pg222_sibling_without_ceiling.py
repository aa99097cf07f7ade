"""A ceiling holds for one action, and by another action a job gets more without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policyguard.conditions.queries import Path
from policyguard.lint.bounds import Bound, bounds_of, quantities_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import GROW_VERBS, START_VERBS, with_verb
from policyguard.model.policy import Rule
from policyguard.text import quoted_list

CODE = "PG222"
NAME = "sibling-without-ceiling"
SEVERITY = "warning"
HELP = "add the action to the rules that set the ceiling"

_Bounds = Mapping[str, tuple[Bound, ...]]


def check(context: Context) -> Iterator[Hit]:
    """Yield allows of an action that lacks the ceiling of starting a job, and ceilings of roles that lack an action."""
    bounds = {rule.id: bounds_of(rule) for rule in context.rules}
    limited = {
        (name, path)
        for rule in context.allows
        for action in with_verb(rule.actions, START_VERBS)
        for path in quantities_of(context, rule, action)
        for name in rule.resource_types
        if _is_bounded(context, bounds, rule, action, path)
    }
    for rule in context.allows:
        for action in with_verb(rule.actions, GROW_VERBS):
            for path in sorted(quantities_of(context, rule, action)):
                is_limited = any((name, path) in limited for name in rule.resource_types)
                if is_limited and not _is_bounded(context, bounds, rule, action, path):
                    message = (
                        f"`{rule.id}` allows `{action}` with any `{'.'.join(path)}`, which is limited at the start"
                    )
                    yield Hit(context.item(rule.span, "actions", action), message)
    for rule in context.rules:
        if rule.effect == "deny" and rule.roles:
            yield from _of_role(context, bounds, rule)


def _of_role(context: Context, bounds: _Bounds, ceiling: Rule) -> Iterator[Hit]:
    """Yield the ceiling of some roles if these roles may do another action without it."""
    limits = {bound.path: bound.limit for bound in bounds[ceiling.id] if bound.side == "upper"}
    started = set(with_verb(ceiling.actions, START_VERBS | GROW_VERBS))
    held = {role for name in ceiling.roles for role in context.closed_roles.get(name, ())}
    siblings = {
        (action, path)
        for allow in context.allows
        if not held.isdisjoint(allow.roles) or not allow.roles
        for action in set(with_verb(allow.actions, START_VERBS | GROW_VERBS)) - started
        for path in quantities_of(context, allow, action) & limits.keys()
        if not set(allow.resource_types).isdisjoint(ceiling.resource_types)
    }
    missing = {
        action for action, path in siblings if started and not _is_covered(context, bounds, ceiling, action, path)
    }
    if missing:
        roles = quoted_list(ceiling.roles[:3])
        message = f"`{ceiling.id}` sets a ceiling for {roles}, and none holds for {quoted_list(sorted(missing))}"
        yield Hit(context.field(ceiling.span, "actions"), message)


def _is_bounded(context: Context, bounds: _Bounds, allow: Rule, action: str, path: Path) -> bool:
    """Return True if an allow, or a rule that holds for everyone, bounds the number from above."""
    rules = (allow, *context.guards(allow, action, "deny", "require"))
    return any(bound.path == path and bound.side == "upper" for one in rules for bound in bounds[one.id])


def _is_covered(context: Context, bounds: _Bounds, ceiling: Rule, action: str, path: Path) -> bool:
    """Return True if a deny bounds the number for the same roles, or for everyone by a limit that is no higher."""
    limits = [bound.limit for bound in bounds[ceiling.id] if bound.path == path and bound.limit is not None]
    for rule in context.rules:
        if rule.effect != "deny" or action not in rule.actions:
            continue
        for bound in bounds[rule.id]:
            if bound.path != path or bound.side != "upper":
                continue
            if set(rule.roles) >= set(ceiling.roles) and rule.roles:
                return True
            if not rule.roles and bound.alone and bound.limit is not None and limits and bound.limit <= min(limits):
                return True
    return False
