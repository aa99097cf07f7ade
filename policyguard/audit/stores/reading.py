"""Opens a log for accounts that cannot write it: an auditor, or a read-only medium.

In WAL mode, SQLite needs to write files next to the database, at least an index. If it cannot:

1. Without a WAL nothing is missing from the file, and it is read as immutable.
2. With a WAL, file and WAL are copied to a private folder and read there. Both must be the same before and after the
   copy, else it is made again; a guard that writes all the time is read where it may be written, or from a backup.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable

from policyguard.errors import AuditError
from policyguard.fs.private_files import WAL

_TRIES = 20
_PAUSE_S = 0.05

Connect = Callable[[str, str], sqlite3.Connection]


def connect_reader(target: str, connect: Connect) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str] | None]:
    """Open the database read-only.

    If a temporary copy is needed, it is in the returned folder; keep that as long as the connection.

    Args:
        target: the path of the log.
        connect: opens a path in a mode of SQLite's, `ro`, `rw` or `mode=ro&immutable=1`.
    """
    connection = None
    try:
        connection = connect(target, "ro")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as problem:
        if connection is not None:
            connection.close()
        if problem.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        if not _size(target + WAL):
            # Nobody has written since the file was closed, and the rows are all in it.
            return connect(target, "mode=ro&immutable=1"), None
        folder = _copy(target)
        return connect(os.path.join(folder.name, "log"), "rw"), folder
    return connection, None


def _copy(target: str) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="policyguard-audit-")
    copy = os.path.join(folder.name, "log")
    try:
        for _ in range(_TRIES):
            before = _stamps(target)
            shutil.copyfile(target, copy)
            shutil.copyfile(target + WAL, copy + WAL)
            if _stamps(target) == before:
                return folder
            time.sleep(_PAUSE_S)
    except BaseException:
        folder.cleanup()
        raise
    folder.cleanup()
    raise AuditError(
        f"log `{target}` is written while it is copied for reading",
        help="try again, or read it as an account that may write the folder",
    )


def _stamps(target: str) -> list[tuple[int, int, int]]:
    statuses = [os.stat(target + suffix) for suffix in ("", WAL)]
    return [(status.st_ino, status.st_size, status.st_mtime_ns) for status in statuses]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
