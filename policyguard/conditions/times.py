"""CEL timestamps and durations as integers of nanoseconds: parsing, formatting, range checks, accessors.

Accessors use UTC or a fixed offset such as `+02:00`. Named zones are outside the profile: their rules are in files
that differ between hosts, and a decision must not. This module opens nothing and reads no clock.
Source: cel-spec `doc/langdef.md`, "Timezones" and "Abstract types".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from policyguard.conditions.problems import Failure
from policyguard.values import NANOSECONDS_PER_S, LazyPattern, format_instant, parse_instant

MIN_TIMESTAMP = -62_135_596_800 * NANOSECONDS_PER_S
"""0001-01-01T00:00:00Z, the smallest `google.protobuf.Timestamp`."""

MAX_TIMESTAMP = 253_402_300_800 * NANOSECONDS_PER_S - 1
"""9999-12-31T23:59:59.999999999Z, the greatest."""

MAX_DURATION = 315_576_000_000 * NANOSECONDS_PER_S
"""10,000 years of 365.25 days, the greatest `google.protobuf.Duration`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CYCLE_S = 146_097 * 86_400
"""400 years of the Gregorian calendar, after which days, weeks and leap years repeat."""
_OFFSET = LazyPattern(r"(?P<sign>[+-]?)(?P<hours>\d{2}):(?P<minutes>\d{2})", re.ASCII)
_DURATION = LazyPattern(r"(?P<sign>[+-]?)(?P<parts>(?:\d+(?:\.\d*)?|\.\d+)(?:h|ms|m|s|us|µs|ns))+", re.ASCII)
_PART = LazyPattern(r"(?P<whole>\d*)(?:\.(?P<fraction>\d*))?(?P<unit>h|ms|m|s|us|µs|ns)", re.ASCII)
_UNITS = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 1000, "µs": 1000, "ns": 1}


def in_timestamp_range(instant: int) -> int:
    """Return the instant, or raise `Failure` if it is outside the years 1 to 9999."""
    if MIN_TIMESTAMP <= instant <= MAX_TIMESTAMP:
        return instant
    raise Failure("the timestamp is outside the years 0001 to 9999")


def in_duration_range(duration: int) -> int:
    """Return the duration, or raise `Failure` if it is beyond 10,000 years."""
    if -MAX_DURATION <= duration <= MAX_DURATION:
        return duration
    raise Failure("the duration is beyond 10000 years")


def parse_timestamp(text: str) -> int:
    """Parse an RFC 3339 time with a zone to nanoseconds since 1970, or raise `Failure`."""
    try:
        instant = parse_instant(text)
    except (ValueError, OverflowError):
        raise Failure(f"`{text}` is no timestamp, expected a time such as `2026-03-01T09:00:00Z`") from None
    return in_timestamp_range(instant)


def parse_span(text: str) -> int:
    """Parse a duration to nanoseconds, or raise `Failure`.

    duration = [ "+" / "-" ] 1*( decimal unit ); unit = "h" / "m" / "s" / "ms" / "us" / "µs" / "ns"
    """
    if text in ("0", "+0", "-0"):
        return 0
    match = _DURATION.fullmatch(text) if len(text) <= 100 else None
    if match is None:
        raise Failure(f"`{text}` is no duration, expected one such as `90m`, `1h30m` or `2.5s`")
    total = sum(_part(part) for part in _PART.finditer(text))
    return in_duration_range(-total if match["sign"] == "-" else total)


def _part(match: re.Match[str]) -> int:
    fraction = match["fraction"] or ""
    unit = _UNITS[match["unit"]]
    scale: int = 10 ** len(fraction)
    return int(match["whole"] or 0) * unit + int(fraction or 0) * unit // scale


def format_span(duration: int) -> str:
    """Format a duration in seconds, `5400s` or `0.5s`, as protobuf's JSON does."""
    sign = "-" if duration < 0 else ""
    whole_s, nanoseconds = divmod(abs(duration), NANOSECONDS_PER_S)
    if not nanoseconds:
        return f"{sign}{whole_s}s"
    digits = f"{nanoseconds:09d}".rstrip("0")
    return f"{sign}{whole_s}.{digits}s"


def format_timestamp(instant: int) -> str:
    """Format an instant as RFC 3339 in UTC, with as few fraction digits as possible."""
    text = format_instant(instant)
    return text if "." not in text else text[:-1].rstrip("0") + "Z"


def parse_offset(zone: str) -> timedelta:
    """Parse `UTC`, `+02:00` or `-08:00` to an offset from UTC, or raise `Failure`."""
    if zone == "UTC":
        return timedelta()
    match = _OFFSET.fullmatch(zone)
    if match is None or int(match["hours"]) > 23 or int(match["minutes"]) > 59:
        raise Failure(f"`{zone}` is no time zone here, expected `UTC` or an offset such as `+02:00`")
    offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"]))
    return -offset if match["sign"] == "-" else offset


def _moment(instant: int, zone: str) -> tuple[datetime, int]:
    """Return the local time, and the years to add to it because Python supports only the years 1 to 9999."""
    whole_s = instant // NANOSECONDS_PER_S + parse_offset(zone) // timedelta(seconds=1)
    if whole_s * NANOSECONDS_PER_S > MAX_TIMESTAMP:
        return _EPOCH + timedelta(seconds=whole_s - _CYCLE_S), 400
    if whole_s * NANOSECONDS_PER_S < MIN_TIMESTAMP:
        return _EPOCH + timedelta(seconds=whole_s + _CYCLE_S), -400
    return _EPOCH + timedelta(seconds=whole_s), 0


def _accessor(read: Callable[[datetime], int]) -> Callable[..., int]:
    def accessor(instant: int, zone: str = "UTC") -> int:
        return read(_moment(instant, zone)[0])

    return accessor


def full_year(instant: int, zone: str = "UTC") -> int:
    """Return the year in the zone; 0 and 10000 are possible."""
    moment, years = _moment(instant, zone)
    return moment.year + years


month = _accessor(lambda moment: moment.month - 1)
day_of_year = _accessor(lambda moment: moment.timetuple().tm_yday - 1)
day_of_month = _accessor(lambda moment: moment.day - 1)
date = _accessor(lambda moment: moment.day)
day_of_week = _accessor(lambda moment: moment.isoweekday() % 7)
hours = _accessor(lambda moment: moment.hour)
minutes = _accessor(lambda moment: moment.minute)
seconds = _accessor(lambda moment: moment.second)


def milliseconds(instant: int, zone: str = "UTC") -> int:
    """Return the milliseconds within the second; the zone is checked but has no effect."""
    parse_offset(zone)
    return instant % NANOSECONDS_PER_S // 1_000_000


def truncated(duration: int, unit: int) -> int:
    """Return the number of whole units in the duration, rounded toward zero."""
    return duration // unit if duration >= 0 else -(-duration // unit)


def span_milliseconds(duration: int) -> int:
    """Return the milliseconds beyond the whole seconds of a duration."""
    return truncated(duration, 1_000_000) - truncated(duration, NANOSECONDS_PER_S) * 1000
