"""Frozen values with exactly one encoding as bytes.

A value is a bool, an integer within 2^53 - 1 of zero, text, a tuple of values, or a `FrozenMap` from text to values.
No floats and no nulls, so that RFC 8785 bytes need no caveats. This module opens nothing and reads no clock.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NoReturn, TypeAlias

import msgspec

MAX_INTEGER = 2**53 - 1
"""The largest magnitude that survives every JSON reader (RFC 8785 section 3.2.2.3, RFC 7493 section 2.2)."""

MAX_DEPTH = 32
"""The maximum nesting of lists and maps; far below the interpreter's recursion limit."""

Instant: TypeAlias = int
"""A point in time: nanoseconds since 1970-01-01T00:00:00Z, the unit of CEL timestamps inside the engine."""

NANOSECONDS_PER_S = 1_000_000_000


class LazyPattern:
    """A regular expression that is compiled at first use, so that a hook pays only for those it uses."""

    __slots__ = ("finditer", "flags", "fullmatch", "text")

    fullmatch: Callable[[str], re.Match[str] | None]
    finditer: Callable[[str], Iterator[re.Match[str]]]

    def __init__(self, text: str, flags: int = 0) -> None:
        self.text = text
        self.flags = flags

    def __getattr__(self, name: str) -> Any:
        if name not in ("finditer", "fullmatch"):
            raise AttributeError(name)
        pattern = re.compile(self.text, self.flags)
        self.fullmatch, self.finditer = pattern.fullmatch, pattern.finditer
        return getattr(pattern, name)


class FrozenMap(dict[str, "Value"]):
    """The immutable mapping of this package.

    It is a `dict`, so reading is fast and every encoder accepts it.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a FrozenMap cannot be changed; build a new one")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = setdefault = clear = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenMap], tuple[dict[str, Value]]]:
        return (FrozenMap, (dict(self),))

    def __copy__(self) -> FrozenMap:
        return self

    def __deepcopy__(self, memo: object) -> FrozenMap:
        return self


Value: TypeAlias = "bool | int | str | tuple[Value, ...] | FrozenMap"

EMPTY_MAP = FrozenMap()


class ValueProblem(ValueError):
    """The data is not a value; `path` leads to the wrong part, and the text says what was expected."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


