"""Compiles the shape of a condition to a Python function, from syntax nodes and never from text.

The function is optimistic: if it returns, the result is the CEL result; if it raises, the caller must use
`exact.evaluate`, because CEL's `&&`, `||`, `all` and `exists` absorb errors on either side and Python's do not. The
caller must pass values of the types that the schema declares.

Since types are known, only operations where Python differs from CEL need calls: integer overflow where the ranges
allow it, division toward zero, negative indices, equality of lists and maps, timestamps out of range.
"""

from __future__ import annotations

# Not `ast`: its visitors and its unparser cost a hook more than compiling a condition.
import _ast as ast
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType
from typing import Any, TypeAlias, cast

from policyguard.conditions.ast import is_constant_list
from policyguard.conditions.cost import MAX_COST, SCALARS, SMALL, Budget, is_charged, is_membership, within
from policyguard.conditions.functions import FUNCTIONS, MAX_INT64
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
    walk,
)
from policyguard.values import MAX_INTEGER

Run: TypeAlias = Callable[
    [Mapping[str, Any], Mapping[str, Any], Mapping[str, Any], str, int, tuple[Any, ...]],
    bool,
]

PARAMETERS = ("subject", "resource", "context", "action", "now", "constants")

_GLOBALS: dict[str, Any] = {
    "__builtins__": {},
    "any": any,
    "all": all,
    "sum": sum,
    "tuple": tuple,
    "len": len,
    "new_budget": Budget,
    "visit": Budget.visit,
    "is_member": Budget.is_member,
    "is_listed": Budget.is_listed,
    "charged": Budget.call,
    "within": within,
    "in_order": sorted,
    **FUNCTIONS,
}
"""All globals of a compiled condition: no other builtins, no import."""

_COMPARISONS: dict[str, type[ast.cmpop]] = {
    "less": ast.Lt,
    "less_equals": ast.LtE,
    "greater": ast.Gt,
    "greater_equals": ast.GtE,
}
_ARITHMETIC: dict[str, type[ast.operator]] = {
    "add_int64": ast.Add,
    "subtract_int64": ast.Sub,
    "multiply_int64": ast.Mult,
    "add_string": ast.Add,
}
_TEXT_METHODS = {"starts_with_string": "startswith", "ends_with_string": "endswith"}
_ENTITIES = frozenset({"subject", "resource", "context"})


def compile_shape(
    expression: Expression, variables: tuple[str, ...] = PARAMETERS[:5], *, max_cost: int = MAX_COST
) -> Run:
    """Compile a condition, with or without holes, to `run(subject, resource, context, action, now, constants)`.

    The function returns True or False only if that is the exact result; otherwise it raises.

    Args:
        variables: the names that the condition reads; entities are `subject`, `resource` and `context`.
        max_cost: units of `cost.py` that may be spent; the exact evaluator is to be given the same.
    """
    # INVARIANT I7: nodes, never text; the globals are `_GLOBALS` and nothing else.
    builder = _Builder({name: name for name in variables}, max_cost, _counts(expression))
    parameters = [ast.arg(name) for name in (*variables, "constants")]
    arguments = ast.arguments([], parameters, None, [], [], None, [])
    function = ast.FunctionDef("condition", arguments, builder.statements(expression), [], None)
    function.type_params = []  # type: ignore[attr-defined,unused-ignore]
    module = ast.Module([function], [])
    _set_position(module)
    outer = compile(module, "<condition>", "exec")
    inner = next(constant for constant in outer.co_consts if isinstance(constant, CodeType))
    return cast(Run, FunctionType(inner, _GLOBALS))


def _set_position(node: ast.AST) -> None:
    """Give every node the same line and column, because the Python compiler requires a position."""
    if "lineno" in node._attributes:
        node.__dict__.update(_POSITION)
    for part in node.__dict__.values():
        if isinstance(part, ast.AST):
            _set_position(part)
        elif isinstance(part, list):
            for item in part:
                if isinstance(item, ast.AST):
                    _set_position(item)


_POSITION = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}


def _counts(expression: Expression) -> bool:
    """Return True if the generated code must count its cost; one macro alone is limited by its list's length."""
    macros = [node for node in walk(expression) if isinstance(node, Quantifier)]
    bodies = (part for macro in macros for part in (macro.body, macro.condition) if part is not None)
    inside = any(_is_charged(node, is_inside=True) for body in bodies for node in walk(body))
    return len(macros) > 1 or inside or any(_is_charged(node, is_inside=False) for node in walk(expression))


def _is_charged(node: Expression, *, is_inside: bool) -> bool:
    if not isinstance(node, Call):
        return False
    if is_membership(node.function, node.arguments[0].type):
        return is_inside and not _is_short(node.arguments[1])
    return is_charged(node, is_inside=is_inside)


def _is_short(values: Expression) -> bool:
    # A hole of a long list is filled with a `ConstantList`, which needs no budget to answer fast.
    return isinstance(values, Hole) or (isinstance(values, ListOf) and len(values.elements) <= SMALL)


