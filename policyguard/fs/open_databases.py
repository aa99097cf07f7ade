"""The SQLite files that this process has open: one connection per file, whatever path leads to it.

A POSIX lock belongs to a process and a file: closing *any* descriptor of the file releases it. SQLite handles this for
its own descriptors; another one, opened and closed, would leave the process without locks, and other processes could
then delete its WAL. So a database file is created before SQLite opens it, and is never opened in another way; later
checks use only `stat`.

A forked child does not inherit its parent's locks, but SQLite in the child believes that it has them. So the child
cannot use the files that were open at the fork, neither by the old connection nor by a new one.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from policyguard.errors import AuditError
from policyguard.fs.private_files import WAL, Identity, check_mode, identity_at, identity_of

BUSY_TIMEOUT_S = 10.0


class SharedDatabase:
    """A database file and this process's connection to it. Hold `lock` during each transaction."""

    def __init__(self, path: str, connection: sqlite3.Connection, identity: Identity) -> None:
        self.path = path
        self.connection = connection
        self.lock = threading.RLock()
        self.identity = identity
        self.users = 1
        self._process = os.getpid()
        self._wal = identity_at(os.path.realpath(path) + WAL)

    def check_process(self) -> None:
        """Raise if the connection was opened before a fork.

        Raises:
            AuditError: it must not be used at all.
        """
        if self._process != os.getpid():
            raise forked(self.path)

    def check(self, path: str) -> None:
        """Raise if the path no longer leads to the open file.

        Raises:
            AuditError: what was written may be in no file that anybody else reads.
        """
        wal = os.path.realpath(path) + WAL
        if identity_at(path) != self.identity or (self._wal is not None and identity_at(wal) != self._wal):
            raise AuditError(
                f"`{path}` was moved, removed or replaced, expected the file that was opened",
                help="put the file back, or start again",
            )


_OPEN: dict[Identity, SharedDatabase] = {}
_HELD: Counter[Identity] = Counter()
"""The number of connections to each file in this process, including those that are not shared."""
_LOST: list[SharedDatabase] = []
"""Connections of the parent process: closing them in a child would touch the parent's files."""
_LOST_FILES: set[Identity] = set()
_OPENING = threading.RLock()


def open_shared(path: str | os.PathLike[str], connect: Callable[[str], sqlite3.Connection]) -> SharedDatabase:
    """Open a database file, created with mode 0600 if missing, or reuse this process's connection to it.

    Args:
        path: the file; the last component must not be a link.
        connect: opens the file and checks, or writes, what is in it.

    Raises:
        AuditError: it is not a regular file, or others may read or change it. What `connect` raises is passed on.
    """
    target = os.fspath(path)
    with _OPENING:
        make_file(target)
        identity = _check_file(target)
        if identity in _LOST_FILES:
            raise forked(target)
        database = _OPEN.get(identity)
        if database is not None:
            database.users += 1
            return database
        database = SharedDatabase(target, connect(target), identity)
        _OPEN[identity] = database
        return database


def close_shared(database: SharedDatabase) -> None:
    """Close the connection when its last user closes it."""
    with _OPENING:
        if _OPEN.get(database.identity) is not database:
            return
        database.users -= 1
        if database.users == 0:
            del _OPEN[database.identity]
            with database.lock:
                database.connection.close()


def make_file(target: str) -> bool:
    """Create an empty file of mode 0600; return False if one exists.

    Raises:
        OSError: the file cannot be made.
    """
    # No other thread can have a new file open before its descriptor is closed here.
    with _OPENING:
        if identity_at(target) is not None:
            return False
        try:
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        return True


def _check_file(target: str) -> Identity:
    status = os.lstat(target)
    if not stat.S_ISREG(status.st_mode):
        raise AuditError(f"`{target}` is not a regular file")
    check_mode(target, status)
    return identity_of(status)


def set_wal(connection: sqlite3.Connection) -> None:
    """Switch the journal to WAL, waiting for others that do the same: SQLite itself does not wait here."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def forked(path: str) -> AuditError:
    """Build the error for a file that was open when this process was forked."""
    return AuditError(
        f"`{path}` was open when this process was forked, expected a process that opened it itself",
        help="open it after the fork only, or start the process anew (`spawn`)",
    )


@contextmanager
def opening(path: str) -> Iterator[None]:
    """Block other threads that open a database file; for connections that are not shared.

    Raises:
        AuditError: the file was open when this process was forked.
    """
    with _OPENING:
        if identity_at(path) in _LOST_FILES:
            raise forked(path)
        yield


def hold(path: str) -> Identity | None:
    """Register an open connection to this file; pass the result to `let_go`."""
    with _OPENING:
        identity = identity_at(path)
        if identity is not None:
            _HELD[identity] += 1
        return identity


def let_go(identity: Identity | None) -> None:
    """Unregister a connection that was closed."""
    with _OPENING:
        if identity is not None:
            _HELD[identity] -= 1
            if _HELD[identity] <= 0:
                del _HELD[identity]


def _forget_in_child() -> None:
    global _OPENING
    _OPENING = threading.RLock()
    _LOST_FILES.update(_OPEN, _HELD)
    _HELD.clear()
    _LOST.extend(_OPEN.values())
    _OPEN.clear()


os.register_at_fork(after_in_child=_forget_in_child)


def reason_of_error(problem: Exception) -> str:
    """Say in one line of lower case what the system or SQLite refused."""
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror.lower()
    return (str(problem).splitlines() or ["unknown error"])[0].lower()
