"""Records the long value of a bound fact: whole while there is room, else by digest, count and a part. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from policyguard.values import FrozenMap, Value, canonical, sha256_digest

MAX_VALUE_BYTES = 4_096
"""A longer value is recorded by its digest, the number of its items, and a part of no more bytes than this."""

MAX_MEMBER_BYTES = 256
"""A longer member of a record becomes its digest and count."""

MAX_ITEM_BYTES = 1_024
"""A longer item of a list becomes its digest and count."""

_KEY = ("path", "digest")


def long_record(value: Value, encoded: bytes, room: list[int]) -> dict[str, Any]:
    """Build the members `value`, or `digest`, `count` and `part`, of a fact's record.

    Args:
        value: of the fact, without what is hidden.
        encoded: its canonical bytes.
        room: how many bytes the values of the statement may still have together; reduced by those of this one.
    """
    if len(encoded) <= min(MAX_VALUE_BYTES, room[0]):
        room[0] -= len(encoded)
        return {"value": msgspec.Raw(encoded)}
    record: dict[str, Any] = {"digest": sha256_digest(encoded)}
    if isinstance(value, tuple | Mapping):
        part = canonical(short_part(value, min(MAX_VALUE_BYTES, room[0])))
        room[0] -= len(part)
        record |= {"count": len(value), "part": msgspec.Raw(part)}
    return record


def short_part(value: tuple[Value, ...] | FrozenMap, room: int) -> Value:
    """Take what is short from a list or map: the first items, or each member that is short by itself.

    Of a record with a path and a digest, these two are taken; a long member of a map becomes its digest and count.
    """
    if isinstance(value, Mapping):
        members: dict[str, Value] = {}
        for name in sorted(value):
            member = _bounded(value[name], MAX_MEMBER_BYTES)
            room -= len(canonical({name: member}))
            if room < 0:
                break
            members[name] = member
        return FrozenMap(members)
    taken: list[Value] = []
    for item in value:
        item_record = _file(item) or _bounded(item, MAX_ITEM_BYTES)
        room -= len(canonical(item_record)) + 1
        if room < 0:
            break
        taken.append(item_record)
    return tuple(taken)


def _file(item: Value) -> FrozenMap | None:
    if isinstance(item, Mapping) and all(name in item for name in _KEY):
        return FrozenMap({name: item[name] for name in _KEY})
    return None


def summary(value: Value) -> FrozenMap:
    """Describe a value by its digest and, for a list or map, the number of its items."""
    count = {"count": len(value)} if isinstance(value, tuple | Mapping) else {}
    return FrozenMap({**count, "digest": sha256_digest(canonical(value))})


def _bounded(member: Value, max_bytes: int) -> Value:
    return member if len(canonical(member)) <= max_bytes else summary(member)