class _Builder:
    """Builds Python syntax nodes, and tracks what is known about each name in the current scope.

    `admitted` are the names whose values are facts, admitted by the schema, so that their integers are within 2^53 - 1:
    the entities, and the variables of macros over a list that is itself a fact. Anything else may have been computed.
    """

    def __init__(self, names: dict[str, str], max_cost: int, counts: bool) -> None:
        self.names = names
        self.admitted = _ENTITIES & names.keys()
        self.is_inside = False
        self.count = 0
        self.max_cost = max_cost
        self.counts = counts

    def statements(self, expression: Expression) -> list[ast.stmt]:
        """Build the body: quantifiers among the top-level conjuncts become loops, the other conjuncts one `and`."""
        # INVARIANT I3: no error is caught here; what Python's short-circuit cannot absorb goes to `exact`.
        statements: list[ast.stmt] = []
        waiting: list[ast.expr] = []
        for conjunct in _conjuncts(expression):
            if isinstance(conjunct, Quantifier) and conjunct.kind in ("all", "exists"):
                statements += [_unless(waiting)] if waiting else []
                waiting = []
                statements.append(self.loop(conjunct))
            else:
                waiting.append(self.value(conjunct))
        result = _joined(ast.And(), waiting) if waiting else ast.Constant(True)
        budget = [ast.Assign([_store("budget")], _called("new_budget", ast.Constant(self.max_cost)))]
        return [*(budget if self.counts else ()), *statements, ast.Return(result)]

    def source(self, node: Quantifier) -> ast.expr:
        if self.counts:
            source = _called("visit", _load("budget"), self.value(node.range))
        else:
            source = _called("within", self.value(node.range), ast.Constant(self.max_cost))
        lists_keys = node.kind in ("map", "filter") and node.range.type.startswith("map(")
        return _called("in_order", source) if lists_keys else source

    def loop(self, node: Quantifier) -> ast.stmt:
        source = self.source(node)
        name = self.bind(node.variable)
        body = self.within(node, name, node.body)
        refuse = ast.Return(ast.Constant(False))
        if node.kind == "all":
            inside: ast.stmt = ast.If(ast.UnaryOp(ast.Not(), body), [refuse], [])
            return ast.For(_store(name), source, [inside], [], None)
        inside = ast.If(body, [ast.Break()], [])
        return ast.For(_store(name), source, [inside], [refuse], None)

    def value(self, node: Expression) -> ast.expr:
        return _VALUES[type(node)](self, node)

    def constant(self, node: Constant) -> ast.expr:
        return ast.Constant(node.value)

    def hole(self, node: Hole) -> ast.expr:
        return ast.Subscript(_load("constants"), ast.Constant(node.index), ast.Load())

    def variable(self, node: Variable) -> ast.expr:
        return _load(self.names[node.name])

    def select(self, node: Select) -> ast.expr:
        return ast.Subscript(self.value(node.operand), ast.Constant(node.name), ast.Load())

    def has(self, node: Has) -> ast.expr:
        return ast.Compare(ast.Constant(node.name), [ast.In()], [self.value(node.operand)])

    def list_of(self, node: ListOf) -> ast.expr:
        return ast.Tuple([self.value(element) for element in node.elements], ast.Load())

    def map_of(self, node: MapOf) -> ast.expr:
        keys: list[ast.expr | None] = [self.value(key) for key, _ in node.entries]
        built = ast.Dict(keys, [self.value(value) for _, value in node.entries])
        return _called("distinct", built, ast.Constant(len(node.entries))) if node.entries else built

    def quantifier(self, node: Quantifier) -> ast.expr:
        source = self.source(node)
        name = self.bind(node.variable)
        conditions = [] if node.condition is None else [self.within(node, name, node.condition)]
        body = self.within(node, name, node.body)
        if node.kind in ("filter", "exists_one"):
            conditions, body = [body], _load(name) if node.kind == "filter" else ast.Constant(1)
        generator = ast.GeneratorExp(body, [ast.comprehension(_store(name), source, conditions, 0)])
        if node.kind == "exists_one":
            return ast.Compare(_called("sum", generator), [ast.Eq()], [ast.Constant(1)])
        return _called({"exists": "any", "all": "all"}.get(node.kind, "tuple"), generator)

    def bind(self, _variable: str) -> str:
        self.count += 1
        return f"v{self.count}"

    def within(self, macro: Quantifier, name: str, node: Expression) -> ast.expr:
        """Build a part of a macro, with the macro's variable as the Python variable `name`."""
        outer = self.names, self.admitted, self.is_inside
        self.names = {**self.names, macro.variable: name}
        self.admitted = self.admitted - {macro.variable}
        if self.is_fact(macro.range, outer[1]):
            self.admitted |= {macro.variable}
        self.is_inside = True
        try:
            return self.value(node)
        finally:
            self.names, self.admitted, self.is_inside = outer

    def is_fact(self, node: Expression, admitted: frozenset[str] | None = None) -> bool:
        """Return True for a path that starts at an admitted name: its value is a fact or part of one."""
        while isinstance(node, Select):
            node = node.operand
        return isinstance(node, Variable) and node.name in (self.admitted if admitted is None else admitted)

    def call(self, node: Call) -> ast.expr:
        function, arguments = node.function, [self.value(argument) for argument in node.arguments]
        if _is_charged(node, is_inside=self.is_inside):
            return self.charged(node, arguments)
        if function in ("logical_and", "logical_or"):
            return _joined(ast.And() if function == "logical_and" else ast.Or(), arguments)
        if function == "logical_not":
            return ast.UnaryOp(ast.Not(), arguments[0])
        if function == "conditional":
            return ast.IfExp(*arguments)
        if function in ("equals", "not_equals"):
            return _equality(node, arguments)
        if function in ("in_list", "in_map"):
            return _membership(node, arguments)
        if function.rpartition("_")[0] in _COMPARISONS:
            operation = _COMPARISONS[function.rpartition("_")[0]]
            return ast.Compare(arguments[0], [operation()], [arguments[1]])
        return self.direct(node, arguments) or _called(function, *arguments)

    def charged(self, node: Call, arguments: list[ast.expr]) -> ast.expr:
        """Build a call whose cost is charged to the budget."""
        if is_membership(node.function, node.arguments[0].type):
            name = "is_listed" if is_constant_list(node.arguments[1]) else "is_member"
            return _called(name, _load("budget"), *arguments)
        return _called("charged", _load("budget"), ast.Constant(node.function), *arguments)

    def direct(self, node: Call, arguments: list[ast.expr]) -> ast.expr | None:
        """Build the Python operator that equals the CEL function for values of these types; None if there is none."""
        function = node.function
        if function in _ARITHMETIC and (node.type == "string" or self.bound(node) <= MAX_INT64):
            return ast.BinOp(arguments[0], _ARITHMETIC[function](), arguments[1])
        if function == "index_map":
            return ast.Subscript(arguments[0], arguments[1], ast.Load())
        if function == "contains_string":
            return ast.Compare(arguments[1], [ast.In()], [arguments[0]])
        if function in _TEXT_METHODS:
            return ast.Call(ast.Attribute(arguments[0], _TEXT_METHODS[function], ast.Load()), [arguments[1]], [])
        if function.startswith("size_"):
            return _called("len", *arguments)
        return None

    def bound(self, node: Expression) -> int:
        """Return an upper bound for the magnitude of an integer expression; beyond int64 if there is none."""
        # INVARIANT I3: only facts, constants, sizes, and sums and products of them are bounded. What a macro's variable
        # or a map of the condition's own holds may have been computed, so arithmetic on it is checked for overflow.
        if isinstance(node, Constant):
            return abs(cast(int, node.value))
        if isinstance(node, Hole) or self.is_fact(node):
            return MAX_INTEGER
        if isinstance(node, Call):
            if node.function in ("add_int64", "subtract_int64"):
                return self.bound(node.arguments[0]) + self.bound(node.arguments[1])
            if node.function == "multiply_int64":
                return self.bound(node.arguments[0]) * self.bound(node.arguments[1])
            if node.function.startswith(("size_", "duration_to_", "timestamp_to_")):
                return MAX_INTEGER
        return MAX_INT64 + 1


