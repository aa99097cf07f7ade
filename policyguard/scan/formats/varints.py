"""Variable-length integers with seven bits per byte, as protobuf and Thrift write them."""

from __future__ import annotations

from collections.abc import Callable

from policyguard.scan.findings import LayoutProblem

MAX_SHIFT = 63


def read_varint(first: int, next_byte: Callable[[], int]) -> int:
    """Read the number that begins with the byte `first`.

    Raises:
        LayoutProblem: it has more bytes than 64 bits take.
    """
    number, shift, byte = first & 127, 0, first
    while byte >= 128:
        shift += 7
        if shift > MAX_SHIFT:
            raise LayoutProblem("a number that does not end")
        byte = next_byte()
        number |= (byte & 127) << shift
    return number
