"""Reads the protobuf wire format, and only that: varints, fixed widths and length-delimited fields of one message.

Every way bytes can be wrong raises `ProfileError`. Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TypeAlias

from policyguard.conditions.problems import ProfileError

Field: TypeAlias = "tuple[int, int | bytes]"

_MASK_64 = (1 << 64) - 1


def fields(data: bytes) -> list[Field]:
    """Return the (number, value) pairs of one message in order; a value is an unsigned integer or bytes.

    message = *( tag value ); tag = varint of ( number << 3 | wire type ); wire type 0 varint, 1 and 5 fixed, 2 bytes
    """
    found: list[Field] = []
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
        found.append((number, value))
    return found


def varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the 64-bit varint that starts here and the position after it."""
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
    """Return the int64 that these 64 bits are in two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _take(data: bytes, position: int, length: int) -> tuple[bytes, int]:
    if length > len(data) - position:
        raise ProfileError("malformed expression: it ends inside a field")
    return data[position : position + length], position + length
