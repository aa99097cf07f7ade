"""Which decisions were used: a decision id is accepted once, by all processes that share the file.

Crash story: the id is durable before `use` returns True, so a worker that dies before it starts the job has used the
decision up and must ask for another; the other order could start two.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from policyguard.errors import AuditError
from policyguard.fs.write import sync_folder
from policyguard.values import NEVER, Instant

_SCHEMA = "CREATE TABLE used (decision_id TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID"
_APPLICATION_ID = 0x70677573


class UsedDecisions:
    """A single-use store in one SQLite file; close it, or use it in a `with` block."""

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Callable[[], Instant]) -> None:
        self._path = path
        self._connection = connection
        self._clock = clock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, clock: Callable[[], Instant] = time.time_ns) -> UsedDecisions:
        """Return the store in this file, made with mode 0600 if it is not there, else raise `AuditError`."""
        target = Path(path)
        connection = None
        try:
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
            connection = sqlite3.connect(target, isolation_level=None, timeout=10.0, check_same_thread=False)
            connection.execute("PRAGMA synchronous=FULL")
            _prepare(target, connection)
        except (sqlite3.Error, OSError, AuditError) as problem:
            if connection is not None:
                connection.close()
            if isinstance(problem, AuditError):
                raise
            raise AuditError(f"single-use store `{target}`: {str(problem).lower()}") from problem
        return cls(target, connection, clock)

    def use(self, decision_id: str, expires: Instant) -> bool:
        """Return True the first time this id is given, durable before returning, and False ever after.

        Ids are forgotten a day after their decision expired: V6 refuses it by then.
        """
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            execute("DELETE FROM used WHERE expires < ?", (self._clock() - 86_400_000_000_000,))
            # INVARIANT I12: the id is durable before it is reported as unused.
            # SQLite holds 64 bits: what expires later is remembered until then.
            added = execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (decision_id, min(expires, NEVER))).rowcount
            execute("COMMIT")
        except sqlite3.Error as problem:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise AuditError(f"single-use store `{self._path}`: {str(problem).lower()}; nothing was used") from problem
        return added == 1

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> UsedDecisions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _prepare(target: Path, connection: sqlite3.Connection) -> None:
    """Write the schema into a blank database; another one is left as it is, and refused."""
    if not _tables(connection):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made the store while we waited for the lock.
        if not _tables(connection):
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute("COMMIT")
        sync_folder(target.parent)
    if _tables(connection) != [_SCHEMA]:
        raise AuditError(f"single-use store `{target}` has another schema than ours")
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != _APPLICATION_ID:
        raise AuditError(
            f"single-use store `{target}` has the application id {application_id:#010x}, expected "
            f"{_APPLICATION_ID:#010x}; give the file that policyguard made, or a new path"
        )


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")]
