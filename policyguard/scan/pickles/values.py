"""The abstract values on the pickle machine's stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

MAX_REMEMBERED_ITEMS = 65_536
"""The number of items stored of a list or map: more than any list of storages needs."""


@dataclass(frozen=True, slots=True)
class Import:
    """The value of GLOBAL: an imported name, harmless or not."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return (self.module, self.name)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes, or a long text, in the source at `offset`; never copied."""

    kind: str
    offset: int
    length: int


class Group(tuple["Abstract", ...]):
    """A tuple that knows its weight and its depth."""

    weight: int = 1
    depth: int = 1


MAX_WEIGHT = 10**9
"""Heavier is as heavy: a weight that doubles with each opcode soon has more digits than the file."""


def weight_of(value: Abstract) -> int:
    """Return the number of parts of a value if each reference counts as a copy."""
    return value.weight if isinstance(value, Group | Items) else 1


def depth_of(value: Abstract) -> int:
    """Return how deep tuples and collections are nested in a value."""
    return value.depth if isinstance(value, Group | Items) else 0


@dataclass(eq=False, slots=True)
class Items:
    """A list, set or map.

    The `items` of a map are its keys and values in turn; `count` includes those that were not stored.
    """

    kind: str
    items: list[Abstract] = field(default_factory=list)
    weight: int = 1
    depth: int = 1
    count: int = 0

    def extend(self, values: list[Abstract]) -> None:
        self.count += len(values)
        self.weight = min(self.weight + sum(map(weight_of, values)), MAX_WEIGHT)
        self.depth = max(self.depth, 1 + max(map(depth_of, values), default=0))
        room = MAX_REMEMBERED_ITEMS - len(self.items)
        self.items.extend(values[:room] if room > 0 else ())

    def plain_map(self) -> dict[str, Abstract] | None:
        """Return the map if all keys are distinct constant texts and all items are stored, else None."""
        keys = self.items[::2]
        if self.kind != "map" or self.count != len(self.items) or any(type(key) is not str for key in keys):
            return None
        entries = {str(key): value for key, value in zip(keys, self.items[1::2], strict=True)}
        return entries if len(entries) == len(keys) else None


@dataclass(eq=False, slots=True)
class Made:
    """The result of a call.

    `state` is the last that BUILD gave it, `states` their number, `contents` its items.
    """

    callee: Abstract
    args: Abstract = ()
    state: Abstract = None
    states: int = 0
    contents: Items | None = None


@dataclass(frozen=True, slots=True)
class Other:
    """Any other value: a float, a persistent object, something unknown."""

    kind: str


@dataclass(frozen=True, slots=True)
class Stored(Other):
    """A torch storage: its key in the file, and the name of its class."""

    key: str
    storage_class: str


Abstract: TypeAlias = "bool | int | str | tuple[Abstract, ...] | Import | Payload | Items | Made | Other | None"

NOTHING = Other("nothing")
