"""Addresses and prefixes at the edges of what is one, each beside the nearest text that is."""

from __future__ import annotations

import ipaddress

import pytest

from policyguard.conditions.addresses import ip_in, parse_address, parse_prefix
from policyguard.conditions.problems import Failure

ADDRESSES = """
    0.0.0.0 255.255.255.255 10.0.100.9 :: ::1 1:: 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1:2:3::6:7:8
    ABCD:ef01::9 ::1.2.3.4 64:ff9b::10.1.2.3 1:2:3:4:5:6:1.2.3.4
"""
NO_ADDRESSES = """
    256.0.0.0 1.2.3 1.2.3.4.5 1.2.3.4. 01.2.3.4 1.2.3.1000 1.2.3.a : ::: 1:::2 1::2::3 1:2:3:4:5:6:7 1:2:3:4:5:6:7:8:9
    1:2:3:4::5:6:7:8 ::1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:8:: 12345::1 g::1 :1:2:3:4:5:6:7 1:2:3:4:5:6:7: 1.2.3.4::
    1::1.2.3.4:5 1:1.2.3.4::5 ::1.2.3 ::1.2.3.256 1:2:3:4:5:6:7:1.2.3.4 fe80::1%eth0 ::1/128
"""
PREFIXES = "0.0.0.0/0 10.0.0.0/8 10.1.2.3/32 192.168.0.0/31 ::/0 ::1/128 2001:db8::/32 8000::/1"
NO_PREFIXES = """
    10.0.0.0 10.0.0.0/ /8 10.0.0.0/08 10.0.0.0/33 10.0.0.0/-8 10.0.0.0/1000 10.0.0.0/a 10.0.0.0/8/8 10.0.0.0/8x
    10.0.0.1/31 10.0.0.0/6 10.0.0/24 ::1/127 ::/129 2001:db8::/28 1::2::/128
"""


@pytest.mark.parametrize("text", ADDRESSES.split())
def test_an_address_is_read_to_its_last_bit(text: str) -> None:
    """The standard library's reading of the same text."""
    address = ipaddress.ip_address(text)
    assert parse_address(text) == (address.max_prefixlen, int(address))
    assert ip_in(text, f"{address}/{address.max_prefixlen}")


@pytest.mark.parametrize("text", [*NO_ADDRESSES.split(), ""])
def test_a_text_that_is_nearly_an_address_is_none(text: str) -> None:
    """A condition that could read it two ways is an error; the standard library refuses it too, zones apart."""
    with pytest.raises(Failure, match="is no IP address"):
        parse_address(text)
    with pytest.raises(Failure):
        ip_in(text, "::/0" if ":" in text else "0.0.0.0/0")
    if "%" not in text:
        with pytest.raises(ValueError, match="does not appear"):
            ipaddress.ip_address(text)


@pytest.mark.parametrize("text", PREFIXES.split())
def test_a_prefix_holds_its_first_and_last_address_and_no_neighbour(text: str) -> None:
    """One address below or above is outside."""
    network = ipaddress.ip_network(text)
    assert parse_prefix(text) == (network.max_prefixlen, int(network.network_address), network.prefixlen)
    first, last = int(network[0]), int(network[-1])
    kind = type(network[0])
    assert ip_in(str(kind(first)), text)
    assert ip_in(str(kind(last)), text)
    assert first == 0 or not ip_in(str(kind(first - 1)), text)
    assert last + 1 == 1 << network.max_prefixlen or not ip_in(str(kind(last + 1)), text)


@pytest.mark.parametrize("text", [*NO_PREFIXES.split(), ""])
def test_a_text_that_is_nearly_a_prefix_is_none(text: str) -> None:
    """A bit beyond the length, a length beyond the width, no length."""
    with pytest.raises(Failure, match=r"is no (address prefix|IP address)"):
        parse_prefix(text)


def test_an_address_of_one_family_is_in_no_prefix_of_the_other() -> None:
    """`::/0` is no way to say everybody, nor is an IPv6 address with the bits of an IPv4 one in that one's prefix."""
    assert not ip_in("0.0.0.1", "::/0")
    assert not ip_in("::1", "0.0.0.0/0")
    assert not ip_in("::10.1.2.3", "10.0.0.0/8")
    assert not ip_in("::fffe:10.1.2.3", "10.0.0.0/8")
    assert not ip_in("1::ffff:10.1.2.3", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("prefix", "parsed"),
    [
        ("::ffff:10.0.0.0/104", (32, 10 << 24, 8)),
        ("::ffff:0:0/96", (32, 0, 0)),
        ("::fffe:0:0/95", (128, 0xFFFE << 32, 95)),
        ("::/96", (128, 0, 96)),
        ("::ffff:0:0:0/96", (128, 0xFFFF << 48, 96)),
    ],
)
def test_a_mapped_prefix_is_the_prefix_of_its_ipv4_addresses(prefix: str, parsed: tuple[int, int, int]) -> None:
    """From 96 bits on; a shorter one is of IPv6, in which no IPv4 address is."""
    assert parse_prefix(prefix) == parsed
    assert ip_in("10.1.2.3", prefix) is (parsed[0] == 32)
    assert ip_in("::ffff:10.1.2.3", prefix) is (parsed[0] == 32)
