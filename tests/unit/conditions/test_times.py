"""Timestamps, durations and zones at their edges."""

from __future__ import annotations

import pytest

from policyguard.conditions import times
from policyguard.conditions.problems import Failure

SECOND = 10**9
DAY = 86_400 * SECOND


def test_a_timestamp_is_within_the_years_of_the_specification() -> None:
    """0001 to 9999, to the nanosecond; a duration within ten thousand years."""
    for good in (times.MIN_TIMESTAMP, times.MAX_TIMESTAMP):
        assert times.in_timestamp_range(good) == good
    for bad in (times.MIN_TIMESTAMP - 1, times.MAX_TIMESTAMP + 1):
        with pytest.raises(Failure, match="outside the years"):
            times.in_timestamp_range(bad)
    for good in (-times.MAX_DURATION, times.MAX_DURATION):
        assert times.in_duration_range(good) == good
    for bad in (-times.MAX_DURATION - 1, times.MAX_DURATION + 1):
        with pytest.raises(Failure, match="beyond 10000 years"):
            times.in_duration_range(bad)


SPANS = {
    "0": 0,
    "+0": 0,
    "-0": 0,
    "1h30m": 5400 * SECOND,
    "-1.5s": -1_500_000_000,
    "+2ms": 2_000_000,
    ".5s": 500_000_000,
    "1.s": SECOND,
    "1us2ns": 1002,
    "3\u00b5s": 3000,
    "0" * 98 + "1s": SECOND,
}


@pytest.mark.parametrize(("text", "duration"), SPANS.items())
def test_a_duration_is_read(text: str, duration: int) -> None:
    """Every unit, signs and fractions, up to a hundred characters."""
    assert times.parse_span(text) == duration


@pytest.mark.parametrize("text", ["", "1", "s", "1h ", "--1s", "1h-1m", "1d", ".s", "0" * 99 + "1s", "87660001h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """No unit, another unit, two signs, too long a text, too long a time."""
    with pytest.raises(Failure):
        times.parse_span(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0, "0s"), (5400 * SECOND, "5400s"), (-SECOND, "-1s"), (500_000_000, "0.5s"), (-1, "-0.000000001s")],
)
def test_a_duration_is_written_in_seconds(duration: int, text: str) -> None:
    """With as few digits as possible, and it reads back."""
    assert times.format_span(duration) == text
    assert times.parse_span(text) == duration


@pytest.mark.parametrize(
    ("instant", "text"),
    [(0, "1970-01-01T00:00:00Z"), (500_000_000, "1970-01-01T00:00:00.5Z"), (-1, "1969-12-31T23:59:59.999999999Z")],
)
def test_a_timestamp_is_written_with_few_digits(instant: int, text: str) -> None:
    """In UTC, and it reads back."""
    assert times.format_timestamp(instant) == text
    assert times.parse_timestamp(text) == instant


def test_a_zone_is_an_offset_of_less_than_a_day() -> None:
    """`UTC` or hours and minutes, east without a sign too."""
    offsets = {"UTC": 0, "+02:00": 7200, "02:00": 7200, "-08:30": -30_600, "+23:59": 86_340}
    assert {zone: times.parse_offset(zone).total_seconds() for zone in offsets} == offsets
    for zone in ("", "Z", "utc", "+24:00", "+02:60", "+2:00", "Europe/Berlin", "+02:00 "):
        with pytest.raises(Failure, match="no time zone here"):
            times.parse_offset(zone)


def test_the_parts_of_a_time_are_those_of_its_zone() -> None:
    """Also where the zone moves it out of the years that Python has, as the specification says."""
    instant = times.parse_timestamp("2026-03-01T23:30:15.25Z")
    east, west = "+01:00", "-23:59"
    assert [times.date(instant, zone) for zone in ("UTC", east, west)] == [1, 2, 28]
    assert [times.hours(instant, zone) for zone in ("UTC", east, west)] == [23, 0, 23]
    assert [times.day_of_week(instant, zone) for zone in ("UTC", east)] == [0, 1]
    assert times.milliseconds(instant) == 250
    assert times.full_year(times.MAX_TIMESTAMP) == 9999
    assert times.full_year(times.MAX_TIMESTAMP, "+00:01") == 10_000
    assert times.full_year(times.MIN_TIMESTAMP) == 1
    assert times.full_year(times.MIN_TIMESTAMP, "-00:01") == 0
    assert times.day_of_year(times.MIN_TIMESTAMP, "-00:01") == 365
    with pytest.raises(Failure, match="no time zone here"):
        times.milliseconds(instant, "Z")


def test_the_parts_of_a_duration_are_rounded_toward_zero() -> None:
    """Before and after zero."""
    assert [times.truncated(duration, 1000) for duration in (-1999, -1000, -999, 0, 999, 1999)] == [-1, -1, 0, 0, 0, 1]
    assert [times.span_milliseconds(duration) for duration in (1_500_999_999, -1_500_999_999)] == [500, -500]
