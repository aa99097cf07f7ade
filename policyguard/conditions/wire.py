"""Reads the protobuf wire format: varints, fixed widths and length-delimited fields. Knows nothing of CEL.

Invalid bytes always raise `ProfileError`. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from policyguard.conditions.problems import ProfileError

Field: TypeAlias = "tuple[int, int | bytes]"

_MASK_64 = (1 << 64) - 1


def fields(data: bytes) -> list[Field]:
    """Split one message into (number, value) pairs in order; a value is an unsigned integer or bytes.

    message = *( tag value ); tag = varint of ( number << 3 | wire type ); wire type 0 varint, 1 and 5 fixed, 2 bytes

    Raises:
        ProfileError: the bytes are not a message.
    """
    pairs: list[Field] = []
    position, end = 0, len(data)
    while position < end:
        tag, position = varint(data, position)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if number == 0:
            raise ProfileError("malformed expression: field number 0")
        if kind == 0:
            value, position = varint(data, position)
        elif kind == 2:
            length, position = varint(data, position)
            value, position = _take(data, position, length)
        elif kind in (1, 5):
            value, position = _take(data, position, 8 if kind == 1 else 4)
        else:
            raise ProfileError(f"malformed expression: wire type {kind}")
        pairs.append((number, value))
    return pairs


def varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a 64-bit varint; return it and the position after it.

    Raises:
        ProfileError: it does not end within the data or within 64 bits.
    """
    result = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ProfileError("malformed expression: a varint does not end")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & _MASK_64, position
        shift += 7


def signed(value: int) -> int:
    """Interpret 64 bits as an int64 in two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def utf8(data: bytes) -> str:
    """Decode UTF-8.

    Raises:
        ProfileError: the bytes are not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProfileError("malformed expression: text is not UTF-8") from None


def _take(data: bytes, position: int, length: int) -> tuple[bytes, int]:
    if length > len(data) - position:
        raise ProfileError("malformed expression: it ends inside a field")
    return data[position : position + length], position + length


class Message:
    """The fields of one message by number; for a field that is not repeated, the last value wins.

    Raises:
        ProfileError: the bytes are not a message, or have a field whose number is not in `known`.
    """

    __slots__ = ("fields",)

    def __init__(self, data: bytes, known: Collection[int]) -> None:
        self.fields: dict[int, list[int | bytes]] = {}
        for number, value in fields(data):
            # A later version of CEL may give a new field a meaning: to ignore it could change the condition's.
            if number not in known:
                raise ProfileError(f"malformed expression: unknown field {number}")
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
        return utf8(self.data(number))

    def repeated(self, number: int) -> list[bytes]:
        values = self.fields.get(number, [])
        items = [value for value in values if isinstance(value, bytes)]
        if len(items) != len(values):
            raise ProfileError(f"malformed expression: field {number} is an integer")
        return items

    def entries(self, number: int) -> list[tuple[int, Message]]:
        """Return a map with integer keys as (key, entry) pairs; the value is field 2 of the entry."""
        messages = [Message(data, (1, 2)) for data in self.repeated(number)]
        return [(message.integer(1), message) for message in messages]
