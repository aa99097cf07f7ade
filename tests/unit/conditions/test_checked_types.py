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


OTHERS = {
    "a type that no checker names": (bytes([4 << 3, 1]), "other"),
    "a number without sign": (bytes([3 << 3, 3]), "uint"),
    "an unknown primitive": (bytes([3 << 3, 9]), "other"),
    "an unknown well-known type": (bytes([5 << 3, 1]), "other"),
    "null": (bytes([2 << 3, 0]), "null"),
    "a record of ours": (b"\x4a\x16policyguard.record_job", "job"),
    "the resource": (b"\x4a\x18policyguard.resource_job", "resource"),
    "a record of another package": (b"\x4a\x0arecord_job", "other"),
    "a message of ours that is no record": (b"\x4a\x15policyguard.other_job", "other"),
    "a record without a name": (b"\x4a\x13policyguard.record_", "other"),
}


@pytest.mark.parametrize(("data", "name"), OTHERS.values(), ids=OTHERS)
def test_a_type_has_the_name_that_the_profile_knows_or_refuses(data: bytes, name: str) -> None:
    """No message of another package becomes a record of the schema."""
    assert type_name(data, 3) == name


def test_a_type_of_two_kinds_is_refused() -> None:
    """It could be read either way."""
    with pytest.raises(ProfileError, match="more than one kind"):
        type_name(TEXT + bytes([5 << 3, 2]), 3)
