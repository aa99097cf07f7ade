"""Data to scan (a file, a part of one, or decompressed data), with random access."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, Protocol

CHUNK = 65_536
MAX_LINE = 64 * 2**20
"""The longest line that is read; CPython's readers have no limit."""


class Truncated(Exception):
    """The data ends too early."""


class LineTooLong(Exception):
    """A line has no end within the limit."""


class Source(Protocol):
    """A sequence of bytes of known size."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Read the bytes from `offset`; fewer only at the end."""
        ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """An open regular file, with the size it had when opened."""

    fd: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        parts = []
        while length > 0:
            part = os.pread(self.fd, min(length, 2**30), offset)
            if not part:
                raise Truncated
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True)
class BytesSource:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length] if length > 0 else b""


@dataclass(frozen=True, slots=True)
class SpooledSource:
    """Decompressed data, in memory while small, else in an unnamed temporary file."""

    file: IO[bytes]
    size: int

    def read(self, offset: int, length: int) -> bytes:
        if length <= 0 or offset >= self.size:
            return b""
        self.file.seek(offset)
        return self.file.read(length)


@dataclass(frozen=True, slots=True)
class Window:
    """A part of another source."""

    inner: Source
    start: int
    size: int

    def read(self, offset: int, length: int) -> bytes:
        return self.inner.read(self.start + offset, min(length, self.size - offset))


def window(source: Source, start: int, size: int) -> Source:
    """Return a part of `source`; raises `Truncated` if it is not inside.

    Args:
        source: the whole.
        start: the offset of the part.
        size: its size in bytes.
    """
    if start < 0 or size < 0 or start + size > source.size:
        raise Truncated
    if isinstance(source, Window):
        return Window(source.inner, source.start + start, size)
    return Window(source, start, size)


@dataclass(slots=True)
class Cursor:
    """Reads a source sequentially, with a buffer; raises `Truncated` at the end."""

    source: Source
    position: int = 0
    _buffer: bytes = field(default=b"", init=False)
    _base: int = field(default=0, init=False)

    @property
    def remaining(self) -> int:
        return self.source.size - self.position

    def take(self, count: int) -> bytes:
        """Read the next `count` bytes.

        Raises:
            Truncated: the source ends before.
        """
        start = self.position - self._base
        end = start + count
        if start < 0 or end > len(self._buffer):
            if count > self.remaining:
                raise Truncated
            self._base = self.position
            self._buffer = self.source.read(self.position, max(count, CHUNK))
            start, end = 0, count
            if len(self._buffer) < count:
                raise Truncated
        self.position += count
        return self._buffer[start:end]

    def skip(self, count: int) -> int:
        """Skip `count` bytes and return where they began.

        Raises:
            Truncated: the source ends before.
        """
        if count < 0 or count > self.remaining:
            raise Truncated
        start = self.position
        self.position += count
        return start

    def line(self, limit: int = MAX_LINE) -> bytes:
        """Read up to the next newline, without it; an unterminated last line loses its last byte (as in CPython).

        Raises:
            LineTooLong: more than `limit` bytes; the cursor is behind the line all the same.
        """
        parts: list[bytes] = []
        length = 0
        while True:
            if not 0 <= self.position - self._base < len(self._buffer):
                self._base = self.position
                self._buffer = self.source.read(self.position, CHUNK << min(length // CHUNK, 6))
            inside = self.position - self._base
            end = self._buffer.find(b"\n", inside)
            part = self._buffer[inside : end if end >= 0 else None]
            length += len(part)
            self.position = self._base + end + 1 if end >= 0 else self._base + len(self._buffer)
            if length <= limit:
                parts.append(part)
            if end >= 0 or not self._buffer:
                break
        if length > limit:
            raise LineTooLong
        line = parts[0] if len(parts) == 1 else b"".join(parts)
        return line if end >= 0 else line[:-1]
