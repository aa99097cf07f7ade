"""Files that decisions rest on: their identity, a mode that keeps others out, and a lock file."""

from __future__ import annotations

import fcntl
import os
import stat
import time

from policyguard.errors import AuditError

Identity = tuple[int, int]
"""Device and inode of a file."""

WIDEST_MODE = 0o640
WAL, SHM = "-wal", "-shm"
DATABASE_FILES = ("", WAL, SHM)
"""The suffixes of a database's files."""

PRIVATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags for files that only we write: no link is followed, and opening never blocks on a FIFO."""


def identity_of(status: os.stat_result) -> Identity:
    """Return device and inode of a `stat` result."""
    return status.st_dev, status.st_ino


def identity_at(path: str) -> Identity | None:
    """Return device and inode of the file that a path leads to; None if there is none."""
    try:
        return identity_of(os.stat(path))
    except OSError:
        return None


def check_mode(path: str, status: os.stat_result, *, noun: str = "", advised: str = "640") -> None:
    """Raise if others can write a file, or if more than its group can read it.

    Args:
        path: for the message.
        status: of the file.
        noun: what it is, with a space behind.
        advised: the mode to give it.

    Raises:
        AuditError: the mode is wider than 0640.
    """
    mode = stat.S_IMODE(status.st_mode)
    # INVARIANT I14: what others may write, others may have written.
    if mode & ~WIDEST_MODE:
        raise AuditError(
            f"{noun}`{path}` has mode {mode:04o}, expected 0640 or narrower: others may read or change it",
            help=f"chmod {advised} {path}",
        )


def open_lock(path: str) -> int:
    """Open a lock file, created with mode 0600 if missing.

    The caller closes it. Raises `OSError`.
    """
    return os.open(path, PRIVATE_FLAGS, 0o600)


class FolderState:
    """An open folder, which says by one `fstat` that no name in it was added, removed, renamed or replaced.

    It says nothing about the folders above it, nor about the contents of files.
    """

    __slots__ = ("_handle", "_mark")

    _SETTLED_NS = 2_000_000_000
    """The clock of a file system ticks in milliseconds; two changes within one tick have the same time."""

    def __init__(self, folder: str) -> None:
        self._handle = os.open(folder, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
        self._mark: tuple[int, int] | None = None

    def is_unchanged(self) -> bool:
        """Return True if the folder is as it was at the last `mark`."""
        status = os.fstat(self._handle)
        return (status.st_mtime_ns, status.st_ctime_ns) == self._mark

    def begin(self) -> tuple[int, int]:
        """Begin a check of the names in the folder; pass the result to `mark` after it."""
        status = os.fstat(self._handle)
        return status.st_mtime_ns, status.st_ctime_ns

    def mark(self, begun: tuple[int, int]) -> None:
        """Remember that the names were checked; a folder that changed just now is checked again."""
        self._mark = begun if time.time_ns() - max(begun) > self._SETTLED_NS else None

    def close(self) -> None:
        """Close the folder."""
        os.close(self._handle)


class Locked:
    """Holds the lock of an open lock file in a `with` block; only one process or thread has it at a time."""

    __slots__ = ("_handle",)

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __enter__(self) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_UN)
