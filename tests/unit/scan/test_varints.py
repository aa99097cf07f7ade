"""Variable-length integers, as protobuf and Thrift write them."""

from __future__ import annotations

import pytest

from policyguard.scan.findings import LayoutProblem
from policyguard.scan.formats.varints import read_varint


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63 - 1, 2**64 - 1])
def test_a_number_is_read_as_it_is_written(number: int) -> None:
    """Seven bits a byte, the lowest first, the high bit set on all but the last."""
    data, rest = bytearray(), number
    while rest >= 128:
        data.append(rest & 127 | 128)
        rest >>= 7
    data.append(rest)
    following = iter(data[1:])
    assert read_varint(data[0], lambda: next(following)) == number
    assert list(following) == []


def test_a_number_without_end_is_refused() -> None:
    """An eleventh byte is never read."""
    following = iter([128] * 9)
    with pytest.raises(LayoutProblem, match="a number that does not end"):
        read_varint(128, lambda: next(following))
