"""Reads zip archives strictly, because readers differ: Python uses one copy of each header, torch the other.

Nothing is extracted: members are windows into the archive. Everything that two readers could read differently, or that
belongs to no member, is a finding. All copies of a member's header (central directory, local header, data descriptor)
must agree, and members and directory must fill the archive without gaps.

    archive = 1*( local-header data [ data-descriptor ] ) *central-header [ zip64 ] end

Source: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from policyguard.scan.findings import Exhausted, Findings
from policyguard.scan.source import Source, Truncated, window

STORED, DEFLATED = 0, 8
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR64, _DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_FULL32 = 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_UTF8_NAME = 0x800
_UNICODE_PATH = 0x7075
_KNOWN_FLAGS = 0x8 | _UTF8_NAME | 0x6
"""Sizes in a descriptor, UTF-8 names, and the two deflate hints; any other bit changes what the data means."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its name, compression method, and compressed bytes."""

    name: str
    method: int
    crc: int
    size: int
    data: Source
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Directory:
    """The offsets of an archive and of its central directory."""

    archive: Source
    start: int
    size: int
    entries: int
    first: int
    """The offset of the archive in the file."""


class NoZip(Exception):
    """The end of a central directory is not where it was expected."""


def ends_as_zip(source: Source) -> bool:
    """Return True if a reader that searches from the end finds a zip archive, whatever the first bytes are.

    Such readers take the last end record in the last 64 KiB, whatever follows it, and count back to the directory.
    """
    tail_at = max(0, source.size - 22 - 0xFFFF)
    tail = source.read(tail_at, source.size - tail_at)
    end = tail.rfind(END)
    while end >= 0:
        size = int.from_bytes(tail[end + 12 : end + 16], "little")
        wide = tail[max(0, end - 20) : end][:4] == _LOCATOR64
        if wide or (0 < size <= tail_at + end and source.read(tail_at + end - size, 4) == CENTRAL):
            return True
        end = tail.rfind(END, 0, end)
    return False


def last_directory(source: Source) -> Directory:
    """Find the directory of the archive at the end of the file; archive comments are refused.

    Raises:
        NoZip: no archive ends the file.
    """
    tail_at = max(0, source.size - 22 - 0xFFFF)
    tail = source.read(tail_at, source.size - tail_at)
    end = tail.rfind(END)
    while end >= 0:
        if len(tail) - end >= 22:
            *_, comment = struct.unpack("<4s4H2IH", tail[end : end + 22])
            if end + 22 + comment == len(tail):
                return _directory(source, tail_at + end)
        end = tail.rfind(END, 0, end)
    raise NoZip


def _directory(source: Source, end: int) -> Directory:
    _, disk, first_disk, here, entries, size, offset, comment = struct.unpack("<4s4H2IH", source.read(end, 22))
    stop = end
    locator = source.read(end - 20, 20) if end >= 20 else b""
    if locator[:4] == _LOCATOR64:
        record = source.read(end - 76, 56) if end >= 76 else b""
        if record[:4] != _END64:
            raise NoZip
        *_, disk, first_disk, here, entries, size, offset = struct.unpack("<4sQ2H2I4Q", record)
        stop = end - 76
    start = stop - size
    first = start - offset
    if disk or first_disk or here != entries or comment or first < 0 or start < 0:
        raise NoZip
    archive = window(source, first, source.size - first)
    return Directory(archive, offset, size, entries, first)


def archives(source: Source) -> list[Directory]:
    """List the archives that fill the file: one, or a series as torch's sharded writer makes it.

    Raises:
        NoZip: the archives do not fill the file.
    """
    directories = [last_directory(source)]
    while directories[-1].first:
        if len(directories) > 100_000:
            raise NoZip
        directories.append(last_directory(window(source, 0, directories[-1].first)))
    return directories[::-1]


def members(directory: Directory, findings: Findings) -> Sequence[Member]:
    """List the members in a directory; each contradiction is a finding.

    Raises:
        Truncated: a header or member lies outside the archive.
        NoZip: the directory does not parse.
    """
    if directory.entries > findings.limits.members:
        raise Exhausted("ckpt.too_large", f"{directory.entries} members")
    data = directory.archive.read(directory.start, directory.size)
    at, listed, extents = 0, [], []
    for _ in range(directory.entries):
        member, extent, used = _member(directory, data, at, findings)
        at += used
        listed.append(member)
        extents.append(extent)
    if at != len(data):
        raise NoZip
    _check_names(listed, findings)
    _check_extents(extents, directory, findings)
    return listed


