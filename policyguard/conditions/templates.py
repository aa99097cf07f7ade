"""Reuses a checked condition as a template for conditions that differ only in integers and texts.

Literals of one kind have one type, so the checker's result is the same; only values and offsets change. A condition
with anything unusual makes no template and is checked by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from policyguard.conditions.ast import rebuilt
from policyguard.conditions.lexing import Tokens
from policyguard.model.expression import (
    Call,
    Constant,
    Expression,
    Has,
    ListOf,
    MapOf,
    Quantifier,
    Select,
    Variable,
    walk,
)
from policyguard.values import MAX_INTEGER


@dataclass(frozen=True, slots=True)
class Template:
    """A checked expression whose offsets are token indices; `literals` are the indices of its literals."""

    expression: Expression
    literals: frozenset[int]

    def filled(self, split: Tokens) -> Expression | None:
        """Build the expression for another text of this shape; None if the checker must see the literals."""
        values: dict[int, int | str] = {}
        for index in self.literals:
            value = literal(split, index)
            if value is None or (isinstance(value, int) and abs(value) > MAX_INTEGER):
                return None
            values[index] = value
        return rebuilt_at(self.expression, split.starts, values)


def literal(split: Tokens, index: int) -> int | str | None:
    """Return the value of the literal at a token, with the sign before an integer; None for anything else."""
    text = split.texts[index]
    if split.kinds[index] == "text":
        return text[1:-1]
    if split.kinds[index] == "integer":
        return int(text) if len(text) <= 16 else None
    if text == "-" and index + 1 < len(split.kinds) and split.kinds[index + 1] == "integer":
        return -int(split.texts[index + 1]) if len(split.texts[index + 1]) <= 16 else None
    return None


def template_of(expression: Expression, split: Tokens) -> Template | None:
    """Build a template; None if tokens and nodes do not correspond one to one."""
    hole_indexes = {start: index for index, start in enumerate(split.starts)}
    literals: set[int] = set()
    for node in walk(expression):
        index = hole_indexes.get(node.offset)
        if index is None:
            return None
        if isinstance(node, Constant) and node.type in ("int", "string"):
            if literal(split, index) != node.value:
                return None
            literals.add(index)
    if len(literals) != sum(kind in ("text", "integer") for kind in split.kinds):
        return None
    return Template(rebuilt(expression, lambda node: _placed(node, hole_indexes)), frozenset(literals))


def _placed(node: Expression, hole_indexes: dict[int, int]) -> Expression:
    return replace(node, offset=hole_indexes[node.offset])


def rebuilt_at(node: Expression, starts: tuple[int, ...], values: dict[int, int | str]) -> Expression:
    """Replace token indices by offsets and literals by values.

    One recursive pass instead of `ast.rebuilt`, because loading calls it for most conditions.

    Args:
        node: a node of a template.
        starts: the offset of each token.
        values: the literals by token index.
    """
    offset = starts[node.offset]
    if isinstance(node, Constant):
        return Constant(values.get(node.offset, node.value), node.type, offset)
    if isinstance(node, Variable):
        return Variable(node.name, node.type, offset)
    if isinstance(node, Select):
        return Select(rebuilt_at(node.operand, starts, values), node.name, node.type, offset)
    if isinstance(node, Call):
        arguments = tuple([rebuilt_at(part, starts, values) for part in node.arguments])
        return Call(node.function, arguments, node.type, offset)
    if isinstance(node, Has):
        return Has(rebuilt_at(node.operand, starts, values), node.name, offset)
    if isinstance(node, ListOf):
        return ListOf(tuple([rebuilt_at(part, starts, values) for part in node.elements]), node.type, offset)
    if isinstance(node, MapOf):
        entries = [(rebuilt_at(key, starts, values), rebuilt_at(item, starts, values)) for key, item in node.entries]
        return MapOf(tuple(entries), node.type, offset)
    if isinstance(node, Quantifier):
        source, body = rebuilt_at(node.range, starts, values), rebuilt_at(node.body, starts, values)
        condition = rebuilt_at(node.condition, starts, values) if node.condition is not None else None
        return Quantifier(node.kind, node.variable, source, body, node.type, condition, offset)
    return node
