"""Stores which decisions were used, so that each decision id is accepted once across threads and processes.

Crash story: the id is durable before `use` returns True. A worker that crashes before it starts the job has used the
decision, and must ask for another; the opposite order could start two jobs.

What is forgotten does not depend on the clock alone. The newest `MIN_REMEMBERED` ids always stay. Of the others, ids
that expired more than a day ago are forgotten, the earliest first, and the latest expiry among them is stored: a
decision that does not expire later counts as used. So a clock that jumps forward and back can make the store refuse
decisions for one lifetime, but never accept one twice.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence

from policyguard.errors import AuditError
from policyguard.fs.open_databases import (
    BUSY_TIMEOUT_S,
    SharedDatabase,
    close_shared,
    open_shared,
    reason_of_error,
    set_wal,
)
from policyguard.fs.write import sync_folder
from policyguard.values import ALWAYS, NANOSECONDS_PER_S, NEVER, Instant, format_instant

MIN_REMEMBERED = 100_000
"""The number of newest ids that are never forgotten; they take about 10 MB."""

_SCHEMA = "CREATE TABLE used (decision_id TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID"
_APPLICATION_ID = 0x70677573
_FORGOTTEN = ""
"""The id of the row that holds the latest expiry among the forgotten ids. No decision has an empty id."""
_LIST = "\nrevocation list of "
"""The id of a row that holds the highest sequence of a list begins so; no decision's id does."""
_DAY = 86_400 * NANOSECONDS_PER_S


class UsedDecisions:
    """A store of used decision ids in one SQLite file. Thread-safe; close it, or use it in a `with` block."""

    def __init__(self, path: str, database: SharedDatabase, clock: Callable[[], Instant], min_remembered: int) -> None:
        self._path = path
        self._database = database
        self._clock = clock
        self._min_remembered = min_remembered
        self._is_open = True

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], Instant] = time.time_ns,
        min_remembered: int = MIN_REMEMBERED,
    ) -> UsedDecisions:
        """Open the store in this file, creating it with mode 0600 if it does not exist.

        Args:
            path: the file. Stores of this process on one file share a connection.
            clock: supplies the current time.
            min_remembered: how many ids are never forgotten.

        Raises:
            AuditError: the file cannot be used; the message says why.
        """
        target = os.fspath(path)
        try:
            database = open_shared(target, _connect)
        except (sqlite3.Error, OSError) as problem:
            raise AuditError(f"single-use store `{target}`: {reason_of_error(problem)}") from problem
        except AuditError as problem:
            raise AuditError(f"single-use store {problem.message}", help=problem.help) from problem
        return cls(target, database, clock, min_remembered)

    def use(self, decision_id: str, expires: Instant) -> bool:
        """Record a decision id durably; return True only at its first use.

        Raises:
            AuditError: the store cannot tell; nothing may start.
        """
        if not decision_id or decision_id.startswith(_LIST):
            problem = "an empty decision id" if not decision_id else "the name of a revocation list"
            raise AuditError(f"single-use store `{self._path}`: found {problem}, expected one of a decision")
        # SQLite holds 64 bits: what expires later is remembered until then.
        return bool(self._written(lambda: self._add(decision_id, max(ALWAYS, min(expires, NEVER)))))

    def remember_list(self, keys: Sequence[str], sequence: int) -> int:
        """Record durably that a revocation list was used; return the highest sequence used here.

        Args:
            keys: the ids of the keys that trust pins for the list.
            sequence: of the list.

        Raises:
            AuditError: the store cannot tell; nothing may start.
        """
        return self._written(lambda: self._raise_sequences([_LIST + key for key in keys], sequence))

    def _written(self, write: Callable[[], int]) -> int:
        with self._database.lock:
            if not self._is_open:
                raise AuditError(f"single-use store `{self._path}`: is closed, expected an open one; nothing was used")
            try:
                self._database.check_process()
                written = write()
                # INVARIANT I12: what was written where nobody else reads it does not count.
                self._database.check(self._path)
            except sqlite3.Error as problem:
                raise AuditError(
                    f"single-use store `{self._path}`: {reason_of_error(problem)}; nothing was used"
                ) from problem
            except AuditError as problem:
                raise AuditError(f"single-use store {problem.message}", help=problem.help) from problem
        return written

    def _raise_sequences(self, names: Sequence[str], sequence: int) -> int:
        execute = self._database.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            rows = [execute("SELECT expires FROM used WHERE decision_id = ?", (name,)).fetchone() for name in names]
            highest = max([sequence, *(row[0] for row in rows if row is not None)])
            if sequence == highest:
                for name in names:
                    execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (name, sequence))
            execute("COMMIT")
        except BaseException:
            if self._database.connection.in_transaction:
                execute("ROLLBACK")
            raise
        return int(highest)

    def _add(self, decision_id: str, expires: Instant) -> bool:
        execute = self._database.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            # INVARIANT I12: the id is durable before it is reported as unused.
            added = execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (decision_id, expires)).rowcount == 1
            forgotten = execute("SELECT expires FROM used WHERE decision_id = ?", (_FORGOTTEN,)).fetchone()
            if added and forgotten is not None and expires <= forgotten[0]:
                raise AuditError(
                    f"`{self._path}`: no longer remembers decisions that expire until "
                    f"`{format_instant(forgotten[0])}`, expected one that expires later; nothing was used",
                    help="ask for a new decision",
                )
            if added:
                self._forget()
            execute("COMMIT")
        except BaseException:
            if self._database.connection.in_transaction:
                execute("ROLLBACK")
            raise
        return added

    def _forget(self) -> None:
        execute = self._database.connection.execute
        count = execute("SELECT count(*) FROM used").fetchone()[0] if self._may_be_full() else 0
        # A quarter at a time, so that counting and sorting are rare.
        surplus = count - self._min_remembered
        if surplus <= self._min_remembered // 4:
            return
        rows = execute(
            "SELECT decision_id, expires FROM used WHERE decision_id != ? AND decision_id NOT LIKE ? AND expires < ? "
            "ORDER BY expires LIMIT ?",
            (_FORGOTTEN, f"{_LIST}%", max(ALWAYS, min(self._clock() - _DAY, NEVER)), surplus),
        ).fetchall()
        if rows:
            execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (_FORGOTTEN, rows[-1][1]))
            self._database.connection.executemany("DELETE FROM used WHERE decision_id = ?", [(row[0],) for row in rows])

    def _may_be_full(self) -> bool:
        """Return True if the file is large enough that its ids have to be counted."""
        execute = self._database.connection.execute
        pages, size = execute("PRAGMA page_count").fetchone()[0], execute("PRAGMA page_size").fetchone()[0]
        return bool(pages * size > self._min_remembered * 32)

    def close(self) -> None:
        """Close this store; the last one to close also closes the file."""
        with self._database.lock:
            if not self._is_open:
                return
            self._is_open = False
        close_shared(self._database)

    def __enter__(self) -> UsedDecisions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(target: str) -> sqlite3.Connection:
    connection = sqlite3.connect(target, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA synchronous=FULL")
        _prepare(target, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(target: str, connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database; refuse a database of another application."""
    if not _tables(connection):
        set_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made the store while we waited for the lock.
        if not _tables(connection):
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute("COMMIT")
        sync_folder(os.path.dirname(target) or ".")
    if _tables(connection) != [_SCHEMA]:
        raise AuditError(f"`{target}` has another schema than ours")
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != _APPLICATION_ID:
        raise AuditError(
            f"`{target}` has the application id {application_id:#010x}, expected "
            f"{_APPLICATION_ID:#010x}; give the file that policyguard made, or a new path"
        )


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master")]
