"""What is left of a condition when some facts are known and others are not. Pure.

An error of an allow does not grant, and one of a deny or require applies. So an error is replaced by the outcome that
it has there, and a `!` turns that around.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from policyguard.conditions.exact import EvalError, Outcome
from policyguard.conditions.profile import LOGIC
from policyguard.model.expression import Call, Constant, Expression

Residual: TypeAlias = "bool | Expression"
"""True or False where the known facts settle it, otherwise the condition that remains."""

OutcomeOf: TypeAlias = Callable[[Expression], "Outcome | None"]
"""Evaluates an expression; None if it reads something that is not known."""


def residual(node: Expression, outcome_of: OutcomeOf, *, error_is: bool) -> Residual:
    """Replace what the known facts settle, and simplify.

    Whatever the unknown facts are, the result is True where the condition is True, and otherwise False, for
    `error_is=False`; it is False where the condition is False, and otherwise True, for `error_is=True`. An error in the
    part that remains counts in the same way.

    Args:
        node: a condition, or a part of one whose value is a bool.
        outcome_of: evaluates expressions on the known facts.
        error_is: what an error counts as: False in an allow, True in a deny or a require.
    """
    outcome = outcome_of(node)
    if outcome is not None:
        return error_is if isinstance(outcome, EvalError) else outcome
    if not isinstance(node, Call) or node.function not in LOGIC or node.type != "bool":
        return node
    if node.function == "logical_not":
        inner = residual(node.arguments[0], outcome_of, error_is=not error_is)
        return not inner if isinstance(inner, bool) else Call(node.function, (inner,), node.type, node.offset)
    if node.function == "conditional":
        return _conditional(node, outcome_of, error_is)
    # `false && x` is false and `true || x` is true, whatever x is; the other bool changes nothing.
    deciding = node.function == "logical_or"
    parts = [residual(part, outcome_of, error_is=error_is) for part in node.arguments]
    if any(part is deciding for part in parts):
        return deciding
    open_parts = tuple([part for part in parts if not isinstance(part, bool)])
    if len(open_parts) > 1:
        return Call(node.function, open_parts, node.type, node.offset)
    return open_parts[0] if open_parts else not deciding


def _conditional(node: Call, outcome_of: OutcomeOf, error_is: bool) -> Residual:
    test, *branches = node.arguments
    known = outcome_of(test)
    if isinstance(known, EvalError):
        return error_is
    if known is not None:
        return residual(branches[0 if known else 1], outcome_of, error_is=error_is)
    parts = [residual(branch, outcome_of, error_is=error_is) for branch in branches]
    settled = [Constant(part, "bool", node.offset) if isinstance(part, bool) else part for part in parts]
    return Call(node.function, (test, *settled), node.type, node.offset)
