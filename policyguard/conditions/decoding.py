"""Turns the checker's serialized result into typed nodes; what is outside the profile is refused by name.

Written by hand over `wire.py`, so that a host which only loads compiled snapshots or checks bytes needs no protobuf.
Hostile bytes cost at most their own length: only `ProfileError` escapes. Field numbers: cel-spec
`proto/cel/expr/{checked,syntax}.proto`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from policyguard.conditions import wire
from policyguard.conditions.ast import folded
from policyguard.conditions.macros import RESULT, STEP, folded_macro
from policyguard.conditions.problems import ProfileError
from policyguard.conditions.profile import ENTITIES, IDENTITIES, OVERLOADS, REFUSED_TYPES, SYNONYMS, VARIABLES
from policyguard.conditions.signatures import fits
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
"""How deep nodes may nest; the checker itself stops an author at 32 levels of parentheses."""
MAX_NODES = 20_000

_OFFSET = re.compile(r"UTC|[+-]?([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)


PACKAGE = "policyguard."
"""Package of the message types that the checker is given: `policyguard.record_<name>`, `policyguard.subject`, ..."""

_PRIMITIVES = {1: "bool", 2: "int", 3: "uint", 4: "double", 5: "string", 6: "bytes"}
_WELL_KNOWN = {2: "timestamp", 3: "duration"}
_REFUSED_KINDS = {1: "dyn", 2: "null", 10: "dyn", 11: "type"}
_CONSTANTS = {1: "null", 4: "uint", 5: "double", 7: "bytes"}


def decode(serialized: bytes, variables: Collection[str] = frozenset(VARIABLES)) -> Expression:
    """Return the nodes of a serialized checked expression, constants folded; raises `ProfileError` and nothing else."""
    return folded(decode_checked(serialized, variables))


def decode_checked(serialized: bytes, variables: Collection[str] = frozenset(VARIABLES)) -> Expression:
    """Return the typed nodes of a serialized `google.protobuf.Any` that holds a `cel.expr.CheckedExpr`.

    Raises:
        ProfileError: a construct is outside the profile (`.name`, `.offset`), or the bytes are malformed.
    """
    # INVARIANT I16: nothing but `ProfileError` escapes, whatever the bytes.
    if len(serialized) > MAX_BYTES:
        raise ProfileError(f"the checked expression is {len(serialized)} bytes, expected at most {MAX_BYTES}")
    decoder, root = _open(serialized, frozenset(variables))
    expression = decoder.expression(root, frozenset(), MAX_DEPTH)
    _refuse_residue(expression)
    return expression


def _open(serialized: bytes, variables: frozenset[str]) -> tuple[_Decoder, bytes]:
    envelope = _Message(serialized)
    if envelope.text(1) != "type.googleapis.com/cel.expr.CheckedExpr":
        raise ProfileError("malformed expression: not a checked expression")
    checked = _Message(envelope.data(2))
    source = _Message(checked.data(5))
    positions = {key: value.integer(2) for key, value in source.entries(4)}
    references = {key: value.data(2) for key, value in checked.entries(2)}
    types = {key: value.data(2) for key, value in checked.entries(3)}
    return _Decoder(references, types, positions, variables), checked.data(4)


def _refuse_residue(expression: Expression) -> None:
    """Refuse what only the expansion of a macro may hold, left outside one: no text leads here."""
    for node in walk(expression):
        if (isinstance(node, Variable) and node.name == RESULT) or (isinstance(node, Call) and node.function == STEP):
            raise ProfileError("malformed expression: a part of a macro outside one", node.offset)


class _Message:
    """The fields of one message by number; the last one wins, repeated ones keep their order."""

    __slots__ = ("fields",)

    def __init__(self, data: bytes) -> None:
        self.fields: dict[int, list[int | bytes]] = {}
        for number, value in wire.fields(data):
            self.fields.setdefault(number, []).append(value)

    def integer(self, number: int) -> int:
        value = self.fields.get(number, (0,))[-1]
        if isinstance(value, int):
            return value
        raise ProfileError(f"malformed expression: field {number} is no integer")

    def data(self, number: int) -> bytes:
        value = self.fields.get(number, (b"",))[-1]
        if isinstance(value, bytes):
            return value
        raise ProfileError(f"malformed expression: field {number} is an integer")

    def text(self, number: int) -> str:
        return _utf8(self.data(number))

    def repeated(self, number: int) -> list[bytes]:
        values = self.fields.get(number, [])
        found = [value for value in values if isinstance(value, bytes)]
        if len(found) != len(values):
            raise ProfileError(f"malformed expression: field {number} is an integer")
        return found

    def entries(self, number: int) -> list[tuple[int, _Message]]:
        messages = [_Message(data) for data in self.repeated(number)]
        return [(message.integer(1), message) for message in messages]


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProfileError("malformed expression: text is not UTF-8") from None


@dataclass(slots=True)
class _Decoder:
    references: dict[int, bytes]
    types: dict[int, bytes]
    positions: dict[int, int]
    variables: frozenset[str]
    nodes: int = 0
    names: dict[bytes, TypeName] = field(default_factory=dict)

    def expression(self, data: bytes, bound: frozenset[str], depth: int) -> Expression:
        node = _Message(data)
        identifier = node.integer(2)
        offset = self.positions.get(identifier, 0)
        self.nodes += 1
        if depth <= 0 or self.nodes > MAX_NODES:
            raise ProfileError("the condition is nested too deeply or too long", offset, name="size")
        kinds = [kind for kind in node.fields if kind != 2]
        if len(kinds) != 1 or kinds[0] not in _KINDS:
            raise ProfileError("malformed expression: a node of unknown kind", offset)
        return _KINDS[kinds[0]](self, node.data(kinds[0]), identifier, offset, bound, depth - 1)

    def constant(self, data: bytes, _identifier: int, offset: int, _bound: frozenset[str], _depth: int) -> Expression:
        values = wire.fields(data)
        if len(values) != 1:
            raise ProfileError("malformed expression: a literal without one value", offset)
        number, value = values[0]
        if number in _CONSTANTS:
            raise _outside(_CONSTANTS[number], offset)
        if number == 2 and isinstance(value, int):
            return Constant(value != 0, "bool", offset)
        if number == 3 and isinstance(value, int):
            return Constant(wire.signed(value), "int", offset)
        if number == 6 and isinstance(value, bytes):
            return Constant(_utf8(value), "string", offset)
        raise ProfileError("malformed expression: a literal of unknown kind", offset)

    def identifier(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], _depth: int) -> Expression:
        kind = self.type_of(identifier, offset)
        name = _Message(data).text(1)
        if name not in bound and name not in self.variables:
            raise ProfileError(f"unknown name `{name}`", offset, name="name")
        return Variable(name, kind, offset)

    def select(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = _Message(data)
        operand = self.expression(message.data(1), bound, depth)
        name = message.text(2)
        if not name:
            raise ProfileError("malformed expression: a selection without a name", offset)
        if message.integer(3):
            return Has(operand, name, offset)
        return Select(operand, name, self.type_of(identifier, offset), offset)

    def call(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = _Message(data)
        operands = [*message.repeated(1), *message.repeated(3)]
        arguments = tuple(self.value(operand, bound, depth) for operand in operands)
        reference = _Message(self.references.get(identifier, b""))
        overloads = reference.repeated(3)
        if len(overloads) != 1:
            raise _outside("dyn", offset)
        function = _utf8(overloads[0])
        function = SYNONYMS.get(function, function)
        if function in IDENTITIES and len(arguments) == 1:
            return arguments[0]
        if function not in OVERLOADS and function != STEP:
            self.type_of(identifier, offset)
            raise ProfileError(f"`{message.text(2)}` is outside the profile", offset, name="function")
        if function in ("equals", "not_equals", "in_list"):
            _refuse_records(arguments, offset)
        if function.endswith("_with_tz"):
            _refuse_zone_names(arguments[-1])
        if function in ("logical_and", "logical_or"):
            arguments = _flattened(function, arguments)
        kind = self.type_of(identifier, offset)
        if not fits(function, arguments, kind):
            raise ProfileError(f"malformed expression: `{function}` of other types", offset)
        return Call(function, arguments, kind, offset)

    def value(self, data: bytes, bound: frozenset[str], depth: int) -> Expression:
        """Decode a node that stands as a value: anything but a whole entity."""
        expression = self.expression(data, bound, depth)
        # INVARIANT I15: an entity is never a value, so no comparison sees that a fact is absent.
        if expression.type in ENTITIES:
            raise ProfileError(
                f"`{expression.type}` is no value by itself",
                expression.offset,
                name="entity",
                help="name one of its attributes",
            )
        return expression

    def list_of(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = _Message(data)
        if 2 in message.fields:
            raise ProfileError("optional elements are outside the profile", offset, name="optional")
        elements = tuple(self.value(element, bound, depth) for element in message.repeated(1))
        kind = self.type_of(identifier, offset, empty=not elements)
        if not kind.startswith("list("):
            raise ProfileError("malformed expression: a list of another type", offset)
        return ListOf(elements, kind, offset)

    def map_of(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = _Message(data)
        if message.text(1):
            raise ProfileError("building a record is outside the profile", offset, name="message")
        entries = tuple(self.entry(_Message(entry), offset, bound, depth) for entry in message.repeated(2))
        kind = self.type_of(identifier, offset, empty=not entries)
        if not kind.startswith("map("):
            raise ProfileError("malformed expression: a map of another type", offset)
        return MapOf(entries, kind, offset)

    def entry(self, message: _Message, offset: int, bound: frozenset[str], depth: int) -> tuple[Expression, Expression]:
        if 2 in message.fields or message.integer(5):
            raise ProfileError("optional entries are outside the profile", offset, name="optional")
        key = self.value(message.data(3), bound, depth)
        if key.type != "string":
            raise ProfileError("a key of a map is text, nothing else", key.offset, name="map-key")
        return key, self.value(message.data(4), bound, depth)

    def comprehension(self, data: bytes, identifier: int, offset: int, bound: frozenset[str], depth: int) -> Expression:
        message = _Message(data)
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
            name = self.names[data] = _type_name(data, MAX_DEPTH)
        if name in REFUSED_TYPES:
            raise _outside(name, offset)
        for refused in REFUSED_TYPES:
            if f"({refused})" in name or f" {refused})" in name or f"({refused}," in name:
                if empty and refused == "dyn":
                    continue
                raise _outside(refused, offset)
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


def _type_name(data: bytes, depth: int) -> TypeName:
    if depth <= 0:
        raise ProfileError("malformed expression: a type is nested too deeply")
    message = _Message(data)
    if 3 in message.fields:
        return _PRIMITIVES.get(message.integer(3), "other")
    if 5 in message.fields:
        return _WELL_KNOWN.get(message.integer(5), "other")
    if 6 in message.fields:
        return f"list({_type_name(_Message(message.data(6)).data(1), depth - 1)})"
    if 7 in message.fields:
        pair = _Message(message.data(7))
        return f"map({_type_name(pair.data(1), depth - 1)}, {_type_name(pair.data(2), depth - 1)})"
    if 9 in message.fields:
        return _record_name(message.text(9))
    return next((_REFUSED_KINDS[kind] for kind in message.fields if kind in _REFUSED_KINDS), "other")


def _record_name(full: str) -> TypeName:
    if not full.startswith(PACKAGE):
        return "other"
    kind, _, name = full.removeprefix(PACKAGE).partition("_")
    if kind == "record" and name.isidentifier():
        return name
    return kind if kind in ENTITIES else "other"


def _outside(kind: str, offset: int) -> ProfileError:
    name, words, help_text = REFUSED_TYPES[kind]
    return ProfileError(f"{words} is outside the profile", offset, name=name, help=help_text)


_PLAIN = frozenset({"bool", "int", "string", "timestamp", "duration", "dyn"})


def _refuse_records(arguments: tuple[Expression, ...], offset: int) -> None:
    for argument in arguments:
        innermost = argument.type.replace("list(", "").replace("map(string, ", "").replace("map(dyn, ", "").rstrip(")")
        if innermost not in _PLAIN:
            raise ProfileError(
                f"records (`{innermost}`) cannot be compared",
                offset,
                name="record-equality",
                help="compare the fields that matter",
            )


def _refuse_zone_names(zone: Expression) -> None:
    if isinstance(zone, Constant) and _OFFSET.fullmatch(str(zone.value)):
        return
    raise ProfileError(
        "a time zone is `UTC` or an offset such as `+02:00`, written out",
        zone.offset,
        name="zone",
        help="the rules of named zones differ from host to host",
    )


def _flattened(function: str, arguments: tuple[Expression, ...]) -> tuple[Expression, ...]:
    flat: list[Expression] = []
    for argument in arguments:
        if isinstance(argument, Call) and argument.function == function:
            flat.extend(argument.arguments)
        else:
            flat.append(argument)
    return tuple(flat)
