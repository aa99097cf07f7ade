"""Evaluates conditions for the oracle by walking nested lists; shares no code with `policyguard.conditions`.

A tree is a list: ["const", v], ["var", n], ["select", x, n], ["has", x, n], ["call", overload, ...], ["list", ...],
["dict", [k, v], ...], [macro, variable, range, body, filter]. Whatever cannot be computed raises `Absent`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

Tree = list[Any]
World = dict[str, Any]


class Absent(Exception):
    """An attribute is missing or a function failed, so the expression has no value."""


class Unsupported(Exception):
    """The oracle does not implement this function, so it cannot judge the request."""


def evaluate(tree: Tree, world: World) -> Any:
    """Evaluate an expression on these facts; raises `Absent` if it has no value."""
    kind, *rest = tree
    if kind == "const":
        return rest[0]
    if kind == "var":
        return world[rest[0]]
    if kind == "select":
        return member(evaluate(rest[0], world), rest[1])
    if kind == "has":
        return rest[1] in evaluate(rest[0], world)
    if kind == "list":
        return [evaluate(item, world) for item in rest]
    if kind == "dict":
        return dictionary([(evaluate(key, world), evaluate(value, world)) for key, value in rest])
    if kind == "call":
        return call(rest[0], rest[1:], world)
    return MACROS[kind](world, *rest)


def dictionary(entries: list[tuple[str, Any]]) -> World:
    """Build a map from key and value nodes; a duplicate key is an error.

    Raises:
        Absent: a key occurs twice.
    """
    built = dict(entries)
    if len(built) != len(entries):
        raise Absent("a key is given twice")
    return built


def member(record: Any, field: str) -> Any:
    if field not in record:
        raise Absent(field)
    return record[field]


def attempt(tree: Tree, world: World) -> Any:
    """Evaluate an expression; None if it has no value."""
    try:
        return evaluate(tree, world)
    except Absent:
        return None


def call(function: str, arguments: list[Tree], world: World) -> Any:
    if function == "logical_and":
        return decided([attempt(argument, world) for argument in arguments], by=False)
    if function == "logical_or":
        return decided([attempt(argument, world) for argument in arguments], by=True)
    if function == "conditional":
        return evaluate(arguments[1] if evaluate(arguments[0], world) else arguments[2], world)
    if function not in FUNCTIONS:
        raise Unsupported(function)
    values = [evaluate(argument, world) for argument in arguments]
    try:
        return FUNCTIONS[function](*values)
    except (ValueError, ArithmeticError, LookupError) as problem:
        raise Absent(function) from problem


def decided(values: list[Any], by: bool) -> bool:
    """Combine the operands of `&&` or `||`: an operand equal to `by` decides, otherwise a missing one fails the whole.

    Raises:
        Absent: an operand has no value, and no other decides.
    """
    if by in values:
        return by
    if None in values:
        raise Absent("a side has no value")
    return not by


def over(world: World, variable: str, source: Tree, body: Tree) -> list[Any]:
    return [attempt(body, {**world, variable: item}) for item in evaluate(source, world)]


def all_(world: World, variable: str, source: Tree, body: Tree, _: Tree | None) -> bool:
    return decided(over(world, variable, source, body), by=False)


def exists(world: World, variable: str, source: Tree, body: Tree, _: Tree | None) -> bool:
    return decided(over(world, variable, source, body), by=True)


def exists_one(world: World, variable: str, source: Tree, body: Tree, _: Tree | None) -> bool:
    return [evaluate(body, {**world, variable: item}) for item in evaluate(source, world)].count(True) == 1


def in_order(source: Tree, world: World) -> list[Any]:
    value = evaluate(source, world)
    return sorted(value) if isinstance(value, dict) else list(value)


def filter_(world: World, variable: str, source: Tree, body: Tree, _: Tree | None) -> list[Any]:
    return [item for item in in_order(source, world) if evaluate(body, {**world, variable: item})]


def map_(world: World, variable: str, source: Tree, body: Tree, only: Tree | None) -> list[Any]:
    elements = filter_(world, variable, source, only, None) if only else in_order(source, world)
    return [evaluate(body, {**world, variable: item}) for item in elements]


MACROS: dict[str, Callable[..., Any]] = {
    "all": all_,
    "exists": exists,
    "exists_one": exists_one,
    "filter": filter_,
    "map": map_,
}


# --- functions -------------------------------------------------------------------------------------------------------


def within(value: int, bound: int = 2**63) -> int:
    if not -bound <= value < bound:
        raise OverflowError
    return value


def quotient(dividend: int, divisor: int) -> int:
    return within(abs(dividend) // abs(divisor) * (1 if (dividend < 0) == (divisor < 0) else -1))


def remainder(dividend: int, divisor: int) -> int:
    return dividend - divisor * quotient(dividend, divisor)


def at(values: Any, index: Any) -> Any:
    if isinstance(values, list) and index < 0:
        raise IndexError
    return values[index]


def under(path: str, prefix: str) -> bool:
    parts, head = path.split("/"), prefix.split("/")
    if not prefix or any(part in (".", "..") for part in parts + head):
        raise ValueError
    head = head[:-1] if head[-1] == "" else head
    return parts[: len(head)] == head


def address_in(address: str, prefix: str) -> bool:
    one, net = ipaddress.ip_address(address), ipaddress.ip_network(prefix)
    if isinstance(one, ipaddress.IPv6Address) and one.ipv4_mapped:
        one = one.ipv4_mapped
    if isinstance(net, ipaddress.IPv6Network) and net.prefixlen >= 96 and net.network_address.ipv4_mapped:
        net = ipaddress.ip_network(f"{net.network_address.ipv4_mapped}/{net.prefixlen - 96}")
    return one.version == net.version and one in net


def path_glob(path: str, pattern: str) -> bool:
    """Match a path against a glob by a regular expression, independent of `oracle.glob`."""
    text = ""
    for segment in pattern.split("/"):
        text += "(?:/[^/]*)*" if segment == "**" else "/" + "[^/]*".join(map(re.escape, segment.split("*")))
    return re.fullmatch(text, "/" + path, re.DOTALL) is not None


def found_in(text: str, pattern: str) -> bool:
    """Search with Python's `re`; agrees with RE2 on patterns that both accept, in text without line breaks.

    Raises:
        ValueError: Python's engine cannot read the pattern as RE2 does.
    """
    try:
        return re.search(pattern, text) is not None
    except re.error as problem:
        raise ValueError(pattern) from problem


def parse_time(kind: str, text: str) -> int:
    """Parse an RFC 3339 time or a duration to nanoseconds; raises `ValueError`."""
    return timestamp(text) if kind == "timestamp" else duration(text)


def timestamp(text: str) -> int:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", text, re.ASCII)
    if not match:
        raise ValueError(text)
    date, clock, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{date}T{clock}{zone.upper().replace('Z', '+00:00')}")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + int((fraction or ".0")[1:].ljust(9, "0"))


def duration(text: str) -> int:
    units = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}
    match = re.fullmatch(r"([+-]?)((?:(?:\d+(?:\.\d*)?|\.\d+)(?:h|ms|m|s|us|µs|ns))+|0)", text, re.ASCII)
    if not match or len(text) > 100:
        raise ValueError(text)
    total = 0
    for whole, fraction, unit in re.findall(r"(\d*)(?:\.(\d*))?(h|ms|m|s|us|µs|ns)", match[2], re.ASCII):
        total += int(whole or 0) * units[unit] + int(fraction or 0) * units[unit] // 10 ** len(fraction)
    return in_durations(-total if match[1] == "-" else total)


def in_timestamps(value: int) -> int:
    if not -62_135_596_800 * 10**9 <= value < 253_402_300_800 * 10**9:
        raise OverflowError
    return value


def in_durations(value: int) -> int:
    if abs(value) > 315_576_000_000 * 10**9:
        raise OverflowError
    return value


def read_time(field: str, instant: int, zone: str = "UTC") -> int:
    """Read one field, such as the hour, of a timestamp in a time zone.

    Python's calendar ends with year 9999 and CEL's local time may be a day beyond, so the instant is read 400 years
    nearer to now, when each day has the same date and weekday.

    Args:
        field: the field, as CEL names its accessor.
        instant: nanoseconds since 1970.
        zone: `UTC` or an offset.
    """
    shift = 400 if instant > 0 else -400
    moment = local(instant - shift // 400 * 146_097 * 86_400 * 10**9, zone)
    return moment.year + shift if field == "year" else READ[field](moment)


def local(instant: int, zone: str) -> datetime:
    sign = -1 if zone.startswith("-") else 1
    if zone in ("UTC", "Z"):
        offset = timedelta()
    elif re.fullmatch(r"[+-]?([01]\d|2[0-3]):[0-5]\d", zone, re.ASCII):
        hours, minutes = zone.lstrip("+-").split(":")
        offset = sign * timedelta(hours=int(hours), minutes=int(minutes))
    else:
        raise ValueError(zone)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant // 10**9) + offset


def text_to_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII):
        raise ValueError(text)
    return within(int(text))


READ: dict[str, Callable[[datetime], int]] = {
    "month": lambda t: t.month - 1,
    "day_of_year": lambda t: t.timetuple().tm_yday - 1,
    "day_of_month": lambda t: t.day - 1,
    "day_of_month_1_based": lambda t: t.day,
    "day_of_week": lambda t: (t.weekday() + 1) % 7,
    "hours": lambda t: t.hour,
    "minutes": lambda t: t.minute,
    "seconds": lambda t: t.second,
}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "equals": lambda a, b: a == b,
    "not_equals": lambda a, b: a != b,
    "in_list": lambda a, b: a in b,
    "in_map": lambda a, b: a in b,
    "index_list": at,
    "index_map": at,
    "size_list": len,
    "size_map": len,
    "size_string": len,
    "add_int64": lambda a, b: within(a + b),
    "subtract_int64": lambda a, b: within(a - b),
    "multiply_int64": lambda a, b: within(a * b),
    "divide_int64": quotient,
    "modulo_int64": remainder,
    "negate_int64": lambda a: within(-a),
    "logical_not": lambda a: not a,
    "add_string": lambda a, b: a + b,
    "add_list": lambda a, b: a + b,
    "contains_string": lambda a, b: b in a,
    "starts_with_string": lambda a, b: a[: len(b)] == b,
    "ends_with_string": lambda a, b: b == "" or a[-len(b) :] == b,
    "glob_string_string": path_glob,
    "under_string_string": under,
    "ip_in_string_string": address_in,
    "matches": found_in,
    "add_timestamp_duration": lambda a, b: in_timestamps(a + b),
    "add_duration_timestamp": lambda a, b: in_timestamps(a + b),
    "add_duration_duration": lambda a, b: within(within(a) + within(b)),
    "subtract_timestamp_duration": lambda a, b: in_timestamps(a - b),
    "subtract_timestamp_timestamp": lambda a, b: within(
        within((a // 10**9 - b // 10**9) * 10**9) + a % 10**9 - b % 10**9
    ),
    "subtract_duration_duration": lambda a, b: within(within(a) - within(b)),
    "string_to_timestamp": timestamp,
    "string_to_duration": duration,
    "string_to_int64": text_to_int,
    "int64_to_string": str,
    "bool_to_string": lambda a: str(a).lower(),
    "int64_to_timestamp": lambda a: in_timestamps(a * 10**9),
    "timestamp_to_int64": lambda a: a // 10**9,
    "duration_to_hours": lambda a: int(quotient(a, 3600 * 10**9)),
    "duration_to_minutes": lambda a: int(quotient(a, 60 * 10**9)),
    "duration_to_seconds": lambda a: quotient(a, 10**9),
    "duration_to_milliseconds": lambda a: remainder(quotient(a, 10**6), 1000),
    **{f"timestamp_to_{name}": partial(read_time, name) for name in ("year", *READ)},
    **{f"timestamp_to_{name}_with_tz": partial(read_time, name) for name in ("year", *READ)},
    **{
        f"{order}_{kind}": compare
        for kind in ("bool", "int64", "string", "timestamp", "duration")
        for order, compare in {
            "less": lambda a, b: a < b,
            "less_equals": lambda a, b: a <= b,
            "greater": lambda a, b: a > b,
            "greater_equals": lambda a, b: a >= b,
        }.items()
    },
}
