"""The values that readers of settings produce: maps that keep every entry, lists, and plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


def strings_in(value: object, check_time: Callable[[], None]) -> Iterator[str]:
    """Yield every text in a value, except keys.

    Args:
        value: what a reader of settings produced.
        check_time: called now and then; raises when the time is up.
    """
    waiting, seen, count = [value], set[int](), 0
    while waiting:
        item = waiting.pop()
        count += 1
        if not count & 1023:
            check_time()
        if type(item) is str:
            yield item
        elif (type(item) is Map or type(item) is list) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend((one for _, one in item) if type(item) is Map else item)


def is_true(value: object) -> bool:
    """Return True for true in JSON, and for a word that YAML readers take as true."""
    return value is True or value == 1 or (type(value) is str and value.casefold() in ("true", "yes", "on", "1"))


def repeated_key(value: object) -> str | None:
    """Find a key that occurs twice in one map; None if there is none."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is Map:
            seen: set[str] = set()
            for key, below in item:
                if key in seen:
                    return key
                seen.add(key)
                if type(below) is Map or type(below) is list:
                    waiting.append(below)
        elif type(item) is list:
            waiting.extend(below for below in item if type(below) is Map or type(below) is list)
    return None


def plain_value(value: object, depth: int = 16) -> object:
    """Convert maps to dictionaries that keep every entry: a repeated key gets another name."""
    if type(value) is Map and depth:
        entries: dict[str, object] = {}
        for index, (key, item) in enumerate(value):
            entries[f"{key} {index}" if key in entries else key] = plain_value(item, depth - 1)
        return entries
    if type(value) is list and depth:
        return [plain_value(item, depth - 1) for item in value]
    return True if value == "true" else value
