"""Where `has()` may stand, so that an absent fact never grants.

`has(x)` turns absence into FALSE, and `!has(x)` into TRUE. In an `allow` that TRUE could grant, in a `deny` or
`require` that FALSE could release; so in an `allow` it stands only where FALSE cannot help, and the other way round in
the rest.
"""

from __future__ import annotations

from policyguard.conditions.rendering import render
from policyguard.model.expression import Call, Expression, Has, Quantifier, parts
from policyguard.model.policy import Effect

_SAME = frozenset({"logical_and", "logical_or"})


def polarity_errors(expression: Expression, effect: Effect) -> list[tuple[int, str]]:
    """Return (offset, message) for each `has()` on the wrong side, in source order; catalogue code PG115.

    Positive through `&&`, `||`, the branches of `?:`, and the conditions of `all`, `exists`; turned by `!`; both where
    the value itself counts: tests of `?:`, operands of operators and functions, `exists_one`, `filter`, `map`.
    """
    wanted = effect == "allow"
    found: list[tuple[int, str]] = []
    _visit(expression, True, wanted, found)
    return sorted(set(found))


def _visit(node: Expression, positive: bool | None, wanted: bool, found: list[tuple[int, str]]) -> None:
    if isinstance(node, Has):
        # INVARIANT I10: in an allow `has()` stands only positively, in a deny or require only negatively.
        if positive is not wanted:
            found.append((node.offset, _message(node, wanted)))
        _visit(node.operand, None, wanted, found)
    elif isinstance(node, Call) and node.function in _SAME:
        for argument in node.arguments:
            _visit(argument, positive, wanted, found)
    elif isinstance(node, Call) and node.function == "logical_not":
        _visit(node.arguments[0], None if positive is None else not positive, wanted, found)
    elif isinstance(node, Call) and node.function == "conditional":
        test, *branches = node.arguments
        _visit(test, None, wanted, found)
        for branch in branches:
            _visit(branch, positive if node.type == "bool" else None, wanted, found)
    elif isinstance(node, Quantifier) and node.kind in ("all", "exists"):
        _visit(node.range, None, wanted, found)
        _visit(node.body, positive, wanted, found)
    else:
        for part in parts(node):
            _visit(part, None, wanted, found)


def _message(node: Has, allow: bool) -> str:
    if allow:
        return f"`{render(node)}` may not be negated or compared in an allow: an absent fact would grant"
    return f"`{render(node)}` stands only under `!` in a deny or require: an absent fact would release"
