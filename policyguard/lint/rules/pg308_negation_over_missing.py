"""A negated comparison hides what happens when a value is missing or a list is empty."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import NOT, Path, base_name, is_call, leftmost, nonempty_lists, path_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Call, Expression, Quantifier, walk

CODE = "PG308"
NAME = "negation-over-missing"
SEVERITY = "warning"
HELP = "write the intended comparison: `a != b` for `!(a == b)`"
FIXABLE = True

_HELP_EXISTS = "add `list.size() > 0` if an empty list is not meant"
_OPPOSITES = {
    "equals": "!=",
    "not_equals": "==",
    "less": ">=",
    "less_equals": ">",
    "greater": "<=",
    "greater_equals": "<",
}


def check(context: Context) -> Iterator[Hit]:
    """Yield each `!` around a comparison and, in an allow, around `exists` over a list that may be empty."""
    for rule, condition in context.conditions():
        filled = nonempty_lists(condition.expression)
        for node in walk(condition.expression):
            if isinstance(node, Call) and is_call(node, NOT):
                inner = node.arguments[0]
                span = condition.at(min(node.offset, leftmost(inner)))
                opposite = _OPPOSITES.get(base_name(inner.function)) if isinstance(inner, Call) else None
                if opposite is not None:
                    yield Hit(span, f"found a negated comparison, expected `{opposite}`")
                elif rule.effect == "allow" and _may_be_empty(inner, filled):
                    yield Hit(span, "a negated `exists` in an allow is also true for an empty list", _HELP_EXISTS)


def _may_be_empty(node: Expression, filled: frozenset[Path]) -> bool:
    """Return True for `exists` over a list attribute that the condition does not require to have an element."""
    if not isinstance(node, Quantifier) or node.kind not in ("exists", "exists_one"):
        return False
    path = path_of(node.range)
    return path is not None and path not in filled
