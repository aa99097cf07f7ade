"""Serialized types of another make than the checker's are named as what the profile refuses, or refused."""

from __future__ import annotations

import pytest

from policyguard.conditions.checked_types import type_name
from policyguard.conditions.problems import ProfileError

TEXT = bytes([3 << 3, 5])


def inside(kind: int, *parts: bytes) -> bytes:
    """A type of this kind over other types."""
    data = b"".join(bytes([number << 3 | 2, len(part)]) + part for number, part in enumerate(parts, start=1))
    return bytes([kind << 3 | 2, len(data)]) + data


def nested(levels: int) -> bytes:
    return inside(6, nested(levels - 1)) if levels > 1 else TEXT


def test_types_nest_as_deeply_as_is_allowed_and_no_deeper() -> None:
    """The bound is what keeps a snapshot from exhausting the stack; it counts each level of lists and maps."""
    assert type_name(nested(3), 3) == "list(list(string))"
    assert type_name(inside(7, TEXT, nested(2)), 3) == "map(string, list(string))"
    for data, depth in ((nested(4), 3), (TEXT, 0), (inside(7, TEXT, nested(3)), 3)):
        with pytest.raises(ProfileError, match="nested too deeply"):
            type_name(data, depth)
