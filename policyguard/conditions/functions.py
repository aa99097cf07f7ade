"""The functions and operators of the profile, on plain Python values. The only module that imports re2.

Every function either returns the CEL result or raises `Failure`. Integers are int64; text is counted in code points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from policyguard.conditions import times
from policyguard.conditions.addresses import ip_in
from policyguard.conditions.problems import Failure
from policyguard.patterns.glob import CACHED_LENGTH, glob
from policyguard.values import NANOSECONDS_PER_S, LazyPattern

__all__ = ["FUNCTIONS", "Failure", "glob", "ip_in", "matches", "same", "under"]

MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1


_LITERAL = LazyPattern(r"(?P<start>\^?)(?P<text>(?:[A-Za-z0-9_/:@ -]|\\[./-])*)(?P<end>\$?)", re.ASCII)
_INTEGER = LazyPattern(r"[+-]?[0-9]{1,20}", re.ASCII)
_TRUE, _FALSE = ("1", "t", "true", "TRUE", "True"), ("0", "f", "false", "FALSE", "False")


def under(path: str, prefix: str) -> bool:
    """Return True if the path equals the prefix or is below it.

    Raises:
        Failure: the prefix is empty, or one of them has a `.` or `..` segment.
    """
    if not prefix:
        raise Failure("the prefix of `under` is empty")
    # INVARIANT I5: a path with `..` is never under anything.
    for text in (path, prefix):
        if "." in text and not {".", ".."}.isdisjoint(text.split("/")):
            raise Failure(f"`{text}` holds a `.` or `..` segment")
    stem = prefix.removesuffix("/")
    return path == stem or path.startswith(stem + "/")


def matches(text: str, pattern: str) -> bool:
    """Return True if the pattern matches anywhere in the text.

    Raises:
        Failure: RE2 does not accept the pattern, or the search would take too long (`MAX_SEARCH`).
    """
    search = _search(pattern) if len(pattern) <= CACHED_LENGTH else _search.__wrapped__(pattern)
    return bool(search(text))


MAX_SEARCH = 1 << 23
"""The product of a text's characters and the instructions of RE2's program that one search may take, 0.3 s at most."""


@lru_cache(maxsize=4096)
def _search(pattern: str) -> Callable[[str], object]:
    """Build a search function; literal patterns use text methods, which take a tenth of the time."""
    literal = _LITERAL.fullmatch(pattern)
    if literal is None:
        return _regex(pattern)
    text = literal["text"].replace("\\", "")
    if literal["start"] and literal["end"]:
        return text.__eq__
    if literal["start"]:
        return lambda subject: subject.startswith(text)
    if literal["end"]:
        return lambda subject: subject.endswith(text)
    return lambda subject: text in subject


def _regex(pattern: str) -> Callable[[str], object]:
    import re2  # Imported here, so that only policies with a pattern pay for it.

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        regex = re2.compile(pattern, options)
    except re2.error as problem:
        detail = problem.args[0].decode(errors="replace") if isinstance(problem.args[0], bytes) else problem.args[0]
        raise Failure(f"`{pattern}` is no regular expression of RE2: {str(detail).lower()}") from None
    return partial(_bounded_search, regex, MAX_SEARCH // max(1, regex.programsize))


def _bounded_search(regex: Any, max_chars: int, text: str) -> object:
    # INVARIANT I2: RE2 takes time in proportion to pattern times text, which may be minutes for the longest of both.
    if len(text) > max_chars:
        raise Failure(f"the text has {len(text)} characters, expected at most {max_chars} for this pattern")
    return regex.search(text)


def same(a: object, b: object) -> bool:
    """Return True if CEL considers the values equal: lists equal tuples, and no bool equals an integer."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    return (type(a) is bool) == (type(b) is bool) and a == b


def int64(value: int) -> int:
    """Return the integer, or raise `Failure` if it is not an int64."""
    if MIN_INT64 <= value <= MAX_INT64:
        return value
    raise Failure("the integer is beyond 64 bits")


def divide(dividend: int, divisor: int) -> int:
    """Divide, rounding toward zero.

    Raises:
        Failure: the divisor is zero, or the quotient overflows.
    """
    if divisor == 0:
        raise Failure("division by zero")
    quotient = abs(dividend) // abs(divisor)
    return int64(quotient if (dividend < 0) == (divisor < 0) else -quotient)


def modulo(dividend: int, divisor: int) -> int:
    """Return the remainder, with the sign of the dividend.

    Raises:
        Failure: the divisor is zero, or the quotient overflows.
    """
    if divisor == 0:
        raise Failure("modulus by zero")
    divide(dividend, divisor)
    remainder = abs(dividend) % abs(divisor)
    return -remainder if dividend < 0 else remainder


