"""Decodes the checker's result into typed nodes, and refuses by name what is outside the profile.

INVARIANT I6: only `ProfileError` is raised, whatever the bytes, and at a cost bounded by their length.

Written by hand over `wire.py`, because no package has the generated messages: googleapis-common-protos 1.76.0 has no
`google.api.expr`, cel-expr-python 0.1.3 exposes none. A descriptor of our own would contain the same field numbers,
and its parser would drop unknown fields, which here are an error. It would save time, not code: for the conditions of
`policies/`, 255 us each by hand, 85 us to parse and walk the messages before any check of types or profile.
Field numbers: cel-spec `proto/cel/expr/{checked,syntax}.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from policyguard.conditions import wire
from policyguard.conditions.ast import folded
from policyguard.conditions.checked_types import outside_profile, refuse_records, refuse_zone_names, type_name
from policyguard.conditions.macros import RESULT, STEP, folded_macro
from policyguard.conditions.problems import ProfileError
from policyguard.conditions.profile import ENTITIES, IDENTITIES, OVERLOADS, REFUSED_TYPES, SYNONYMS, VARIABLES
from policyguard.conditions.signatures import fits
from policyguard.conditions.wire import Message, utf8
from policyguard.model.expression import (
    Call,
    Constant,
    Expression,
    Has,
    ListOf,
    MapOf,
    Select,
    TypeName,
    Variable,
    walk,
)

MAX_BYTES = 1 << 20
MAX_DEPTH = 80
"""The maximum nesting of nodes; the checker already stops an author at 32 levels of parentheses."""
MAX_NODES = 20_000

_REFUSED_CONSTANTS = {1: "null", 4: "uint", 5: "double", 7: "bytes"}

_ENVELOPE, _CHECKED, _SOURCE, _REFERENCE = range(1, 3), range(2, 7), range(1, 7), (1, 3, 4)
_NODE, _IDENTIFIER, _SELECT, _CALL = range(2, 10), (1,), (1, 2, 3), (1, 2, 3)
_LIST, _STRUCT, _ENTRY, _COMPREHENSION = (1, 2), (1, 2), range(1, 6), range(1, 9)
"""The numbers of the fields that each message has."""


def decode(serialized: bytes, variables: Collection[str] = frozenset(VARIABLES)) -> Expression:
    """Decode a serialized checked expression and fold constants.

    Raises:
        ProfileError: see `decode_checked`.
    """
    return folded(decode_checked(serialized, variables))


def decode_checked(serialized: bytes, variables: Collection[str] = frozenset(VARIABLES)) -> Expression:
    """Decode a serialized `google.protobuf.Any` that contains a `cel.expr.CheckedExpr`.

    Args:
        serialized: the bytes from the checker.
        variables: the names that the expression may read.

    Raises:
        ProfileError: a construct is outside the profile (`.name`, `.offset`), or the bytes are malformed.
    """
    # INVARIANT I6: only `ProfileError` is raised, whatever the bytes.
    if len(serialized) > MAX_BYTES:
        raise ProfileError(f"the checked expression is {len(serialized)} bytes, expected at most {MAX_BYTES}")
    decoder, root = _open(serialized, frozenset(variables))
    expression = decoder.expression(root, frozenset(), MAX_DEPTH)
    _refuse_residue(expression)
    return expression


def _open(serialized: bytes, variables: frozenset[str]) -> tuple[_Decoder, bytes]:
    envelope = Message(serialized, _ENVELOPE)
    if envelope.text(1) != "type.googleapis.com/cel.expr.CheckedExpr":
        raise ProfileError("malformed expression: not a checked expression")
    checked = Message(envelope.data(2), _CHECKED)
    source = Message(checked.data(5), _SOURCE)
    positions = {key: value.integer(2) for key, value in source.entries(4)}
    references = {key: value.data(2) for key, value in checked.entries(2)}
    types = {key: value.data(2) for key, value in checked.entries(3)}
    return _Decoder(references, types, positions, variables), checked.data(4)


def _refuse_residue(expression: Expression) -> None:
    """Refuse parts of a macro's expansion that are outside a macro; the checker never produces them."""
    for node in walk(expression):
        if (isinstance(node, Variable) and node.name == RESULT) or (isinstance(node, Call) and node.function == STEP):
            raise ProfileError("malformed expression: a part of a macro outside one", node.offset)


