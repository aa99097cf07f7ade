"""The values that readers of settings produce: maps that keep every entry, lists, and plain values."""

from __future__ import annotations

from collections.abc import Iterator

MAX_NODES = 3_000_000
"""The maximum number of values in one file; tokenizers with large vocabularies have a million."""


class Map(list[tuple[str, object]]):
    """The entries of a map in order, including repeated keys, because readers differ in which one they use."""

    __slots__ = ()

    def all(self, key: str) -> Iterator[object]:
        """Yield each value under this key."""
        return (value for name, value in self if name == key)

    def has(self, *keys: str) -> bool:
        """Return True if all of the keys occur."""
        names = {name for name, _ in self}
        return all(key in names for key in keys)

    def texts(self, key: str) -> Iterator[str]:
        """Yield each text under this key."""
        return (value for value in self.all(key) if type(value) is str)


class Location:
    """The path to a value; formatted only if a finding needs it."""

    __slots__ = ("above", "part")

    def __init__(self, above: Location | None, part: str | int) -> None:
        self.above, self.part = above, part

    def is_below(self, keys: frozenset[str]) -> bool:
        """Return True if one of these keys is on the path to this location."""
        location = self.above
        while location is not None and location.part not in keys:
            location = location.above
        return location is not None

    def __str__(self) -> str:
        parts: list[str] = []
        location: Location | None = self
        while location is not None:
            part = location.part
            if type(part) is int:
                parts.append(f"[{part}]")
            elif location.above is None:
                parts.append(str(part))
            elif str(part).isidentifier():
                parts.append(f".{part}")
            else:
                parts.append(f'["{str(part)[:40]}"]')
            location = location.above
        return "".join(reversed(parts))


class Unreadable(Exception):
    """The text does not have this syntax; `location` is `line:column` if known."""

    def __init__(self, reason: str, location: str = "", partial: tuple[object, ...] = ()) -> None:
        super().__init__(reason)
        self.reason, self.location, self.partial = reason, location, partial


class TooDeep(Exception):
    """The value is nested deeper, or is larger, than the limit."""


def strings_in(value: object) -> Iterator[str]:
    """Yield every text in a value, except keys."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if type(item) is str:
            yield item
        elif (type(item) is Map or type(item) is list) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend((one for _, one in item) if type(item) is Map else item)


def is_true(value: object) -> bool:
    """Return True for true in JSON, and for a word that YAML readers take as true."""
    return value is True or value == 1 or (type(value) is str and value.casefold() in ("true", "yes", "on", "1"))