_VALUES: dict[type, Callable[[_Builder, Any], ast.expr]] = {
    Constant: _Builder.constant,
    Hole: _Builder.hole,
    Variable: _Builder.variable,
    Select: _Builder.select,
    Has: _Builder.has,
    ListOf: _Builder.list_of,
    MapOf: _Builder.map_of,
    Quantifier: _Builder.quantifier,
    Call: _Builder.call,
}


def _distinct(built: dict[str, Any], count: int) -> dict[str, Any]:
    if len(built) != count:
        raise ValueError("duplicate key")
    return built


_GLOBALS["distinct"] = _distinct


def _equality(node: Call, arguments: list[ast.expr]) -> ast.expr:
    kind, negative = node.arguments[0].type, node.function == "not_equals"
    if kind == "bool":
        return ast.Compare(arguments[0], [ast.IsNot() if negative else ast.Is()], [arguments[1]])
    if kind in SCALARS:
        return ast.Compare(arguments[0], [ast.NotEq() if negative else ast.Eq()], [arguments[1]])
    return _called(node.function, *arguments)


def _membership(node: Call, arguments: list[ast.expr]) -> ast.expr:
    if node.arguments[0].type in SCALARS:
        return ast.Compare(arguments[0], [ast.In()], [arguments[1]])
    return _called("in_list", *arguments)


def _conjuncts(expression: Expression) -> tuple[Expression, ...]:
    if isinstance(expression, Call) and expression.function == "logical_and":
        return expression.arguments
    return (expression,)


def _unless(conditions: list[ast.expr]) -> ast.stmt:
    refused = ast.UnaryOp(ast.Not(), _joined(ast.And(), conditions))
    return ast.If(refused, [ast.Return(ast.Constant(False))], [])


def _joined(operation: ast.boolop, values: list[ast.expr]) -> ast.expr:
    return values[0] if len(values) == 1 else ast.BoolOp(operation, values)


def _load(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _store(name: str) -> ast.expr:
    return ast.Name(name, ast.Store())


def _called(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(_load(name), list(arguments), [])
