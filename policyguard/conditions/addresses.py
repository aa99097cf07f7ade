"""IP addresses and prefixes as integers; an IPv4-mapped IPv6 address equals the IPv4 address.

Not `ipaddress` from the standard library: importing it costs every hook more time than parsing here.
Source: RFC 4291 section 2.2; RFC 4632; leading zeros refused as in CVE-2021-29921.
"""

from __future__ import annotations

import re

from policyguard.conditions.problems import Failure
from policyguard.values import LazyPattern

_OCTET = LazyPattern(r"0|[1-9][0-9]{0,2}", re.ASCII)
_GROUP = LazyPattern(r"[0-9A-Fa-f]{1,4}", re.ASCII)
_LENGTH = LazyPattern(r"0|[1-9][0-9]{0,2}", re.ASCII)


def ip_in(address: str, prefix: str) -> bool:
    """Return True if the address is in the prefix.

    prefix = address "/" length; bits beyond the length must be zero. `::ffff:10.1.2.3` is in `10.0.0.0/8`. An IPv4
    address is never in an IPv6 prefix, nor an IPv6 address in an IPv4 prefix.

    Raises:
        Failure: the address or the prefix is malformed.
    """
    width, value = parse_address(address)
    net_width, network, length = parse_prefix(prefix)
    return width == net_width and value >> (width - length) == network >> (width - length)


def parse_address(text: str) -> tuple[int, int]:
    """Parse an address to (width, value); width is 32 or 128.

    Raises:
        Failure: not an address.
    """
    if ":" not in text:
        return 32, _v4(text, text)
    value = _v6(text)
    return (32, value & 0xFFFFFFFF) if value >> 32 == 0xFFFF else (128, value)


def parse_prefix(text: str) -> tuple[int, int, int]:
    """Parse `address/length` to (width, network, length); a mapped prefix of 96 bits or more is the IPv4 prefix.

    Raises:
        Failure: not a prefix.
    """
    address, _, digits = text.partition("/")
    if not _LENGTH.fullmatch(digits):
        raise Failure(f"`{text}` is no address prefix, expected one such as `10.0.0.0/8`")
    width, value = (32, _v4(address, text)) if ":" not in address else (128, _v6(address))
    length = int(digits)
    if length > width or value & ((1 << (width - length)) - 1):
        raise Failure(f"`{text}` is no address prefix, expected a length that covers its last set bit")
    if width == 128 and length >= 96 and value >> 32 == 0xFFFF:
        return 32, value & 0xFFFFFFFF, length - 96
    return width, value, length


def _v4(text: str, address: str) -> int:
    octets = text.split(".")
    if len(octets) != 4 or not all(_OCTET.fullmatch(octet) and int(octet) < 256 for octet in octets):
        raise Failure(f"`{address}` is no IP address")
    return int.from_bytes(bytes(int(octet) for octet in octets), "big")


def _v6(text: str) -> int:
    head, gap, tail = text.partition("::")
    high, low = _groups(head, text, last=not gap), _groups(tail, text, last=True)
    missing = 8 - len(high) - len(low)
    if (missing < 1) if gap else (missing != 0):
        raise Failure(f"`{text}` is no IP address")
    value = 0
    for group in [*high, *([0] * missing), *low]:
        value = value << 16 | group
    return value


def _groups(text: str, address: str, *, last: bool) -> list[int]:
    if not text:
        return []
    parts = text.split(":")
    groups: list[int] = []
    for index, part in enumerate(parts):
        if last and index == len(parts) - 1 and "." in part:
            embedded = _v4(part, address)
            groups += [embedded >> 16, embedded & 0xFFFF]
        elif _GROUP.fullmatch(part):
            groups.append(int(part, 16))
        else:
            raise Failure(f"`{address}` is no IP address")
    return groups