def _member(directory: Directory, data: bytes, at: int, findings: Findings) -> tuple[Member, tuple[int, int], int]:
    fixed = data[at : at + 46]
    if len(fixed) < 46 or fixed[:4] != CENTRAL:
        raise NoZip
    (_, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, external, offset) = (
        struct.unpack("<4s6H3I5H2I", fixed)
    )
    raw = data[at + 46 : at + 46 + n_name]
    extra = data[at + 46 + n_name : at + 46 + n_name + n_extra]
    size, packed, offset = _widened(extra, (size, packed, offset))
    name = raw.decode("utf-8", "backslashreplace")
    _check_single_name(name, raw, extra, flags, findings)
    if flags & _ENCRYPTED:
        findings.add("ckpt.archive_encrypted", name)
    if flags & ~(_KNOWN_FLAGS | _ENCRYPTED) or disk:
        findings.add("ckpt.archive_mismatch", f"{name}: flag bits {flags:#x}")
    if (external >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
        findings.add("ckpt.archive_link", name)
    start, stop = _local(directory.archive, offset, raw, (flags, method, crc, packed, size), findings)
    if start + packed > directory.start:
        raise Truncated
    content = window(directory.archive, start, packed)
    return (
        Member(name, method, crc, size, content, bool(flags & _ENCRYPTED)),
        (offset, stop),
        46 + n_name + n_extra + n_comment,
    )


def _check_single_name(name: str, raw: bytes, extra: bytes, flags: int, findings: Findings) -> None:
    """Add a finding if readers would give the member different names: by an extra field or a code page.

    Python 3.12 and Info-ZIP take the name from the extra field, older Pythons and torch from the header.
    """
    if not raw.isascii() and not flags & _UTF8_NAME:
        findings.add("ckpt.archive_name", name)
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack("<2H", extra[at : at + 4])
        if tag == _UNICODE_PATH and extra[at + 9 : at + 4 + length] != raw:
            # INVARIANT I18: a member of two names is hostile, whichever of them is harmless.
            findings.add("ckpt.archive_mismatch", f"{name}: an extra field gives it another name")
        at += 4 + length
    if at != len(extra):
        findings.add("ckpt.archive_name", f"{name}: an extra field that does not end")


def _widened(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replace sizes and offsets of all ones by those in the zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack("<2H", extra[at : at + 4])
        if tag == 1:
            field, used, wide = extra[at + 4 : at + 4 + length], 0, []
            for value in values:
                if value == _FULL32:
                    wide.append(int.from_bytes(field[used : used + 8], "little"))
                    used += 8
                else:
                    wide.append(value)
            return (wide[0], wide[1], wide[2])
        at += 4 + length
    return values


def _local(
    archive: Source, offset: int, raw: bytes, central: tuple[int, int, int, int, int], findings: Findings
) -> tuple[int, int]:
    """Return start and end of a member's data; each field in which its two headers differ is a finding."""
    header = archive.read(offset, 30)
    if len(header) < 30 or header[:4] != LOCAL:
        raise Truncated
    flags, method, crc, packed, size = central
    _, _, l_flags, l_method, _, _, l_crc, l_packed, l_size, n_name, n_extra = struct.unpack("<4s5H3I2H", header)
    rest = archive.read(offset + 30, n_name + n_extra)
    name = raw.decode("utf-8", "backslashreplace")
    l_size, l_packed, _ = _widened(rest[n_name:], (l_size, l_packed, 0))
    # INVARIANT I18: a member that two headers describe differently is hostile, whichever header is right.
    if rest[:n_name] != raw:
        findings.add("ckpt.archive_mismatch", f"{name}: its own header says {rest[:n_name].decode('utf-8', 'replace')}")
    if (l_flags, l_method) != (flags, method):
        findings.add("ckpt.archive_mismatch", f"{name}: flags or method")
    start = offset + 30 + n_name + n_extra
    if not flags & 8:
        if (l_crc, l_packed, l_size) != (crc, packed, size):
            findings.add("ckpt.archive_mismatch", f"{name}: sizes or checksum")
        return start, start + packed
    if any((l_crc, l_packed, l_size)) and (l_crc, l_packed, l_size) != (crc, packed, size):
        findings.add("ckpt.archive_mismatch", f"{name}: sizes or checksum")
    return start, start + packed + _descriptor(archive.read(start + packed, 24), (crc, packed, size), name, findings)


def _descriptor(data: bytes, central: tuple[int, int, int], name: str, findings: Findings) -> int:
    body = data[4:] if data[:4] == _DESCRIPTOR else data
    lead = len(data) - len(body)
    for layout in ("<3I", "<I2Q"):
        width = struct.calcsize(layout)
        if len(body) >= width and struct.unpack(layout, body[:width]) == central:
            return lead + width
    findings.add("ckpt.archive_mismatch", f"{name}: data descriptor")
    return lead + 12


def _check_names(listed: Sequence[Member], findings: Findings) -> None:
    seen: set[str] = set()
    for member in listed:
        # torch's reader finds members without regard to case.
        folded = plain_name(member.name)
        if folded in seen:
            findings.add("ckpt.archive_duplicate", member.name)
        seen.add(folded)
        if leaves_folder(member.name):
            findings.add("ckpt.archive_path", member.name)


def plain_name(name: str) -> str:
    """Return a normal form of a name: names with one form are the same file for some reader."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", "/".join(parts)).casefold())


def leaves_folder(name: str) -> bool:
    """Return True if unpacking a member of this name could write outside the folder."""
    parts = name.replace("\\", "/").split("/")
    return not parts[0] or ".." in parts or name[1:2] == ":" or "\0" in name


def _check_extents(extents: list[tuple[int, int]], directory: Directory, findings: Findings) -> None:
    at = 0
    for start, stop in sorted(extents):
        if start < at:
            findings.add("ckpt.archive_mismatch", "members overlap")
        elif start > at:
            findings.add("ckpt.archive_gap", f"{start - at} bytes at {at}")
        at = max(at, stop)
    if at != directory.start:
        findings.add("ckpt.archive_gap", f"{directory.start - at} bytes at {at}")


def checksum(source: Source, findings: Findings) -> int:
    """Compute the CRC-32 of the whole source.

    Raises:
        Truncated: the source ends too early.
    """
    crc, at = 0, 0
    while at < source.size:
        findings.check_time()
        part = source.read(at, 2**20)
        if not part:
            raise Truncated
        crc = zlib.crc32(part, crc)
        at += len(part)
    return crc
