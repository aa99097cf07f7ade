"""Walks a tar archive header by header without unpacking it; links, devices and escaping names are findings.

    archive = *( header data padding ) 2( zero-block )

Source: POSIX pax and GNU tar headers, parsed by the standard library's `TarInfo.frombuf`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.findings import Exhausted, Findings
from policyguard.scan.source import Source, Truncated, window

BLOCK = 512
_MAX_PAX = 2**20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)


def is_tar(head: bytes) -> bool:
    """Check whether these first 512 bytes are a tar header with a valid checksum."""
    return _header(head) is not None


def _header(block: bytes) -> tarfile.TarInfo | None:
    if len(block) < BLOCK or not block[0]:
        return None
    try:
        return tarfile.TarInfo.frombuf(block[:BLOCK], "utf-8", "backslashreplace")
    except (tarfile.HeaderError, ValueError):
        return None


def tar_members(source: Source, findings: Findings) -> Iterator[tuple[str, Source]]:
    """Yield name and content of each regular file; record findings for everything else.

    Raises:
        Exhausted: the archive has too many members.
    """
    at, count, long_name = 0, 0, ""
    while block := source.read(at, BLOCK):
        if not block.strip(b"\0"):
            _check_end(source, at, findings)
            return
        header = _header(block)
        if header is None or header.size < 0:
            findings.add("ckpt.archive_broken", f"tar header at {at}")
            return
        count += 1
        if count > findings.limits.members:
            raise Exhausted("ckpt.too_large", "tar members")
        data = window(source, at + BLOCK, header.size if header.type not in _LINKS else 0)
        at += BLOCK + (data.size + BLOCK - 1) // BLOCK * BLOCK
        name, extended = _name_given(header, data, findings)
        if extended:
            long_name = name or long_name
            continue
        name, long_name = long_name or header.name, ""
        if leaves_folder(name):
            findings.add("ckpt.archive_path", name)
        if header.type in _FILES:
            yield name, data
        elif header.type != tarfile.DIRTYPE:
            findings.add("ckpt.archive_link", name)
    findings.add("ckpt.truncated", "tar without its end")


_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)


def _name_given(header: tarfile.TarInfo, data: Source, findings: Findings) -> tuple[str, bool]:
    """Read the name an extension header gives to the next member, and whether this was such a header."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return data.read(0, 4096).rstrip(b"\0").decode("utf-8", "backslashreplace"), True
    if header.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
        return "", False
    if data.size > _MAX_PAX:
        raise Truncated
    name = ""
    for record in data.read(0, data.size).split(b"\n"):
        key, _, text = record.partition(b" ")[2].partition(b"=")
        if key == b"path":
            name = text.decode("utf-8", "backslashreplace")
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            findings.add("ckpt.archive_mismatch", "a size in an extended header")
    return name, True


def _check_end(source: Source, at: int, findings: Findings) -> None:
    while at < source.size:
        findings.check_time()
        part = source.read(at, 2**20)
        if part.strip(b"\0"):
            findings.add("ckpt.archive_gap", "bytes after the end of the tar archive")
            return
        at += len(part)
