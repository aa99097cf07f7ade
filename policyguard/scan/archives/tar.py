"""Reads a tar archive header by header without unpacking it; links, devices and escaping names are findings.

    archive = *( header data padding ) 2( zero-block )

Source: POSIX pax and GNU tar headers, parsed by the standard library's `TarInfo.frombuf`.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.findings import Exhausted, Findings
from policyguard.scan.source import Source, Truncated, window

BLOCK = 512
_MAX_PAX = 2**20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)


def is_tar(head: bytes) -> bool:
    """Return True if these 512 bytes are a tar header with a valid checksum."""
    return _header(head) is not None


def _header(block: bytes) -> tarfile.TarInfo | None:
    if len(block) < BLOCK or not block[0]:
        return None
    try:
        return tarfile.TarInfo.frombuf(block[:BLOCK], "utf-8", "backslashreplace")
    except (tarfile.HeaderError, ValueError):
        return None


def tar_members(source: Source, findings: Findings) -> Iterator[tuple[str, Source]]:
    """Yield name and content of each regular file; everything else in the archive is a finding.

    Raises:
        Exhausted: more members than are read.
    """
    at, count = 0, 0
    extended = _Extended(findings)
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
        data = window(source, at + BLOCK, header.size if header.type not in _EMPTY else 0)
        at += BLOCK + (data.size + BLOCK - 1) // BLOCK * BLOCK
        if extended.takes(header, data):
            continue
        name = extended.name_of(header)
        if leaves_folder(name):
            findings.add("ckpt.archive_path", name)
        if header.size and header.type in _EMPTY:
            findings.add("ckpt.archive_mismatch", f"{name}: a size without data")
        if header.type in _FILES:
            yield name, data
        elif header.type in _LINKS:
            findings.add("ckpt.archive_link", name)
        elif header.type != tarfile.DIRTYPE:
            findings.add("ckpt.archive_member", f"{name}: of a type that is not read here")
    findings.add("ckpt.truncated", "tar without its end")


_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_EMPTY = (*_LINKS, tarfile.DIRTYPE)
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n\0]+)=")


class _Extended:
    """The fields of extension headers, for the next member or for all that follow; readers differ on conflicts."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.names: list[str] = []
        self.of_all = ""

    def takes(self, header: tarfile.TarInfo, data: Source) -> bool:
        """Return True for an extension header, and store its fields."""
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = data.read(0, _MAX_PAX)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                self.names.append(text.partition(b"\0")[0].decode("utf-8", "backslashreplace"))
            if data.size > _MAX_PAX or text.partition(b"\0")[2].strip(b"\0"):
                self.findings.add("ckpt.archive_name", "a long name with more behind its end")
            return True
        if header.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
            return False
        if data.size > _MAX_PAX:
            raise Truncated
        for key, value in self._records(data.read(0, data.size)):
            name = value.decode("utf-8", "backslashreplace")
            if key == b"path" and header.type == tarfile.XGLTYPE:
                self.of_all = name
                self.findings.add("ckpt.archive_name", "one name for all that follow")
            elif key == b"path":
                self.names.append(name)
            elif key == b"size" or key.startswith(b"GNU.sparse"):
                self.findings.add("ckpt.archive_mismatch", "a size in an extended header")
            elif b"\n" in value or b"\0" in value or key == b"hdrcharset":
                self.findings.add("ckpt.archive_name", "an extended header that readers split differently")
        return True

    def _records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the records `length key=value newline` as `tarfile` and GNU tar split them."""
        at = 0
        while at < len(data.rstrip(b"\0")):
            match = _RECORD.match(data, at)
            end = at + int(match[1]) if match else 0
            if match is None or end <= match.end() - 1 or end > len(data) or data[end - 1 : end] != b"\n":
                self.findings.add("ckpt.archive_broken", "an extended header of a tar archive")
                return
            yield match[2], data[match.end() : end - 1]
            at = end

    def name_of(self, header: tarfile.TarInfo) -> str:
        """Return the member's name; extension headers that disagree about it are a finding."""
        names, self.names = self.names, []
        if len(set(names)) > 1:
            self.findings.add("ckpt.archive_mismatch", f"{names[-1]}: two extended headers name it")
        for name in names:
            if leaves_folder(name):
                self.findings.add("ckpt.archive_path", name)
        return names[-1] if names else self.of_all or header.name


def _check_end(source: Source, at: int, findings: Findings) -> None:
    while at < source.size:
        findings.check_time()
        part = source.read(at, 2**20)
        if part.strip(b"\0"):
            findings.add("ckpt.archive_gap", "bytes after the end of the tar archive")
            return
        at += len(part)
