"""The bounds that conditions set to numbers of GPUs, nodes and hours, from above and from below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policyguard.conditions.queries import NOT, Path, base_name, conjuncts, is_call, value_reads
from policyguard.lint.context import Context
from policyguard.lint.vocabulary import QUANTITIES, last_words
from policyguard.model.expression import Call, Constant, Expression, parts
from policyguard.model.policy import Rule

_UPWARD = {"greater": "upper", "greater_equals": "upper", "less": "lower", "less_equals": "lower"}
_OPPOSITE = {"upper": "lower", "lower": "upper"}


@dataclass(frozen=True, slots=True)
class Bound:
    """One comparison of a number: the side of the permitted range that it ends, and its literal, if it has one."""

    path: Path
    side: str
    limit: int | None
    alone: bool
    """True if the comparison is the whole condition, so that nothing else can make it false."""


def bounds_of(rule: Rule) -> tuple[Bound, ...]:
    """List the bounds that a rule sets; what a deny or require refuses is outside of the permitted range."""
    if rule.when is None:
        return ()
    alone = len(list(conjuncts(rule.when.expression))) == 1
    return tuple(_bounds(rule.when.expression, refuses=rule.effect != "allow", alone=alone))


def _bounds(node: Expression, *, refuses: bool, alone: bool) -> Iterator[Bound]:
    if is_call(node, NOT):
        refuses = not refuses
    elif isinstance(node, Call) and len(node.arguments) == 2:
        yield from _of_comparison(node, refuses=refuses, alone=alone)
    for part in parts(node):
        yield from _bounds(part, refuses=refuses, alone=alone)


def _of_comparison(node: Call, *, refuses: bool, alone: bool) -> Iterator[Bound]:
    name, (first, second) = base_name(node.function), node.arguments
    exact = name == ("not_equals" if refuses else "equals") or (name == "in" and not refuses)
    if name not in _UPWARD and not exact:
        return
    for operand, other, is_second in ((first, second, False), (second, first, True)):
        side = _UPWARD.get(name, "upper")
        if is_second == refuses:
            side = _OPPOSITE[side]
        limit = other.value if isinstance(other, Constant) and type(other.value) is int else None
        for path, _ in value_reads(operand):
            yield from (Bound(path, end, limit, alone) for end in (("upper", "lower") if exact else (side,)))


def quantities_of(context: Context, rule: Rule, action: str) -> set[Path]:
    """Return the numbers of GPUs, nodes or hours that the types of an action declare.

    Args:
        context: the policies.
        rule: a rule about the types.
        action: one of its actions.
    """
    return {
        ("resource", attribute.name)
        for entity_type in context.types(rule)
        if action in entity_type.actions
        for attribute in entity_type.attributes.values()
        if attribute.type.kind == "int" and last_words((attribute.name,)) & QUANTITIES
    }
