"""Mutants of a module: each removes, negates or shifts one check.

    negate   a condition becomes its opposite: of an `if` or `while`-less guard, of `a if b else c`, of a returned test
    remove   a guard never holds, a filter of a comprehension lets everything through, a call of a check is left out
    drop     one part of `a or b` in a guard, or of `a and b` in a returned test, is left out
    shift    `<` becomes `<=` and so on, in a guard or a returned test

A guard is an `if` whose body ends with `raise`, `return`, `yield`, `continue` or `break`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType

CHECKS = re.compile(r"_?(check|require|refuse|demand|ensure|expect|verify|validate)")
"""Functions that are called only to raise."""

SHIFTED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


Edit = Callable[[ast.AST], None]
"""Changes one node in place."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one module. `name` survives changes of line numbers."""

    module: str
    function: str
    change: str
    lines: tuple[int, int]
    body: tuple[int, int] | None
    """The lines behind the condition of an `if`."""
    source: str
    position: int
    edit: Edit

    @property
    def name(self) -> str:
        return f"{self.module} {self.function}: {self.change}"

    @property
    def shows_behind(self) -> bool:
        """Whether nothing changes but where the condition of an `if` holds: it holds less often."""
        return self.body is not None and self.change.startswith(("remove:", "drop:"))

    def tree(self) -> ast.Module:
        """Parse the module and change it."""
        changed = ast.parse(self.source)
        self.edit(next(node for position, node in enumerate(ast.walk(changed)) if position == self.position))
        return ast.fix_missing_locations(changed)


def mutants(module: str, source: str) -> list[Mutant]:
    """Make every mutant of a module."""
    tree = ast.parse(source)
    positions = {id(node): position for position, node in enumerate(ast.walk(tree))}
    made: list[Mutant] = []
    names: Counter[str] = Counter()
    for function, node in _inside_functions(tree, ""):
        for change, edit in _edits(node):
            names[f"{function}: {change}"] += 1
            number = names[f"{function}: {change}"]
            label = change if number == 1 else f"{change} ({number})"
            made.append(
                Mutant(
                    module=module,
                    function=function,
                    change=label,
                    lines=_lines(node),
                    body=_lines_behind(node),
                    source=source,
                    position=positions[id(node)],
                    edit=edit,
                )
            )
    return made


def code_of(mutant: Mutant, filename: str) -> dict[tuple[str, int], CodeType]:
    """Compile a mutant: (dotted name, first line) -> code, of every function in it."""
    compiled: dict[tuple[str, int], CodeType] = {}
    waiting = [compile(mutant.tree(), filename, "exec", dont_inherit=True)]
    while waiting:
        code = waiting.pop()
        compiled[code.co_qualname, code.co_firstlineno] = code
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return compiled


def _lines(node: ast.AST) -> tuple[int, int]:
    """The first and last line of what a mutant changes."""
    if isinstance(node, ast.comprehension):
        return node.target.lineno, node.ifs[-1].end_lineno or node.ifs[-1].lineno
    assert isinstance(node, ast.stmt | ast.expr)
    last = node.test if isinstance(node, ast.If) else node
    return node.lineno, last.end_lineno or node.lineno


def _lines_behind(node: ast.AST) -> tuple[int, int] | None:
    if not isinstance(node, ast.If):
        return None
    last = node.body[-1]
    return node.body[0].lineno, last.end_lineno or last.lineno


def _inside_functions(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            name = f"{function.removeprefix('.')}.{child.name}".removeprefix(".")
            yield from _inside_functions(child, name if isinstance(child, ast.FunctionDef) else f".{name}")
        elif function and not function.startswith("."):
            yield function, child
            yield from _inside_functions(child, function)


def _edits(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    if isinstance(node, ast.If) and _ends(node.body):
        yield from _edits_of_test(node, "test", ast.Or)
        yield f"remove: {_text(node.test)}", _set("test", ast.Constant(value=False))
    elif isinstance(node, ast.IfExp):
        yield f"negate: {_text(node.test)}", _set("test", _opposite(node.test))
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Compare | ast.BoolOp):
        if not isinstance(node.value, ast.BoolOp) or _is_test(node.value):
            yield from _edits_of_test(node, "value", ast.And)
    elif isinstance(node, ast.comprehension):
        for number, test in enumerate(node.ifs):
            yield f"negate: {_text(test)}", _set_item("ifs", number, _opposite(test))
            yield f"remove: {_text(test)}", _set_item("ifs", number, ast.Constant(value=True))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if CHECKS.match(name):
            yield f"remove: {_text(node.value)}", _set("value", ast.Constant(value=None))


def _edits_of_test(node: ast.AST, field: str, dropped: type[ast.boolop]) -> Iterator[tuple[str, Edit]]:
    test: ast.expr = getattr(node, field)
    yield f"negate: {_text(test)}", _set(field, _opposite(test))
    if isinstance(test, ast.BoolOp) and isinstance(test.op, dropped):
        for number, part in enumerate(test.values):
            values = test.values[:number] + test.values[number + 1 :]
            smaller = values[0] if len(values) == 1 else ast.BoolOp(op=test.op, values=values)
            yield f"drop: {_text(part)}", _set(field, smaller)
    for compared in ast.walk(test):
        if isinstance(compared, ast.Compare):
            for number, operator in enumerate(compared.ops):
                other = SHIFTED.get(type(operator))
                if other is not None:
                    yield f"shift: {_text(compared)} [{number}]", _shift(test, compared, field, number, other)


def _ends(body: list[ast.stmt]) -> bool:
    last = body[-1]
    if isinstance(last, ast.Expr):
        return isinstance(last.value, ast.Yield | ast.YieldFrom)
    return isinstance(last, ast.Raise | ast.Return | ast.Continue | ast.Break)


def _is_test(value: ast.BoolOp) -> bool:
    # `return a or b` may choose a value; only `a and b` of tests is a check.
    return isinstance(value.op, ast.And) or any(isinstance(part, ast.Compare) for part in value.values)


def _opposite(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(op=ast.Not(), operand=test)


def _set(field: str, value: ast.expr) -> Edit:
    return lambda node: setattr(node, field, value)


def _set_item(field: str, number: int, value: ast.expr) -> Edit:
    return lambda node: getattr(node, field).__setitem__(number, value)


def _shift(test: ast.expr, compared: ast.Compare, field: str, number: int, other: type[ast.cmpop]) -> Edit:
    position = next(place for place, node in enumerate(ast.walk(test)) if node is compared)

    def edit(node: ast.AST) -> None:
        copied = next(at for place, at in enumerate(ast.walk(getattr(node, field))) if place == position)
        assert isinstance(copied, ast.Compare)
        copied.ops[number] = other()

    return edit


def _text(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 90 else text[:87] + "..."