def freeze(data: object, path: str = "$", *, depth: int = MAX_DEPTH) -> Value:
    """Convert data from JSON or Python to a frozen value.

    Args:
        data: bools, integers, text, lists, tuples and mappings with text keys.
        path: the JSON path of the data, for errors.
        depth: how many levels of lists and mappings may still nest.

    Raises:
        ValueProblem: the data has something else; `.path` is where.
    """
    kind = type(data)
    if kind is bool:
        return data  # type: ignore[return-value]
    if kind is str:
        return _text(data, path)  # type: ignore[arg-type]
    if kind is int:
        if -MAX_INTEGER <= data <= MAX_INTEGER:  # type: ignore[operator]
            return data  # type: ignore[return-value]
        raise ValueProblem(path, f"found an integer beyond 2^53 - 1, expected one within, or text: `{data}`")
    if depth <= 0:
        raise ValueProblem(path, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(data, Mapping):
        return FrozenMap(_members(data, path, depth))
    if isinstance(data, list | tuple):
        return tuple(freeze(item, f"{path}[{i}]", depth=depth - 1) for i, item in enumerate(data))
    raise ValueProblem(path, f"found {name_of(data)}, expected text, integer, bool, list or map")


def _members(data: Mapping[Any, Any], path: str, depth: int) -> Iterator[tuple[str, Value]]:
    for key, item in data.items():
        if type(key) is not str:
            raise ValueProblem(path, f"found {name_of(key)} as a key, expected text")
        _text(key, path)
        yield key, freeze(item, f"{path}.{key}", depth=depth - 1)


def _text(data: str, path: str) -> str:
    if not data.isascii():
        try:
            data.encode()
        except UnicodeEncodeError:
            raise ValueProblem(path, "found a lone surrogate, expected Unicode text") from None
    return data


_NAMES = {
    bool: "a bool",
    int: "an integer",
    float: "a float",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a map",
    FrozenMap: "a map",
    type(None): "null",
    bytes: "bytes",
}


def name_of(data: object) -> str:
    """Return the kind of data for users: "an integer", "a list", never a Python type name."""
    return _NAMES.get(type(data), "something else")


def canonical(value: object) -> bytes:
    """Encode a value, or lists and dicts of values, by RFC 8785: sorted keys, no spaces, UTF-8.

    Equal to RFC 8785 because values hold no floats, no nulls and no integer beyond 2^53 - 1; keys are sorted by UTF-16
    code units as section 3.2.3 asks, which differs from code-point order beyond the basic plane.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if text.isascii() or max(text) <= "\ud7ff":
        return text.encode()
    return json.dumps(_sorted(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _sorted(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _sorted(value[k]) for k in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


SHA256_HEX = LazyPattern(r"[0-9a-f]{64}")
"""A SHA-256 digest as text."""

OBJECT_ID = LazyPattern(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""The id of an object of git as text, with SHA-1 or SHA-256."""


def sha256_digest(data: bytes) -> str:
    """Compute the SHA-256 of these bytes in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest(value: object) -> str:
    """Compute the SHA-256 of a value's canonical bytes in lower-case hex."""
    return sha256_digest(canonical(value))


class Span(msgspec.Struct, frozen=True, order=True):
    """A position in a policy file; line and column start at one and count code points."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NO_SPAN = Span("<memory>", 1, 1)

_LOCATIONS = frozenset({"span", "offset", "positions"})


class Placed(msgspec.Struct, frozen=True):
    """The base of values with a position in a file; equality ignores `span`, `offset` and `positions`."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        meaning = _meaning(type(self))
        return bool(meaning(self) == meaning(other))

    def __hash__(self) -> int:
        return hash(_meaning(type(self))(self))


_MEANINGS: dict[type[Placed], attrgetter[Any]] = {}


def _meaning(kind: type[Placed]) -> attrgetter[Any]:
    """Return the getter of the fields that equality compares."""
    meaning = _MEANINGS.get(kind)
    if meaning is None:
        meaning = _MEANINGS[kind] = attrgetter(*(name for name in kind.__struct_fields__ if name not in _LOCATIONS))
    return meaning


_INSTANT = LazyPattern(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt](?P<time>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d{1,9}))?(?P<zone>[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
"""The range of seconds that `format_instant` can write; a zone can shift a time beyond it."""


def parse_instant(text: str) -> Instant:
    """Parse an RFC 3339 date-time; a zone is required.

    Raises:
        ValueError: the text is not such a time, or outside the years 0001 to 9999.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(f"found `{text}`, expected an RFC 3339 time with a zone such as `2026-03-01T09:00:00Z`")
    zone = match["zone"].upper().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{match['time']}{zone}")
    except ValueError as problem:
        raise ValueError(f"found `{text}`, expected an RFC 3339 time: {problem}") from None
    whole_s = (moment - _EPOCH) // timedelta(seconds=1)
    if not _FIRST_S <= whole_s <= _LAST_S:
        raise ValueError(f"found `{text}`, expected an RFC 3339 time in the years 0001 to 9999 of UTC")
    return whole_s * NANOSECONDS_PER_S + int((match["fraction"] or "0").ljust(9, "0"))


def format_instant(instant: Instant) -> str:
    """Format an instant as RFC 3339 in UTC, with 0, 3, 6 or 9 fraction digits as needed."""
    whole_s, nanoseconds = divmod(instant, NANOSECONDS_PER_S)
    text = (_EPOCH + timedelta(seconds=whole_s)).strftime("%Y-%m-%dT%H:%M:%S")
    text = text.rjust(19, "0")
    if nanoseconds:
        digits = f"{nanoseconds:09d}"
        digits = next(digits[:n] for n in (3, 6, 9) if not digits[n:].strip("0"))
        text += f".{digits}"
    return text + "Z"


_DURATION = LazyPattern(r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?", re.ASCII)


def parse_duration_s(text: str) -> int:
    """Parse a duration such as `15m`, `72h` or `1d12h` into whole seconds.

    duration = [ n "d" ] [ n "h" ] [ n "m" ] [ n "s" ], at least one part

    Raises:
        ValueError: the text is not such a duration.
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None or len(text) > 20:
        raise ValueError(f"found `{text}`, expected a duration such as `15m`, `72h` or `1d12h`")
    factors = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    return sum(int(match[unit] or 0) * factor for unit, factor in factors.items())


ALWAYS: Instant = -(2**63)
NEVER: Instant = 2**63 - 1
"""The bounds of an unlimited period: before and after every instant that can be written."""
