"""Opens files that an attacker may have placed: only regular files, no hidden links, no change while reading.

A path is first resolved, then walked again component by component with links refused, so that the file that is opened
is the one that was checked. FIFOs and devices are never read: opening does not block, and anything but a regular file
is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from typing import TypeAlias

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.text import printable_name
from policyguard.values import FrozenMap

CHUNK_BYTES = 1 << 20

FileVersion: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, size, modification and change time (ns): a file with the same ones has the same content."""

REGULAR_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
FOLDER_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISREG, "a regular file"),
)


def open_plain(
    name: str | bytes | os.PathLike[str], *, dir_fd: int | None = None, follow_links: bool = False
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, without blocking on a FIFO.

    Args:
        dir_fd: the open folder that a relative name starts from.
        follow_links: for files that the operator names; mounted configuration is full of links.

    Raises:
        OSError: `strerror` says what is wrong; a path that no system call takes is an `OSError`, too.
    """
    flags = REGULAR_FLAGS & ~os.O_NOFOLLOW if follow_links else REGULAR_FLAGS
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except ValueError as problem:
        raise OSError(errno.EINVAL, str(problem)) from problem
    except OSError as problem:
        raise OSError(problem.errno, _reason(name, dir_fd, problem, follow_links), problem.filename) from problem
    status = os.fstat(fd)
    # INVARIANT I16: only regular files are read.
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, f"found {kind_of(status.st_mode)}, expected a regular file", os.fspath(name))
    return fd, status


def open_regular(name: str | bytes, *, dir_fd: int | None = None) -> tuple[int, os.stat_result]:
    """Open a regular file that is not itself a link; return descriptor and status.

    Raises:
        EvidenceError: the name is missing, unreadable, a link, a folder, a FIFO, a socket or a device.
    """
    try:
        return open_plain(name, dir_fd=dir_fd)
    except OSError as problem:
        raise EvidenceError(f"`{printable_name(name)}`: {reason_of(problem)}") from problem


def read_bounded(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read a regular file that the operator named; links are followed.

    Raises:
        ConfigurationError: it cannot be read, or is longer than `max_bytes`.
    """
    data = read_start(path, max_bytes + 1)
    if len(data) > max_bytes:
        raise ConfigurationError(f"{path}: larger than {max_bytes} bytes")
    return data


def read_start(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Read the first bytes of a regular file that the operator named; links are followed.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        fd, _ = open_plain(path, follow_links=True)
        with open(fd, "rb") as file:
            return file.read(max_bytes)
    except OSError as problem:
        if problem.errno == errno.EINVAL and reason_of(problem).startswith("found "):
            raise ConfigurationError(f"{path}: {reason_of(problem)}") from problem
        raise ConfigurationError(f"{path}: cannot be read: {reason_of(problem)}") from problem


def open_resolved(path: str) -> tuple[int, os.stat_result, str]:
    """Resolve a path's links once and open the regular file there; return descriptor, status and path.

    Raises:
        EvidenceError: the file cannot be opened, or is not a regular file.
    """
    resolved = os.path.realpath(path)
    folder = os.open("/", FOLDER_FLAGS)
    try:
        *folders, last = [part for part in resolved.split("/") if part] or [""]
        for part in folders:
            try:
                deeper = os.open(part, FOLDER_FLAGS, dir_fd=folder)
            except OSError as problem:
                raise EvidenceError(f"`{printable_name(path)}`: {reason_of(problem)}") from problem
            os.close(folder)
            folder = deeper
        fd, status = open_regular(last or "/", dir_fd=folder)
    finally:
        os.close(folder)
    return fd, status, resolved


def read_all(fd: int, before: os.stat_result, name: str | bytes, sink: Callable[[memoryview], object]) -> None:
    """Pass every byte of an open regular file to `sink`.

    Args:
        fd: an open descriptor.
        before: its status when it was opened.
        name: the file, for errors.
        sink: takes the bytes.

    Raises:
        EvidenceError: the file changed while it was read.
    """
    buffer = bytearray(min(CHUNK_BYTES, before.st_size + 1))
    view = memoryview(buffer)
    total = 0
    while count := os.readv(fd, [buffer]):
        total += count
        if total > before.st_size:
            break
        sink(view[:count])
    # INVARIANT I16: a file that changes while it is read has no digest.
    if total != before.st_size or version_of(os.fstat(fd)) != version_of(before):
        raise EvidenceError(f"`{printable_name(name)}`: changed while it was read")


def read_small(path: str, limit_bytes: int) -> bytes:
    """Read a regular file of at most `limit_bytes` bytes that is not itself a link.

    Raises:
        EvidenceError: the file cannot be opened, is not a regular file, or is too large.
    """
    fd, status = open_regular(path)
    try:
        if status.st_size > limit_bytes:
            raise EvidenceError(
                f"`{printable_name(path)}`: found {status.st_size} bytes, expected at most {limit_bytes}"
            )
        content = bytearray()
        read_all(fd, status, path, content.extend)
        return bytes(content)
    finally:
        os.close(fd)


def file_record(path: str, label: str) -> FrozenMap:
    """Describe a file as `{path, digest, size}`, its links resolved; the digest is SHA-256 over its bytes."""
    fd, status, _ = open_resolved(path)
    try:
        hasher = hashlib.sha256()
        read_all(fd, status, path, hasher.update)
    finally:
        os.close(fd)
    return FrozenMap(path=label, digest=hasher.hexdigest(), size=status.st_size)


def names_in(folder: str) -> list[str]:
    """List the names in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def kind_of(mode: int) -> str:
    """Return the kind of a file for an error message: `a FIFO`, `a symbolic link`."""
    return next((word for is_kind, word in _KINDS if is_kind(mode)), "something else")


def version_of(status: os.stat_result) -> FileVersion:
    """Identify a state of a file: a write or a replacement by anybody but root changes it."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def reason_of(problem: OSError | ValueError) -> str:
    """Return the system's reason as the end of an error message.

    A path with a NUL byte raises `ValueError`, which this also accepts.
    """
    text = getattr(problem, "strerror", None) or str(problem) or "cannot be opened"
    return text[:1].lower() + text[1:]


def _reason(name: str | bytes | os.PathLike[str], dir_fd: int | None, problem: OSError, follow_links: bool) -> str:
    try:
        mode = os.stat(name, dir_fd=dir_fd, follow_symlinks=follow_links).st_mode
    except OSError:
        return reason_of(problem)
    return reason_of(problem) if stat.S_ISREG(mode) else f"found {kind_of(mode)}, expected a regular file"
