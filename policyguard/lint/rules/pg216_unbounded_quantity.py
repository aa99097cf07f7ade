"""A job may be started with any number of GPUs, nodes or hours."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.reading import MIRRORED, Path, base_name, path_of, walk
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import QUANTITIES, START_VERBS, last_words, with_verb
from policyguard.model.expression import Call
from policyguard.model.policy import Rule

CODE = "PG216"
NAME = "unbounded-quantity"
SEVERITY = "warning"
HELP = "compare a quantity in the condition, `when: resource.gpus <= 64`, or in a deny for the same actions"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow to start what has quantities, where neither it nor a deny or require compares one."""
    for rule in context.allows:
        starting = next(with_verb(rule.actions, START_VERBS), None)
        quantities = _quantities(context, rule)
        if starting is not None and quantities and not _compares(rule, quantities) and not any(
            _compares(guard, quantities) for guard in context.guards(rule, "deny", "require")
        ):  # fmt: skip
            named = " or ".join(f"`{'.'.join(path)}`" for path in sorted(quantities))
            message = f"`{rule.id}` allows `{starting}` without a bound on {named}"
            yield Hit(context.item(rule.span, "actions", starting), message)


def _quantities(context: Context, rule: Rule) -> set[Path]:
    return {
        ("resource", attribute.name)
        for entity_type in context.types(rule)
        for attribute in entity_type.attributes.values()
        if attribute.type.kind == "int" and last_words((attribute.name,)) & QUANTITIES
    }


def _compares(rule: Rule, quantities: set[Path]) -> bool:
    """True if some comparison, or an `in`, has a quantity anywhere below it."""
    if rule.when is None:
        return False
    for node in walk(rule.when.expression):
        compares = isinstance(node, Call) and base_name(node.function) in (*MIRRORED, "in")
        if compares and any(path_of(below) in quantities for below in walk(node)):
            return True
    return False
