"""What the abstract pickle machine puts on its stack instead of objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

KEPT_ITEMS = 65_536
"""Lists and maps remember this many items: more than any list of storages, less than a bomb."""


@dataclass(frozen=True, slots=True)
class Import:
    """The value of GLOBAL: something imported, whether it is harmless or not."""

    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return (self.module, self.name)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes (or text too long to matter) that lie in the source at `offset`; never copied."""

    kind: str
    offset: int
    length: int


class Group(tuple["Abstract", ...]):
    """A tuple that remembers its weight."""

    weight: int = 1


def weight_of(value: Abstract) -> int:
    """Return how many parts a value has when each reference counts as a copy."""
    return value.weight if isinstance(value, Group | Items) else 1


@dataclass(eq=False, slots=True)
class Items:
    """A list, set or map. A map holds its keys and values in turn in `items`."""

    kind: str
    items: list[Abstract] = field(default_factory=list)
    weight: int = 1

    def extend(self, values: list[Abstract]) -> None:
        self.weight += sum(map(weight_of, values))
        room = KEPT_ITEMS - len(self.items)
        self.items.extend(values[:room] if room > 0 else ())

    def entry(self, key: str) -> Abstract:
        """Return the value last stored under `key`, or `NOTHING`."""
        for index in range(len(self.items) - 2, -1, -2):
            if self.items[index] == key and type(self.items[index]) is str:
                return self.items[index + 1]
        return NOTHING


@dataclass(eq=False, slots=True)
class Made:
    """What a call returned. `state` is what BUILD gave it, `mapping` its items if it is a map."""

    of: Abstract
    args: Abstract = ()
    state: Abstract = None
    contents: Items | None = None


@dataclass(frozen=True, slots=True)
class Other:
    """Anything else: a float, a persistent object, something unknown."""

    kind: str


Abstract: TypeAlias = "bool | int | str | tuple[Abstract, ...] | Import | Payload | Items | Made | Other | None"

NOTHING = Other("nothing")