def item(values: tuple[Any, ...], index: int) -> Any:
    """Return the element at a zero-based index, or raise `Failure` if the index is negative or too large."""
    if 0 <= index < len(values):
        return values[index]
    raise Failure(f"index {index} is outside a list of {len(values)}")


def entry(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key, or raise `Failure` if there is none."""
    try:
        return values[key]
    except KeyError:
        raise Failure(f"there is no key `{key}`") from None


def contains(values: tuple[Any, ...], value: object) -> bool:
    """Return True if an element of the list equals the value."""
    return any(same(value, candidate) for candidate in values)


def to_integer(text: str) -> int:
    """Parse a decimal integer, or raise `Failure`."""
    if _INTEGER.fullmatch(text):
        return int64(int(text))
    raise Failure(f"`{text}` is no integer")


def to_bool(text: str) -> bool:
    """Parse a bool, or raise `Failure`."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise Failure(f"`{text}` is no bool")


def _spans(unit: int) -> Callable[[int], int]:
    return lambda duration: times.truncated(duration, unit)


def _elapsed(until: int, since: int) -> int:
    """Subtract timestamps as the CEL libraries do: an error where whole seconds alone overflow.

    So a difference within a second of 2^63 nanoseconds, 292 years, may be an error though it would fit.
    """
    int64((until // NANOSECONDS_PER_S - since // NANOSECONDS_PER_S) * NANOSECONDS_PER_S)
    return int64(until - since)


def _timestamp_of(whole_s: int) -> int:
    return times.in_timestamp_range(whole_s * NANOSECONDS_PER_S)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "glob_string_string": glob,
    "under_string_string": under,
    "ip_in_string_string": ip_in,
    "matches": matches,
    "contains_string": lambda text, part: part in text,
    "starts_with_string": lambda text, part: text.startswith(part),
    "ends_with_string": lambda text, part: text.endswith(part),
    "size_string": len,
    "size_list": len,
    "size_map": len,
    "equals": same,
    "not_equals": lambda a, b: not same(a, b),
    "in_list": lambda value, values: contains(values, value),
    "in_map": lambda key, values: key in values,
    "index_list": item,
    "index_map": entry,
    "add_int64": lambda a, b: int64(a + b),
    "subtract_int64": lambda a, b: int64(a - b),
    "multiply_int64": lambda a, b: int64(a * b),
    "divide_int64": divide,
    "modulo_int64": modulo,
    "negate_int64": lambda value: int64(-value),
    "add_string": lambda a, b: a + b,
    "add_list": lambda a, b: (*a, *b),
    "add_timestamp_duration": lambda a, b: times.in_timestamp_range(a + b),
    "add_duration_timestamp": lambda a, b: times.in_timestamp_range(a + b),
    "add_duration_duration": lambda a, b: int64(int64(a) + int64(b)),
    "subtract_timestamp_duration": lambda a, b: times.in_timestamp_range(a - b),
    "subtract_timestamp_timestamp": _elapsed,
    "subtract_duration_duration": lambda a, b: int64(int64(a) - int64(b)),
    "string_to_timestamp": times.parse_timestamp,
    "string_to_duration": times.parse_span,
    "string_to_int64": to_integer,
    "string_to_bool": to_bool,
    "int64_to_timestamp": _timestamp_of,
    "int64_to_string": str,
    "bool_to_string": lambda value: "true" if value else "false",
    "timestamp_to_int64": lambda instant: instant // NANOSECONDS_PER_S,
    "timestamp_to_string": times.format_timestamp,
    "duration_to_string": times.format_span,
    "duration_to_hours": _spans(3600 * 10**9),
    "duration_to_minutes": _spans(60 * 10**9),
    "duration_to_seconds": _spans(10**9),
    "duration_to_milliseconds": times.span_milliseconds,
    "timestamp_to_seconds_with_tz": times.seconds,
}
"""Overload id to implementation, for everything except logic and macros."""

for _name, _read in {
    "year": times.full_year,
    "month": times.month,
    "day_of_year": times.day_of_year,
    "day_of_month": times.day_of_month,
    "day_of_month_1_based": times.date,
    "day_of_week": times.day_of_week,
    "hours": times.hours,
    "minutes": times.minutes,
    "seconds": times.seconds,
    "milliseconds": times.milliseconds,
}.items():
    FUNCTIONS[f"timestamp_to_{_name}"] = FUNCTIONS[f"timestamp_to_{_name}_with_tz"] = _read

for _kind in ("bool", "int64", "string", "timestamp", "duration"):
    FUNCTIONS[f"less_{_kind}"] = lambda a, b: a < b
    FUNCTIONS[f"less_equals_{_kind}"] = lambda a, b: a <= b
    FUNCTIONS[f"greater_{_kind}"] = lambda a, b: a > b
    FUNCTIONS[f"greater_equals_{_kind}"] = lambda a, b: a >= b
