"""Queries on checked conditions, for lint and audits: paths read, comparisons, literals.

A query that is unsure returns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

from policyguard.model.expression import (
    Call,
    Constant,
    Expression,
    Has,
    ListOf,
    Quantifier,
    Select,
    Variable,
    parts,
    walk,
)

Path: TypeAlias = tuple[str, ...]
"""`("resource", "code", "dirty")`."""

AND, OR, NOT = "logical_and", "logical_or", "logical_not"


def path_of(node: Expression) -> Path | None:
    """Return the path of a chain of selections; None for anything else."""
    names: list[str] = []
    while isinstance(node, Select):
        names.append(node.name)
        node = node.operand
    return (node.name, *reversed(names)) if isinstance(node, Variable) else None


def value_reads(node: Expression) -> Iterator[tuple[Path, Select]]:
    """Yield each path whose value is read, in full, with its node; arguments of `has()` are not read."""
    pending = [node]
    while pending:
        here = pending.pop()
        path = path_of(here)
        if isinstance(here, Select) and path is not None:
            yield path, here
        elif isinstance(here, Has):
            pending.append(here.operand)
        else:
            pending.extend(reversed(parts(here)))


def paths_tested(node: Expression) -> frozenset[Path]:
    """Return the paths that a `has()` tests."""
    tested = set()
    for here in walk(node):
        if isinstance(here, Has):
            path = path_of(here.operand)
            if path is not None:
                tested.add((*path, here.name))
    return frozenset(tested)


def conjuncts(node: Expression) -> Iterator[Expression]:
    """Yield the operands of nested `&&`; the condition is true only if all of them are."""
    if is_call(node, AND):
        assert isinstance(node, Call)
        for part in node.arguments:
            yield from conjuncts(part)
    else:
        yield node


def is_call(node: Expression, function: str) -> bool:
    """Return True if the node calls this operator or function, with operands of any type."""
    return isinstance(node, Call) and base_name(node.function) == function


@lru_cache(maxsize=1024)
def base_name(overload: str) -> str:
    """Return an overload's name without types: `less_equals` for `less_equals_int64`.

    Source: CEL specification, list of standard definitions.
    """
    for name in _BASES:
        if overload == name or overload.startswith(name + "_"):
            return name
    if overload.endswith("_size"):
        return "size"
    return overload


_BASE_NAMES = (
    "logical_and logical_or logical_not conditional not_equals equals less_equals less greater_equals greater"
    " in size matches starts_with ends_with contains divide modulo index glob under ip_in"
)
_BASES = _BASE_NAMES.split()
"""Longer names first where one begins with another: `less_equals` before `less`."""

MIRRORED = {
    "less": "greater",
    "less_equals": "greater_equals",
    "greater": "less",
    "greater_equals": "less_equals",
    "equals": "equals",
    "not_equals": "not_equals",
}


def comparisons(node: Expression) -> Iterator[tuple[Path, str, Constant, Call]]:
    """Yield each comparison of a path with a literal as (path, operator, literal, node).

    `5 < resource.gpus` is yielded as `greater`: the operator is the one with the path first.
    """
    for here in walk(node):
        if isinstance(here, Call) and len(here.arguments) == 2 and base_name(here.function) in MIRRORED:
            operator, (operand, literal) = base_name(here.function), here.arguments
            if isinstance(operand, Constant):
                operator, operand, literal = MIRRORED[operator], literal, operand
            path = path_of(operand)
            if path is not None and isinstance(literal, Constant):
                yield path, operator, literal, here


def memberships(node: Expression) -> Iterator[tuple[Path, tuple[Constant, ...], Call]]:
    """Yield each `path in [literals]` as (path, literals, node)."""
    for here in walk(node):
        if isinstance(here, Call) and len(here.arguments) == 2 and base_name(here.function) == "in":
            path, listed = path_of(here.arguments[0]), here.arguments[1]
            if path is not None and isinstance(listed, ListOf):
                literals = tuple(item for item in listed.elements if isinstance(item, Constant))
                if len(literals) == len(listed.elements):
                    yield path, literals, here


def literals_equal_to(node: Expression) -> Iterator[tuple[Path, Constant]]:
    """Yield (path, literal) for each `path == literal` and `path in [literals]`, at any depth."""
    for path, operator, literal, _ in comparisons(node):
        if operator == "equals":
            yield path, literal
    for path, literals, _ in memberships(node):
        for literal in literals:
            yield path, literal


def leftmost(node: Expression) -> int:
    """Return the offset of a node's first character; a selection's own offset may be that of its dot."""
    return min(here.offset for here in walk(node))


def nonempty_lists(expression: Expression) -> frozenset[Path]:
    """Return the lists that must have an element: conjuncts use `size`, `exists`, `!= []`, `in` or an index."""
    lists: set[Path | None] = set()
    for part in conjuncts(expression):
        for node in (part, *parts(part)):
            if isinstance(node, Quantifier) and node.kind in ("exists", "exists_one"):
                lists.add(path_of(node.range) if node is part else None)
            elif isinstance(node, Call) and base_name(node.function) in ("size", "index") and node.arguments:
                lists.add(path_of(node.arguments[0]))
        if is_call(part, "not_equals") or is_call(part, "in"):
            lists.update(path_of(argument) for argument in parts(part))
    return frozenset(path for path in lists if path is not None)


def text_of(literal: Constant) -> str:
    """Format a literal for a message."""
    return literal.value.decode("utf-8", "replace") if isinstance(literal.value, bytes) else str(literal.value)
