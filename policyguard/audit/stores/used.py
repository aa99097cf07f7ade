"""Stores which decisions were used, so that each decision id is accepted once across threads and processes.

Crash story: the id is durable before `use` returns True. A worker that crashes before it starts the job has used the
decision, and must ask for another; the opposite order could start two jobs.

What is forgotten does not depend on the clock alone. The newest `MIN_REMEMBERED` ids always stay. Of the others, ids
that expired more than a day ago are forgotten, the earliest first, and the latest expiry among them is stored: a
decision that does not expire later counts as used. So a clock that jumps forward and back can make the store refuse
decisions for one lifetime, but never accept one twice.

The store counts its uses, and a head file (`audit/head.py`) keeps the count apart from it: a store that was removed, or
replaced by an older copy, is refused. The head file is written after each commit, before `use` returns True.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence

from policyguard.audit.head import Head, HeadFile, HeadLocation
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
_USES = "\nuses"
"""The id of the row that holds the number of uses."""
_ORIGIN = "single-use"
_HELP = (
    "put the newest store back; if it is lost, wait until its decisions have expired, then remove it and its head file"
)
_DAY = 86_400 * NANOSECONDS_PER_S


class UsedDecisions:
    """A store of used decision ids in one SQLite file. Thread-safe; close it, or use it in a `with` block."""

    def __init__(
        self, path: str, database: SharedDatabase, head: HeadFile, clock: Callable[[], Instant], min_remembered: int
    ) -> None:
        self._path = path
        self._database = database
        self._head = head
        self._clock = clock
        self._min_remembered = min_remembered
        self._is_open = True
        self._uses = 0

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        state_dir: str | os.PathLike[str] | None = None,
        clock: Callable[[], Instant] = time.time_ns,
        min_remembered: int = MIN_REMEMBERED,
    ) -> UsedDecisions:
        """Open the store in this file, creating it with mode 0600 if it does not exist.

        Args:
            path: the file. Stores of this process on one file share a connection.
            state_dir: the folder of the head file; by default that of the store.
            clock: supplies the current time.
            min_remembered: how many ids are never forgotten.

        Raises:
            AuditError: the file cannot be used; the message says why.
        """
        target = os.fspath(path)
        head: HeadFile | None = None
        try:
            head = _open_head(target, state_dir)
            return cls(target, open_shared(target, _connect), head, clock, min_remembered)
        except BaseException as problem:
            if head is not None:
                head.close()
            _refuse_store(target, problem)
            raise

    def use(self, decision_id: str, expires: Instant) -> bool:
        """Record a decision id durably; return True only at its first use.

        Raises:
            AuditError: the store cannot tell; nothing may start.
        """
        if not decision_id or decision_id.startswith("\n"):
            problem = "an empty decision id" if not decision_id else "the name of a revocation list, or of a count"
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
                # INVARIANT I12: a decision is not reported as unused before the head file says that it was used.
                self._head.write(Head(generation=self._uses, log=os.path.abspath(self._path)), 0)
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
            self._uses = self._count()
            if sequence == highest and any(row is None or row[0] != sequence for row in rows):
                for name in names:
                    execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (name, sequence))
                self._raise_count()
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
            self._uses = self._count()
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
                self._raise_count()
                self._forget()
            execute("COMMIT")
        except BaseException:
            if self._database.connection.in_transaction:
                execute("ROLLBACK")
            raise
        return added

    def _count(self) -> int:
        """Return the number of uses, compared with the head file; call it inside the transaction."""
        row = self._database.connection.execute("SELECT expires FROM used WHERE decision_id = ?", (_USES,)).fetchone()
        uses, (head, _) = 0 if row is None else int(row[0]), self._head.read()
        # INVARIANT I12: a store that is not the newest has forgotten what was used.
        if head is None and row is not None:
            raise AuditError(
                f"`{self._path}` has recorded {uses} uses and no head file, expected `{self._head.path}`: that was "
                "removed, or the store is a copy; nothing was used",
                help=_HELP,
            )
        if head is not None and uses < head.generation:
            raise AuditError(
                f"`{self._path}` has recorded {uses} uses, expected at least {head.generation}, as head file "
                f"`{self._head.path}` says: an older copy was put back; nothing was used",
                help=_HELP,
            )
        if head is None:
            # Before the first commit: a crash between the two leaves no count without its head file.
            self._head.write(Head(log=os.path.abspath(self._path)), 0)
        return uses

    def _raise_count(self) -> None:
        self._uses += 1
        self._database.connection.execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (_USES, self._uses))

    def _forget(self) -> None:
        execute = self._database.connection.execute
        ids = "SELECT count(*) FROM used WHERE decision_id NOT LIKE '\n%'"
        count = execute(ids).fetchone()[0] if self._may_be_full() else 0
        # A quarter at a time, so that counting and sorting are rare.
        surplus = count - self._min_remembered
        if surplus <= self._min_remembered // 4:
            return
        rows = execute(
            "SELECT decision_id, expires FROM used WHERE decision_id != ? AND decision_id NOT LIKE '\n%' "
            "AND expires < ? ORDER BY expires LIMIT ?",
            (_FORGOTTEN, max(ALWAYS, min(self._clock() - _DAY, NEVER)), surplus),
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
        self._head.close()

    def __enter__(self) -> UsedDecisions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_head(target: str, state_dir: str | os.PathLike[str] | None) -> HeadFile:
    """Open the head file of a store; refuse a store that is gone.

    In a folder of its own a head file is named by the whole path, because stores of several folders may meet there.
    """
    real = os.path.realpath(target)
    folder, name = os.path.split(real)
    location = HeadLocation(folder, name) if state_dir is None else HeadLocation(os.fspath(state_dir), real)
    head_file = HeadFile.open(location, _ORIGIN, help=_HELP)
    try:
        head, _ = head_file.read()
        if head is not None and head.generation and not os.path.lexists(target):
            raise AuditError(
                f"`{target}` is gone, expected the {head.generation} uses that head file `{head_file.path}` names",
                help=_HELP,
            )
    except BaseException:
        head_file.close()
        raise
    return head_file


def _refuse_store(target: str, problem: BaseException) -> None:
    if isinstance(problem, sqlite3.Error | OSError):
        raise AuditError(f"single-use store `{target}`: {reason_of_error(problem)}") from problem
    if isinstance(problem, AuditError):
        raise AuditError(f"single-use store {problem.message}", help=problem.help) from problem


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
