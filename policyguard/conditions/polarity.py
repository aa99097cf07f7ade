"""Restricts where `has()` may appear, so that an absent fact never grants access.

`has(x)` is FALSE for an absent fact, `!has(x)` is TRUE. In an `allow`, that TRUE could grant access; in a `deny` or
`require`, that FALSE could lift the restriction. So an `allow` may use only `has()`, the other two only `!has()`.
"""

from __future__ import annotations

from policyguard.conditions.rendering import render
from policyguard.model.expression import Call, Expression, Has, Quantifier, parts
from policyguard.model.policy import Effect

_SAME = frozenset({"logical_and", "logical_or"})


def polarity_errors(expression: Expression, effect: Effect) -> list[tuple[int, str]]:
    """List each `has()` of the wrong polarity as (offset, message), in source order; lint code PG115.

    `&&`, `||`, the branches of `?:` and the bodies of `all` and `exists` keep the polarity, `!` inverts it. The test of
    `?:`, operands of operators and functions, `exists_one`, `filter` and `map` have both polarities.
    """
    wanted = effect == "allow"
    return sorted({(node.offset, _message(node, wanted)) for node in misplaced_tests(expression, is_allow=wanted)})


def misplaced_tests(expression: Expression, *, is_allow: bool) -> list[Has]:
    """List each `has()` of the wrong polarity in the condition of an allow, or of a deny or require."""
    errors: list[Has] = []
    _visit(expression, True, is_allow, errors)
    return errors


def _visit(node: Expression, positive: bool | None, wanted: bool, errors: list[Has]) -> None:
    if isinstance(node, Has):
        # INVARIANT I2: in an allow `has()` is only positive, in a deny or require only negative.
        if positive is not wanted:
            errors.append(node)
        _visit(node.operand, None, wanted, errors)
    elif isinstance(node, Call) and node.function in _SAME:
        for argument in node.arguments:
            _visit(argument, positive, wanted, errors)
    elif isinstance(node, Call) and node.function == "logical_not":
        _visit(node.arguments[0], None if positive is None else not positive, wanted, errors)
    elif isinstance(node, Call) and node.function == "conditional":
        test, *branches = node.arguments
        _visit(test, None, wanted, errors)
        for branch in branches:
            _visit(branch, positive if node.type == "bool" else None, wanted, errors)
    elif isinstance(node, Quantifier) and node.kind in ("all", "exists"):
        _visit(node.range, None, wanted, errors)
        _visit(node.body, positive, wanted, errors)
    else:
        for part in parts(node):
            _visit(part, None, wanted, errors)


def _message(node: Has, allow: bool) -> str:
    if allow:
        return f"`{render(node)}` may not be negated or compared in an allow: an absent fact would grant access"
    return f"`{render(node)}` must be under `!` in a deny or require: an absent fact would lift the restriction"
