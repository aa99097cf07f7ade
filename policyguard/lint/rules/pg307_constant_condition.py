"""The value of a condition, or of a part of it, does not depend on the request."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import AND, NOT, OR, base_name, is_call, leftmost, path_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Call, Expression, Variable, walk

CODE = "PG307"
NAME = "constant-condition"
SEVERITY = "warning"
HELP = "remove the part, or compare what was meant"
FIXABLE = True

_REFLEXIVE = frozenset({"equals", "not_equals", "less", "less_equals", "greater", "greater_equals"})


def check(context: Context) -> Iterator[Hit]:
    """Yield each condition, or operand of `&&`, `||` or `!`, without a variable or with a path compared with itself."""
    for _, condition in context.conditions():
        for part in _operands(condition.expression):
            if not any(isinstance(node, Variable) for node in walk(part)):
                message = (
                    "condition does not depend on the request"
                    if part is condition.expression
                    else ("this part of the condition does not depend on the request")
                )
                yield Hit(condition.at(leftmost(part)), message)
            elif _compares_with_itself(part):
                yield Hit(condition.at(leftmost(part)), "this compares a value with itself")


def _operands(expression: Expression) -> Iterator[Expression]:
    """Yield the operands of `&&`, `||` and `!`, but nothing below other operators."""
    if isinstance(expression, Call) and any(is_call(expression, name) for name in (AND, OR, NOT)):
        for part in expression.arguments:
            yield from _operands(part)
    else:
        yield expression


def _compares_with_itself(part: Expression) -> bool:
    if not isinstance(part, Call) or len(part.arguments) != 2 or base_name(part.function) not in _REFLEXIVE:
        return False
    first, second = part.arguments
    return first == second and path_of(first) is not None
