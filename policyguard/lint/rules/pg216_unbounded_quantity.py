"""A job may be started with any number of GPUs, nodes or hours."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import MIRRORED, Path, base_name, value_reads
from policyguard.lint.bounds import quantities_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import START_VERBS, with_verb
from policyguard.model.expression import Call, walk
from policyguard.model.policy import Rule
from policyguard.text import quoted_list

CODE = "PG216"
NAME = "unbounded-quantity"
SEVERITY = "warning"
HELP = "compare a quantity in the condition, `when: resource.gpus <= 64`, or in a deny for the same actions"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow to start something with quantities, if neither it nor a deny or require compares one."""
    bounds = {rule.id: _compared(rule) for rule in context.rules}
    for rule in context.allows:
        for action in with_verb(rule.actions, START_VERBS):
            quantities = quantities_of(context, rule, action)
            guards = context.guards(rule, action, "deny", "require")
            if not quantities or any(bounds[one.id] & quantities for one in (rule, *guards)):
                continue
            named = quoted_list((".".join(path) for path in sorted(quantities)), joiner=" or ")
            message = f"`{rule.id}` allows `{action}` without a bound on {named}"
            yield Hit(context.item(rule.span, "actions", action), message)


def _compared(rule: Rule) -> frozenset[Path]:
    """Return the paths read anywhere below a comparison or an `in`."""
    paths: set[Path] = set()
    for node in walk(rule.when.expression) if rule.when is not None else ():
        if isinstance(node, Call) and base_name(node.function) in (*MIRRORED, "in"):
            paths.update(path for path, _ in value_reads(node))
    return frozenset(paths)
