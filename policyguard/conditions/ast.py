"""What can be asked of a checked condition: its shape, its atoms, what it reads, and its form in a snapshot.

Works on nodes alone; `decoding.py` makes them of the checker's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, cast

from policyguard.conditions.functions import FUNCTIONS, Failure
from policyguard.conditions.problems import ProfileError
from policyguard.conditions.profile import LOGIC, OVERLOADS
from policyguard.conditions.signatures import SIGNATURES
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
from policyguard.values import MAX_INTEGER, name_of

FORMAT = 1
"""The version of `canonical_form`; another number is another format."""

Scalar: TypeAlias = "bool | int | str"
ConstantValue: TypeAlias = "Scalar | tuple[Scalar, ...]"
Path: TypeAlias = tuple[str, ...]


def folded(expression: Expression) -> Expression:
    """Return the expression with `timestamp("...")` and `duration("...")` of literals as constants.

    A literal that names no time is left as it is: evaluating it is an error, and the checker refuses it.
    """
    return rebuilt(expression, _fold)


_FOLDED = {"string_to_timestamp": "timestamp", "string_to_duration": "duration"}


def _fold(node: Expression) -> Expression:
    if isinstance(node, Call) and node.function in _FOLDED and isinstance(node.arguments[0], Constant):
        try:
            value = FUNCTIONS[node.function](node.arguments[0].value)
        except Failure:
            return node
        return Constant(value, _FOLDED[node.function], node.offset)
    return node


def rebuilt(node: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """Return the tree with `change` applied to every node, parts before the whole."""
    if isinstance(node, Call):
        node = Call(node.function, tuple([rebuilt(part, change) for part in node.arguments]), node.type, node.offset)
    elif isinstance(node, Select):
        node = Select(rebuilt(node.operand, change), node.name, node.type, node.offset)
    elif isinstance(node, Has):
        node = Has(rebuilt(node.operand, change), node.name, node.offset)
    elif isinstance(node, ListOf):
        node = ListOf(tuple([rebuilt(part, change) for part in node.elements]), node.type, node.offset)
    elif isinstance(node, MapOf):
        entries = tuple([(rebuilt(key, change), rebuilt(value, change)) for key, value in node.entries])
        node = MapOf(entries, node.type, node.offset)
    elif isinstance(node, Quantifier):
        condition = rebuilt(node.condition, change) if node.condition is not None else None
        node = Quantifier(
            node.kind,
            node.variable,
            rebuilt(node.range, change),
            rebuilt(node.body, change),
            node.type,
            condition,
            node.offset,
        )
    return change(node)


def shape(expression: Expression) -> tuple[Expression, tuple[ConstantValue, ...]]:
    """Return the expression with holes where its constants were, and the constants in the order of the holes.

    A list of constants becomes one hole. Bools stay: they are structure. So do integers beyond 2^53 - 1, so that code
    for a shape may count on the range of what fills it.
    """
    constants: list[ConstantValue] = []

    def visit(node: Expression) -> Expression:
        value = _constant_value(node)
        if value is None:
            return node
        constants.append(value)
        return Hole(len(constants) - 1, node.type, node.offset)

    return _shaped(expression, visit), tuple(constants)


def _shaped(node: Expression, visit: Callable[[Expression], Expression]) -> Expression:
    if isinstance(node, ListOf):
        whole = visit(node)
        if isinstance(whole, Hole):
            return whole
        return ListOf(tuple(_shaped(part, visit) for part in node.elements), node.type, node.offset)
    if isinstance(node, Call):
        return Call(node.function, tuple(_shaped(part, visit) for part in node.arguments), node.type, node.offset)
    if isinstance(node, Select):
        return Select(_shaped(node.operand, visit), node.name, node.type, node.offset)
    if isinstance(node, Has):
        return Has(_shaped(node.operand, visit), node.name, node.offset)
    if isinstance(node, MapOf):
        entries = tuple((_shaped(key, visit), _shaped(value, visit)) for key, value in node.entries)
        return MapOf(entries, node.type, node.offset)
    if isinstance(node, Quantifier):
        condition = _shaped(node.condition, visit) if node.condition is not None else None
        source, body = _shaped(node.range, visit), _shaped(node.body, visit)
        return Quantifier(node.kind, node.variable, source, body, node.type, condition, node.offset)
    return visit(node)


def _constant_value(node: Expression) -> ConstantValue | None:
    if isinstance(node, ListOf) and node.elements:
        values = [_constant_value(element) for element in node.elements]
        if all(value is not None and not isinstance(value, tuple) for value in values):
            return cast("tuple[Scalar, ...]", tuple(values))
    if not isinstance(node, Constant) or isinstance(node.value, bool | bytes):
        return None
    if node.type == "int" and abs(cast(int, node.value)) > MAX_INTEGER:
        return None
    return node.value


def filled(expression: Expression, constants: tuple[ConstantValue, ...]) -> Expression:
    """Return the shape with its holes filled: `filled(*shape(e)) == e`."""
    return rebuilt(expression, lambda node: _fill(node, constants))


def _fill(node: Expression, constants: tuple[ConstantValue, ...]) -> Expression:
    if not isinstance(node, Hole):
        return node
    value = constants[node.index]
    if isinstance(value, tuple):
        element = node.type[5:-1]
        return ListOf(tuple(Constant(each, element, node.offset) for each in value), node.type, node.offset)
    return Constant(value, node.type, node.offset)


def atoms(expression: Expression) -> tuple[Expression, ...]:
    """Return the smallest bool parts that `&&`, `||`, `!` and `?:` join, in source order; a quantifier is one atom."""
    return tuple(_atoms(expression))


def _atoms(node: Expression) -> Iterator[Expression]:
    if isinstance(node, Call) and node.function in LOGIC and node.type == "bool":
        for argument in node.arguments:
            yield from _atoms(argument)
    else:
        yield node


def paths_read(expression: Expression) -> frozenset[Path]:
    """Return every path the expression may read: `("resource", "code", "dirty")`, `("now",)`.

    An element of a list or a key of a map is `[]`: `("resource", "checkpoints", "[]", "format")`. Where a path goes on,
    its beginnings are not listed.
    """
    found: set[Path] = set()
    _read(expression, {}, found)
    return frozenset(path for path in found if not any(_begins(path, other) for other in found))


def _begins(path: Path, other: Path) -> bool:
    return len(path) < len(other) and other[: len(path)] == path


def _read(node: Expression, bound: Mapping[str, Path | None], found: set[Path]) -> Path | None:
    path: Path | None = None
    if isinstance(node, Variable):
        path = bound.get(node.name, (node.name,))
    elif isinstance(node, Select | Has):
        above = _read(node.operand, bound, found)
        path = (*above, node.name) if above is not None else None
    elif isinstance(node, Quantifier):
        above = _read(node.range, bound, found)
        inner = {**bound, node.variable: (*above, "[]") if above is not None else None}
        for part in (node.condition, node.body):
            if part is not None:
                _read(part, inner, found)
        path = above if node.kind == "filter" else None
    else:
        path = _read_parts(node, bound, found)
    if path is not None:
        found.add(path)
    return path


def _read_parts(node: Expression, bound: Mapping[str, Path | None], found: set[Path]) -> Path | None:
    if isinstance(node, Call):
        read = [_read(argument, bound, found) for argument in node.arguments]
        if node.function in ("index_list", "index_map") and read[0] is not None:
            return (*read[0], "[]")
    elif isinstance(node, ListOf):
        for element in node.elements:
            _read(element, bound, found)
    elif isinstance(node, MapOf):
        for entry in node.entries:
            for part in entry:
                _read(part, bound, found)
    return None


def canonical_form(expression: Expression) -> list[Any]:
    """Return the expression as nested lists of text, integers and bools that any JSON encoder takes, with a version."""
    return [FORMAT, _listed(expression)]


_LARGE = ("timestamp", "duration")


def _listed(node: Expression) -> list[Any]:
    if isinstance(node, Constant):
        large = node.type in _LARGE or (type(node.value) is int and abs(node.value) > MAX_INTEGER)
        return ["c", str(node.value) if large else node.value, node.type, node.offset]
    if isinstance(node, Variable):
        return ["v", node.name, node.type, node.offset]
    if isinstance(node, Hole):
        return ["o", node.index, node.type, node.offset]
    if isinstance(node, Select):
        return ["s", _listed(node.operand), node.name, node.type, node.offset]
    if isinstance(node, Has):
        return ["h", _listed(node.operand), node.name, node.offset]
    if isinstance(node, Call):
        return ["f", node.function, [_listed(part) for part in node.arguments], node.type, node.offset]
    if isinstance(node, ListOf):
        return ["l", [_listed(part) for part in node.elements], node.type, node.offset]
    if isinstance(node, MapOf):
        return ["m", [[_listed(key), _listed(value)] for key, value in node.entries], node.type, node.offset]
    condition = _listed(node.condition) if node.condition is not None else []
    return ["q", node.kind, node.variable, _listed(node.range), _listed(node.body), node.type, condition, node.offset]


def from_canonical(data: object) -> Expression:
    """Return the expression a canonical form spells; `from_canonical(canonical_form(e)) == e`.

    Raises:
        ProfileError: another version, or data of another form.
    """
    if not isinstance(data, list) or len(data) != 2 or data[0] != FORMAT:
        raise ProfileError(f"malformed expression: expected one of format {FORMAT}")
    try:
        return _node(data[1])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as problem:
        raise ProfileError("malformed expression: not in canonical form") from problem


def _node(data: list[Any]) -> Expression:
    tag, *fields = data
    build, kinds = _NODES[tag]
    for field, kind in zip(fields, kinds, strict=True):
        if kind is not None and type(field) is not kind:
            raise TypeError(f"found {name_of(field)} in a node `{tag}`")
    return build(*fields)


def _constant_node(value: Any, kind: str, offset: int) -> Constant:
    if type(value) not in (bool, int, str):
        raise TypeError(f"found {name_of(value)} as a constant")
    if kind in _LARGE or (kind == "int" and type(value) is str):
        value = int(value)
    return Constant(value, kind, offset)


def _call_node(function: str, arguments: list[Any], kind: str, offset: int) -> Call:
    if function not in OVERLOADS:
        raise ProfileError(f"malformed expression: `{function}` is outside the profile", offset)
    if len(arguments) < len(SIGNATURES[function][0]):
        raise ProfileError(f"malformed expression: `{function}` without its arguments", offset)
    return Call(function, tuple([_node(part) for part in arguments]), kind, offset)


def _quantifier_node(
    kind: Any, variable: str, source: list[Any], body: list[Any], result: str, condition: list[Any], offset: int
) -> Quantifier:
    if kind not in ("all", "exists", "exists_one", "filter", "map"):
        raise ProfileError(f"malformed expression: `{kind}` is no macro", offset)
    guard = _node(condition) if condition else None
    return Quantifier(kind, variable, _node(source), _node(body), result, guard, offset)


_NODES: dict[str, tuple[Callable[..., Expression], tuple[type | None, ...]]] = {
    "c": (_constant_node, (None, str, int)),
    "v": (Variable, (str, str, int)),
    "o": (Hole, (int, str, int)),
    "s": (lambda operand, name, kind, offset: Select(_node(operand), name, kind, offset), (list, str, str, int)),
    "h": (lambda operand, name, offset: Has(_node(operand), name, offset), (list, str, int)),
    "f": (_call_node, (str, list, str, int)),
    "l": (lambda parts, kind, offset: ListOf(tuple([_node(part) for part in parts]), kind, offset), (list, str, int)),
    "m": (
        lambda entries, kind, offset: MapOf(tuple([(_node(k), _node(v)) for k, v in entries]), kind, offset),
        (list, str, int),
    ),
    "q": (_quantifier_node, (str, str, list, list, str, list, int)),
}
"""What builds each node, and the types of its fields."""