@dataclass(slots=True)
class _Decoder:
    references: dict[int, bytes]
    types: dict[int, bytes]
    positions: dict[int, int]
    variables: frozenset[str]
    nodes: int = 0
    names: dict[bytes, TypeName] = field(default_factory=dict)

    def expression(self, data: bytes, bound: frozenset[str], depth: int) -> Expression:
        node = Message(data, _NODE)
        identifier = node.integer(2)
        offset = self.positions.get(identifier, 0)
        self.nodes += 1
        if depth <= 0 or self.nodes > MAX_NODES:
            raise ProfileError("the condition is nested too deeply or too long", offset, name="size")
        kinds = [kind for kind in node.fields if kind != 2]
        if len(kinds) != 1:
            raise ProfileError("malformed expression: a node of unknown kind", offset)
        return _KINDS[kinds[0]](self, node.data(kinds[0]), identifier, offset, bound, depth - 1)

    def constant(self, data: bytes, _identifier: int, offset: int, _bound: frozenset[str], _depth: int) -> Expression:
        values = wire.fields(data)
        if len(values) != 1:
            raise ProfileError("malformed expression: a literal without one value", offset)
        number, value = values[0]
        if number in _REFUSED_CONSTANTS:
            raise outside_profile(_REFUSED_CONSTANTS[number], offset)
        if number == 2 and isinstance(value, int):
            return Constant(value != 0, "bool", offset)
        if number == 3 and isinstance(value, int):
            return Constant(wire.signed(value), "int", offset)
        if number == 6 and isinstance(value, bytes):
            return Constant(utf8(value), "string", offset)
        raise ProfileError("malformed expression: a literal of unknown kind", offset)

    def identifier(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], _depth: int) -> Expression:
        kind = self.type_of(identifier, offset)
        name = Message(data, _IDENTIFIER).text(1)
        if name not in bound and name not in self.variables:
            raise ProfileError(f"unknown name `{name}`", offset, name="name")
        return Variable(name, kind, offset)

    def select(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = Message(data, _SELECT)
        operand = self.expression(message.data(1), bound, depth)
        name = message.text(2)
        if not name:
            raise ProfileError("malformed expression: a selection without a name", offset)
        if message.integer(3):
            return Has(operand, name, offset)
        return Select(operand, name, self.type_of(identifier, offset), offset)

    def call(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = Message(data, _CALL)
        operands = [*message.repeated(1), *message.repeated(3)]
        arguments = tuple(self.value(operand, bound, depth) for operand in operands)
        reference = Message(self.references.get(identifier, b""), _REFERENCE)
        overloads = reference.repeated(3)
        if len(overloads) != 1:
            raise outside_profile("dyn", offset)
        function = utf8(overloads[0])
        function = SYNONYMS.get(function, function)
        if function in IDENTITIES and len(arguments) == 1:
            return arguments[0]
        if function not in OVERLOADS and function != STEP:
            self.type_of(identifier, offset)
            raise ProfileError(f"`{message.text(2)}` is outside the profile", offset, name="function")
        if function in ("equals", "not_equals", "in_list"):
            refuse_records(arguments, offset)
        if function.endswith("_with_tz"):
            refuse_zone_names(arguments[-1])
        if function in ("logical_and", "logical_or"):
            arguments = _flattened(function, arguments)
        kind = self.type_of(identifier, offset)
        if not fits(function, arguments, kind):
            raise ProfileError(f"malformed expression: `{function}` of other types", offset)
        return Call(function, arguments, kind, offset)

    def value(self, data: bytes, bound: frozenset[str], depth: int) -> Expression:
        """Decode a node whose value is used; refuse a whole entity."""
        expression = self.expression(data, bound, depth)
        # INVARIANT I2: an entity is never a value, so no comparison sees that a fact is absent.
        if expression.type in ENTITIES:
            raise ProfileError(
                f"`{expression.type}` is no value by itself",
                expression.offset,
                name="entity",
                help="name one of its attributes",
            )
        return expression

    def list_of(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = Message(data, _LIST)
        if 2 in message.fields:
            raise ProfileError("optional elements are outside the profile", offset, name="optional")
        elements = tuple(self.value(element, bound, depth) for element in message.repeated(1))
        kind = self.type_of(identifier, offset, empty=not elements)
        if not kind.startswith("list("):
            raise ProfileError("malformed expression: a list of another type", offset)
        return ListOf(elements, kind, offset)

    def map_of(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = Message(data, _STRUCT)
        if message.text(1):
            raise ProfileError("building a record is outside the profile", offset, name="message")
        entries = tuple(self.entry(Message(entry, _ENTRY), offset, bound, depth) for entry in message.repeated(2))
        kind = self.type_of(identifier, offset, empty=not entries)
        if not kind.startswith("map("):
            raise ProfileError("malformed expression: a map of another type", offset)
        return MapOf(entries, kind, offset)

    def entry(self, message: Message, offset: int, bound: frozenset[str], depth: int) -> tuple[Expression, Expression]:
        if 2 in message.fields or message.integer(5):
            raise ProfileError("optional entries are outside the profile", offset, name="optional")
        key = self.value(message.data(3), bound, depth)
        if key.type != "string":
            raise ProfileError("a key of a map is text, nothing else", key.offset, name="map-key")
        return key, self.value(message.data(4), bound, depth)

    def comprehension(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = Message(data, _COMPREHENSION)
        variable, accumulator = message.text(1), message.text(3)
        if message.text(8):
            raise ProfileError("macros of two variables are outside the profile", offset, name="two-variables")
        if variable in self.variables:
            raise ProfileError(f"`{variable}` is taken, expected another name", offset, name="shadowing")
        if not variable.isidentifier() or accumulator != RESULT:
            raise ProfileError("malformed expression: a macro of unknown kind", offset)
        source = self.value(message.data(2), bound, depth)
        inner = bound | {variable, accumulator}
        initial, condition, step, result = (
            self.expression(message.data(number), inner, depth) for number in (4, 5, 6, 7)
        )
        kind = self.type_of(identifier, offset)
        return folded_macro(variable, source, (initial, condition, step, result), kind, offset)

    def type_of(self, identifier: int, offset: int, *, empty: bool = False) -> TypeName:
        data = self.types.get(identifier)
        if data is None:
            raise ProfileError("malformed expression: a node without a type", offset)
        name = self.names.get(data)
        if name is None:
            name = self.names[data] = type_name(data, MAX_DEPTH)
        if name in REFUSED_TYPES:
            raise outside_profile(name, offset)
        for refused in REFUSED_TYPES:
            if f"({refused})" in name or f" {refused})" in name or f"({refused}," in name:
                if empty and refused == "dyn":
                    continue
                raise outside_profile(refused, offset)
        if name.startswith("map(") and not name.startswith("map(string,") and not empty:
            raise ProfileError("a key of a map is text, nothing else", offset, name="map-key")
        return name


_Reader = Callable[[_Decoder, bytes, int, int, "frozenset[str]", int], Expression]
_KINDS: dict[int, _Reader] = {
    3: _Decoder.constant,
    4: _Decoder.identifier,
    5: _Decoder.select,
    6: _Decoder.call,
    7: _Decoder.list_of,
    8: _Decoder.map_of,
    9: _Decoder.comprehension,
}


def _flattened(function: str, arguments: tuple[Expression, ...]) -> tuple[Expression, ...]:
    operands: list[Expression] = []
    for argument in arguments:
        if isinstance(argument, Call) and argument.function == function:
            operands.extend(argument.arguments)
        else:
            operands.append(argument)
    return tuple(operands)
