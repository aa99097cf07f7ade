"""Decompresses joblib, gzip and zip data, within limits, into a source with random access."""

from __future__ import annotations

import bz2
import lzma
import tempfile
import zlib
from typing import Protocol

from policyguard.scan.findings import Findings
from policyguard.scan.source import Source, SpooledSource, Truncated

SUFFIXES = {"gzip": (".gz", ".tgz"), "bz2": (".bz2",), "xz": (".xz",), "zlib": (), "lzma": ()}
"""The names of each compression that is read here."""

_STEP = 65_536
_IN_MEMORY = 64 * 2**20


class PackedBroken(Exception):
    """The compressed data does not decompress."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


class _Zlib:
    """A zlib decompressor with the interface of bz2 and lzma, which buffer pending input themselves."""

    def __init__(self, window_bits: int) -> None:
        self._inner = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def compression_of(head: bytes) -> str | None:
    """Recognise a compression by its first bytes: "" for one that is not supported, None for none."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "bz2"
    if head[:6] == b"\xfd7zXZ\x00":
        return "xz"
    if head[:4] in (b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd") or head[:2] == b"\x1f\x9d":
        return ""
    if len(head) >= 2 and head[0] == 0x78 and (head[0] << 8 | head[1]) % 31 == 0 and not head[1] & 0x20:
        return "zlib"
    if head[:1] == b"\x5d" and head[1:3] == b"\x00\x00" and len(head) >= 13:
        return "lzma"
    return None


def _decompressor(method: str) -> _Decompressor:
    if method == "bz2":
        return bz2.BZ2Decompressor()
    if method in ("xz", "lzma"):
        kind = lzma.FORMAT_XZ if method == "xz" else lzma.FORMAT_ALONE
        return lzma.LZMADecompressor(kind, memlimit=256 * 2**20)
    return _Zlib({"zlib": 15, "gzip": 31, "deflate": -15}[method])


def unpacked(source: Source, method: str, findings: Findings) -> Source:
    """Decompress the whole source; trailing bytes or a second stream are findings.

    Args:
        source: the bytes to scan.
        method: the compression, as `compression_of` names it.
        findings: takes what is found.

    Raises:
        PackedBroken: not this compression, or damaged.
        Exhausted: larger or slower than the limits allow.
    """
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with the source that holds it
    machine, read, written = _decompressor(method), 0, 0
    try:
        while not machine.eof:
            wants = getattr(machine, "needs_input", True)
            part = source.read(read, _STEP) if wants else b""
            read += len(part)
            out = machine.decompress(part, 2**20)
            if wants and not part and not out and not machine.eof:
                raise Truncated
            findings.spend_bytes(len(out), read)
            written += len(out)
            file.write(out)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError, MemoryError) as problem:
        file.close()
        raise PackedBroken(str(problem)) from None
    except BaseException:
        file.close()
        raise
    surplus = len(machine.unused_data) + source.size - read
    if surplus:
        findings.add("ckpt.trailing_bytes", f"{surplus} bytes after the compressed data")
    return SpooledSource(file, written)
