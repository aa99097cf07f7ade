"""Our functions against naive oracles: globs, address prefixes, paths, integer arithmetic, durations."""

from __future__ import annotations

import ipaddress
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.conditions.addresses import parse_address, parse_prefix
from policyguard.conditions.functions import Failure, _regex, divide, glob, ip_in, matches, modulo, under
from policyguard.conditions.times import MAX_DURATION, format_span, parse_span, parse_timestamp
from policyguard.values import format_instant


def naive_glob(path: list[str], pattern: list[str]) -> bool:
    """Segments against segments by trying everything."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(naive_glob(path[cut:], pattern[1:]) for cut in range(len(path) + 1))
    return bool(path) and naive_segment(path[0], pattern[0]) and naive_glob(path[1:], pattern[1:])


def naive_segment(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive_segment(text[cut:], pattern[1:]) for cut in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and naive_segment(text[1:], pattern[1:])


segments = st.text(alphabet="ab.", max_size=4)
pattern_segments = st.one_of(st.just("**"), st.text(alphabet="ab*", max_size=4))


@settings(max_examples=600, deadline=None)
@given(path=st.lists(segments, min_size=1, max_size=5), pattern=st.lists(pattern_segments, min_size=1, max_size=5))
def test_glob_equals_the_naive_oracle(path: list[str], pattern: list[str]) -> None:
    """`glob` finds exactly what trying every way to split would find."""
    assert glob("/".join(path), "/".join(pattern)) is naive_glob(path, pattern)


@given(st.lists(segments, min_size=1, max_size=6))
def test_glob_of_double_star_matches_everything(path: list[str]) -> None:
    """`**` alone is every path, and `p/**` is p and everything below."""
    text = "/".join(path)
    assert glob(text, "**")
    assert glob(text, text + "/**")
    assert glob(text + "/x/y", text + "/**")


def test_glob_never_backtracks() -> None:
    """The patterns that take a backtracking matcher hours take milliseconds."""
    started = time.perf_counter()
    assert not glob("a" * 20_000, "*a" * 200 + "b")
    assert not glob("/".join("a" * 2_000), "/".join(["**", "a"] * 50 + ["b"]))
    assert time.perf_counter() - started < 1.0


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_addresses_are_read_as_the_standard_library_reads_them(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Same value, every spelling; an IPv4-mapped address is the IPv4 address."""
    mapped = address.ipv4_mapped if address.version == 6 else None
    expected = (32, int(mapped)) if mapped is not None else (32 if address.version == 4 else 128, int(address))
    for text in {str(address), address.exploded, address.exploded.upper()}:
        assert parse_address(text) == expected


@given(address=st.ip_addresses(v=4), network=st.ip_addresses(v=4), length=st.integers(0, 32))
def test_ip_in_equals_the_standard_library(
    address: ipaddress.IPv4Address, network: ipaddress.IPv4Address, length: int
) -> None:
    """Membership of a prefix, also for the mapped spelling of the address."""
    prefix = ipaddress.ip_network((int(network), length), strict=False)
    expected = address in prefix
    assert ip_in(str(address), str(prefix)) is expected
    assert ip_in(f"::ffff:{address}", str(prefix)) is expected


@given(st.text(alphabet="0123456789abcdef:./%x", max_size=24))
def test_what_is_no_address_for_the_standard_library_is_none_for_us(text: str) -> None:
    """We are no more generous than `ipaddress`; zone suffixes are refused too."""
    try:
        parse_address(text)
    except Failure:
        return
    ipaddress.ip_address(text)


@given(st.text(alphabet="0123456789abcdef:./x", max_size=24))
def test_what_is_no_prefix_for_the_standard_library_is_none_for_us(text: str) -> None:
    """No host bits, no missing length, no leading zeros."""
    try:
        parse_prefix(text)
    except Failure:
        return
    ipaddress.ip_network(text, strict=True)


@given(path=st.lists(st.sampled_from("abc"), min_size=1, max_size=5), cut=st.integers(1, 5))
def test_a_path_is_under_each_of_its_beginnings(path: list[str], cut: int) -> None:
    """By whole segments: `a/b` is under `a`, `ab` is not."""
    beginning, text = "/".join(path[:cut]), "/".join(path)
    assert under(text, beginning)
    assert under(text, beginning + "/")
    assert not under(text + "x", text)
    assert under(text, text + "/z") is False


@pytest.mark.parametrize("path", ["a/../b", "..", "a/.", "./a"])
def test_a_path_that_climbs_is_never_under_anything(path: str) -> None:
    """INVARIANT I5: `.` and `..` segments are an error on either side, dots inside names are not."""
    with pytest.raises(Failure, match="segment"):
        under(path, "a")
    with pytest.raises(Failure, match="segment"):
        under("a", path)
    assert under("a/b..c/.d", "a")


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_division_rounds_toward_zero_and_the_remainder_makes_up_for_it(left: int, right: int) -> None:
    """`left == right * (left / right) + left % right`, or both fail."""
    if right == 0 or (left == -(2**63) and right == -1):
        for operation in (divide, modulo):
            with pytest.raises(Failure):
                operation(left, right)
        return
    quotient, remainder = divide(left, right), modulo(left, right)
    assert quotient == int(Fraction(left, right))
    assert left == right * quotient + remainder


@given(st.integers(-MAX_DURATION, MAX_DURATION))
def test_durations_survive_their_own_encoding(duration: int) -> None:
    """`parse(format(d)) == d`."""
    assert parse_span(format_span(duration)) == duration


@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1))
def test_timestamps_survive_their_own_encoding(instant: int) -> None:
    """`parse(format(t)) == t` over the whole range."""
    assert parse_timestamp(format_instant(instant)) == instant


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1h30m", 5400 * 10**9),
        ("-1.5s", -1_500_000_000),
        ("100ms", 10**8),
        ("1us", 1000),
        ("1µs", 1000),
        ("0", 0),
        (".5s", 5 * 10**8),
        ("1h1m1s1ms1us1ns", 3_661_001_001_001),
    ],
)
def test_durations_are_read_in_all_units(text: str, nanoseconds: int) -> None:
    """Hours to nanoseconds, fractions and a sign."""
    assert parse_span(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "h", "1 h", "1d", "1h-30m", "--1s", "1e3s", "١s", "99999999999h", "." * 99])
def test_what_is_no_duration_fails(text: str) -> None:
    """Days, bare numbers, inner signs, exponents and foreign digits are refused."""
    with pytest.raises(Failure):
        parse_span(text)


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="ab./\n", max_size=6),
    pattern=st.from_regex(r"\^?([ab/]|\\\.){0,3}\$?", fullmatch=True),
)
def test_plain_patterns_mean_what_re2_finds(text: str, pattern: str) -> None:
    """Patterns that are lowered to text methods give RE2's answer, line ends included."""
    assert matches(text, pattern) is (_regex(pattern)(text) is not None)
