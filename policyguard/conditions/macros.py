"""Folds the checker's expansion of a macro back into one node.

Source: cel-cpp `parser/macro.cc`. The accumulator is `@result`; `all` and `exists` continue while the accumulator is
`@not_strictly_false`.
"""

from __future__ import annotations

from policyguard.conditions.problems import ProfileError
from policyguard.model.expression import Call, Constant, Expression, ListOf, Quantifier, TypeName, Variable

RESULT = "@result"
"""The name of every macro's accumulator; no condition can use it."""

STEP = "not_strictly_false"
"""The overload by which `all` and `exists` continue after an error."""


def folded_macro(
    variable: str, source: Expression, parts: tuple[Expression, ...], kind: TypeName, offset: int
) -> Expression:
    """Fold an expansion into a `Quantifier`.

    Args:
        variable: the macro's variable.
        source: the list or map it runs over.
        parts: the initial value, loop condition, step and result of the comprehension.
        kind: the type of the result.
        offset: the offset of the macro in the condition.

    Raises:
        ProfileError: the expansion is not one of a known macro.
    """
    initial, condition, step, result = parts
    for name, fold in (("all", _fold_all), ("exists", _fold_exists), ("exists_one", _fold_one), ("map", _fold_list)):
        folded = fold(variable, initial, condition, step, result)
        if folded is not None:
            body, guard = folded
            if name == "map" and guard is not None and body == Variable(variable, body.type):
                return Quantifier("filter", variable, source, guard, kind, None, offset)
            return Quantifier(name, variable, source, body, kind, guard, offset)  # type: ignore[arg-type]
    raise ProfileError("malformed expression: a macro of unknown kind", offset)


_Folded = tuple[Expression, "Expression | None"]


def _is_accumulator(node: Expression) -> bool:
    return isinstance(node, Variable) and node.name == RESULT


def _logical_step(
    function: str, start: bool, parts: tuple[Expression, Expression, Expression, Expression]
) -> _Folded | None:
    initial, _, step, result = parts
    if initial != Constant(start, "bool") or not _is_accumulator(result):
        return None
    if not isinstance(step, Call) or step.function != function or not _is_accumulator(step.arguments[0]):
        return None
    rest = step.arguments[1:]
    return (rest[0] if len(rest) == 1 else Call(function, rest, "bool", rest[0].offset)), None


def _fold_all(
    _variable: str, initial: Expression, condition: Expression, step: Expression, result: Expression
) -> _Folded | None:
    if not isinstance(condition, Call) or condition.function != STEP:
        return None
    return _logical_step("logical_and", True, (initial, condition, step, result))


def _fold_exists(
    _variable: str, initial: Expression, condition: Expression, step: Expression, result: Expression
) -> _Folded | None:
    if not isinstance(condition, Call) or condition.function != STEP:
        return None
    return _logical_step("logical_or", False, (initial, condition, step, result))


def _fold_one(
    _variable: str, initial: Expression, condition: Expression, step: Expression, result: Expression
) -> _Folded | None:
    if initial != Constant(0, "int") or condition != Constant(True, "bool"):
        return None
    if not isinstance(step, Call) or step.function != "conditional" or not _is_accumulator(step.arguments[2]):
        return None
    counted = Call("add_int64", (Variable(RESULT, "int"), Constant(1, "int")), "int")
    compared = Call("equals", (Variable(RESULT, "int"), Constant(1, "int")), "bool")
    return (step.arguments[0], None) if step.arguments[1] == counted and result == compared else None


def _fold_list(
    _variable: str, initial: Expression, condition: Expression, step: Expression, result: Expression
) -> _Folded | None:
    if not isinstance(initial, ListOf) or initial.elements or condition != Constant(True, "bool"):
        return None
    guard = None
    if isinstance(step, Call) and step.function == "conditional" and _is_accumulator(step.arguments[2]):
        guard, step = step.arguments[0], step.arguments[1]
    if not isinstance(step, Call) or step.function != "add_list" or not _is_accumulator(step.arguments[0]):
        return None
    added = step.arguments[1]
    if not isinstance(added, ListOf) or len(added.elements) != 1 or not _is_accumulator(result):
        return None
    return added.elements[0], guard
