"""Renders nodes as CEL text with as few parentheses as possible, for explanations."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from policyguard.conditions.profile import CALLS, METHODS, operator
from policyguard.conditions.times import format_span, format_timestamp
from policyguard.model.expression import (
    Call,
    Constant,
    Expression,
    Has,
    Hole,
    ListOf,
    MapOf,
    Quantifier,
    Select,
    Variable,
)

_TERNARY, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _MEMBER = range(1, 9)
_LEVELS = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT}


def render(expression: Expression) -> str:
    """Render an expression as CEL text; checking that text gives an equal expression."""
    return _text(expression)[0]


def _text(node: Expression) -> tuple[str, int]:
    return _WRITERS[type(node)](node)


def _within(node: Expression, level: int) -> str:
    text, own = _text(node)
    return text if own >= level else f"({text})"


def _constant(node: Constant) -> tuple[str, int]:
    if node.type == "timestamp":
        return f'timestamp("{format_timestamp(int(node.value))}")', _MEMBER
    if node.type == "duration":
        return f'duration("{format_span(int(node.value))}")', _MEMBER
    if isinstance(node.value, bool):
        return ("true" if node.value else "false"), _MEMBER
    if isinstance(node.value, int):
        return str(node.value), _MEMBER if node.value >= 0 else _UNARY
    return quoted_in_cel(str(node.value)), _MEMBER


def quoted_in_cel(text: str) -> str:
    """Return a CEL string literal: JSON's escapes are CEL's, but for the characters beyond the basic plane."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _has(node: Has) -> tuple[str, int]:
    return f"has({_within(node.operand, _MEMBER)}.{node.name})", _MEMBER


def _call(node: Call) -> tuple[str, int]:
    function, arguments = node.function, node.arguments
    if function == "logical_and":
        return " && ".join(_within(argument, _RELATION) for argument in arguments), _AND
    if function == "logical_or":
        return " || ".join(_within(argument, _AND) for argument in arguments), _OR
    if function == "conditional":
        test, then, otherwise = arguments
        return f"{_within(test, _OR)} ? {_within(then, _OR)} : {_within(otherwise, _TERNARY)}", _TERNARY
    if function in ("logical_not", "negate_int64"):
        sign = "!" if function == "logical_not" else "-"
        return f"{sign}{_within(arguments[0], _MEMBER)}", _UNARY
    if function in ("index_list", "index_map"):
        return f"{_within(arguments[0], _MEMBER)}[{render(arguments[1])}]", _MEMBER
    if function in METHODS:
        rest = ", ".join(render(argument) for argument in arguments[1:])
        return f"{_within(arguments[0], _MEMBER)}.{METHODS[function]}({rest})", _MEMBER
    if function in CALLS:
        return f"{CALLS[function]}({', '.join(render(argument) for argument in arguments)})", _MEMBER
    infix = operator(function)
    level = _LEVELS.get(infix or "", _RELATION)
    return f"{_within(arguments[0], level)} {infix} {_within(arguments[1], level + 1)}", level


def _quantifier(node: Quantifier) -> tuple[str, int]:
    condition = f"{render(node.condition)}, " if node.condition is not None else ""
    source = _within(node.range, _MEMBER)
    return f"{source}.{node.kind}({node.variable}, {condition}{render(node.body)})", _MEMBER


_WRITERS: dict[type, Callable[[Any], tuple[str, int]]] = {
    Constant: _constant,
    Variable: lambda node: (node.name, _MEMBER),
    Hole: lambda node: (f"${node.index}", _MEMBER),
    Select: lambda node: (f"{_within(node.operand, _MEMBER)}.{node.name}", _MEMBER),
    Has: _has,
    Call: _call,
    ListOf: lambda node: (f"[{', '.join(map(render, node.elements))}]", _MEMBER),
    MapOf: lambda node: (
        "{" + ", ".join(f"{render(key)}: {render(value)}" for key, value in node.entries) + "}",
        _MEMBER,
    ),
    Quantifier: _quantifier,
}
