"""A log store in one SQLite file; durable, and shared by any number of processes.

Crash story, in the order of the writes:

1. Creation. The file is made (mode 0600, never over another), the schema and the header are written in one
   transaction, then the directory is synced. A crash before the end leaves no file, an empty one or a database
   without a table; the next open starts again. No entry can have been acknowledged yet.
2. Appending. `BEGIN IMMEDIATE` takes the one write lock, so no other process can append between reading the last row
   and adding to it. The rows and the checkpoint that signs the tree with them go into one transaction. `COMMIT` in
   WAL mode with `synchronous=FULL` writes the frames, each under a running checksum, and syncs the WAL before it
   returns. Only then is a receipt released. A crash before the sync leaves frames without a valid commit frame:
   SQLite drops them at the next open, and nothing had been acknowledged. A crash after it leaves the rows and their
   checkpoint complete; if the receipt had not yet been released, the log holds one entry that was never acknowledged.
3. Moving the WAL into the file. SQLite syncs the WAL first, then the file, and only then reuses the WAL. A crash
   between leaves both; the next open replays.
4. Before each append the files must be those that were opened, and after it the path must lead to them
   (`location.py`), because entries in a deleted file would be in no log.
5. A commit that fails (disk full, I/O error) is rolled back. The checkpoint signed for it was never released; the
   next append signs another tree of that size, which only a reader of dead WAL frames could set beside it.

The schema is compared text for text: a trigger or a view that someone added is refused, not run.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

from msgspec import structs

from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import CLAIMS_SCHEMA, SqliteClaims
from policyguard.audit.stores.location import LogLocation, check_writable_location
from policyguard.errors import AuditError, ConfigurationError
from policyguard.fs import open_databases
from policyguard.fs.open_databases import BUSY_TIMEOUT_S, reason_of_error
from policyguard.fs.private_files import WAL

APPLICATION_ID = 0x70676C67
"""`pglg`, in the SQLite header at offset 68: `file` and we can tell a log from another database."""

FORMAT = "policyguard log v1"

PAGE_BYTES = 8192
"""The page size of new files. Three entries of about 2,200 bytes fill a page; 4,096 would waste nearly half."""

_SCHEMA = (
    "CREATE TABLE header (id INTEGER PRIMARY KEY CHECK (id = 1), format TEXT NOT NULL, origin TEXT NOT NULL)",
    "CREATE TABLE entries (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, hashes BLOB NOT NULL, checkpoint BLOB)",
)
_SCHEMAS = (_SCHEMA, (*_SCHEMA, CLAIMS_SCHEMA))
"""Known schemas; version 0.1.0 wrote logs without claims."""
_WAITED_S = 0.001
"""A lock that took longer was held by another process, which may have moved the file."""

_INSERT = "INSERT INTO entries (idx, leaf, hashes, checkpoint) VALUES (?, ?, ?, ?)"
_LAST = "SELECT idx, x'', hashes, checkpoint FROM entries ORDER BY idx DESC LIMIT 1"
_READ = "SELECT idx, leaf, hashes, checkpoint FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"


class SqliteStore:
    """An open log file. Close it, or use it in a `with` block."""

    def __init__(
        self, path: str, connection: sqlite3.Connection, origin: str, location: LogLocation | None, copy: Any = None
    ) -> None:
        self.path = path
        self.real_path = os.path.abspath(path)
        self._location = location
        self._copy = copy
        self._connection = connection
        self._execute = connection.execute
        self._origin = origin
        self.claims = SqliteClaims(path, connection)
        self._process = os.getpid()
        self._held = open_databases.hold(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], origin: str) -> SqliteStore:
        """Create the store in a new file of mode 0600; an existing file is never overwritten.

        Raises:
            AuditError: the file exists, or cannot be created.
        """
        target = os.fspath(path)
        if not _make_file(target):
            raise AuditError(f"log `{target}` exists already, expected a new path")
        return cls.open(target, origin=origin, create_as=origin)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        origin: str | None = None,
        create_as: str | None = None,
        read_only: bool = False,
        wait_s: float = BUSY_TIMEOUT_S,
    ) -> SqliteStore:
        """Open the log store in this file.

        Args:
            path: the file.
            origin: the log's expected name; another name in the file is refused.
            create_as: make the log under this name if there is no file, or one that a crash during creation left.
            read_only: for auditors; works on a read-only medium, and for an account that may not write, too.
            wait_s: how long an append waits for other processes.

        Raises:
            AuditError: no such file, not a regular file, not our log, damaged, not writable, or readable by others.
            ConfigurationError: the file lies on a file system whose locks SQLite cannot rely on.
        """
        target = os.fspath(path)
        with open_databases.opening(target):
            return cls._open(target, origin, create_as, read_only=read_only, wait_s=wait_s)

    @classmethod
    def _open(
        cls, target: str, origin: str | None, create_as: str | None, *, read_only: bool, wait_s: float
    ) -> SqliteStore:
        size = _size_of(target)
        if not read_only:
            check_writable_location(target)
        if size is None and create_as is not None:
            _make_file(target)
        elif not size and create_as is None:
            raise AuditError(f"log `{target}` " + ("does not exist" if size is None else "is empty"))
        connection, copy, location = None, None, None
        try:
            before = os.stat(target)
            if read_only:
                # Writers, and so hooks, do not pay for the import.
                connection, copy = import_module("policyguard.audit.stores.reading").connect_reader(target, _connect)
            else:
                connection = _connect(target, "rw", wait_s)
            stored_origin = _prepare(target, connection, None if read_only else create_as, is_writer=not read_only)
            if origin is not None and stored_origin != origin:
                raise AuditError(f"log `{target}` is of origin `{stored_origin}`, expected `{origin}`")
            if not read_only:
                location = LogLocation(target, before)
        except (sqlite3.Error, OSError, AuditError, ConfigurationError) as problem:
            if connection is not None:
                connection.close()
            if copy is not None:
                copy.cleanup()
            if isinstance(problem, AuditError):
                raise
            _refuse(target, problem)
        return cls(target, connection, stored_origin, location, copy)

    @property
    def origin(self) -> str:
        return self._origin

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        execute, location = self._execute, self._location
        if os.getpid() != self._process:
            raise open_databases.forked(self.path)
        try:
            if location is not None:
                location.check()
            begun = time.monotonic()
            execute("BEGIN IMMEDIATE")
            if location is not None and time.monotonic() > begun + _WAITED_S:
                location.check()
            last = execute(_LAST).fetchone()
            rows = grow(last and _row(last))
            if len(rows) == 1:
                execute(_INSERT, structs.astuple(rows[0]))
            else:
                self._connection.executemany(_INSERT, map(structs.astuple, rows))
            stored = execute(_LAST).fetchone()
            # INVARIANT I12: a trigger that somebody added to the file does not take away what is acknowledged.
            if rows and (stored is None or (stored[0], stored[2]) != (rows[-1].entry, rows[-1].hashes)):
                raise AuditError(f"log `{self.path}`: an entry was not stored as it was written; nothing was released")
            execute("COMMIT")
            if location is not None:
                # INVARIANT I12: what went into a file that was taken away meanwhile is not acknowledged.
                location.check_written()
        except sqlite3.Error as problem:
            self._roll_back()
            _refuse(self.path, problem)
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def held_still(self) -> Iterator[Row | None]:
        """Hold the write lock with the WAL emptied into the file; yield the last row.

        Raises:
            AuditError: another process reads or writes the log.
        """
        try:
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._execute("BEGIN IMMEDIATE")
            if os.stat(os.path.realpath(self.path) + WAL).st_size:
                self._roll_back()
                raise AuditError(f"log `{self.path}` is in use by another process", help="stop it, then try again")
            last = self._execute(_LAST).fetchone()
        except sqlite3.Error as problem:
            self._roll_back()
            _refuse(self.path, problem)
        try:
            yield last and _row(last)
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # A rollback that fails leaves a dead transaction; closing the file drops it, and the next use says so.
            self._connection.close()

    def read(self, start: int, stop: int) -> Iterator[Row]:
        try:
            for row in self._execute(_READ, (start, stop)):
                yield _row(row)
        except sqlite3.Error as problem:
            _refuse(self.path, problem)

    def last(self) -> Row | None:
        if self._location is not None:
            self._location.check()
        try:
            row = self._execute(_LAST).fetchone()
        except sqlite3.Error as problem:
            _refuse(self.path, problem)
        return None if row is None else _row(row)

    @property
    def has_head(self) -> bool:
        """True if the log was ever written with a head file; logs of version 0.1.0 were not."""
        return bool(self._execute("PRAGMA user_version").fetchone()[0])

    def mark_head(self) -> None:
        """Record in the file that the log has a head file from now on."""
        try:
            self._execute("PRAGMA user_version=1")
        except sqlite3.Error as problem:
            _refuse(self.path, problem)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        if os.getpid() != self._process:
            return
        self._connection.close()
        if self._location is not None:
            self._location.close()
            self._location = None
        open_databases.let_go(self._held)
        self._held = None
        if self._copy is not None:
            self._copy.cleanup()

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_file(target: str) -> bool:
    """Create an empty file of mode 0600; return False if a file exists."""
    try:
        return open_databases.make_file(target)
    except OSError as problem:
        raise AuditError(f"log `{target}` cannot be created: {reason_of_error(problem)}") from None


def _prepare(target: str, connection: sqlite3.Connection, create_as: str | None, *, is_writer: bool) -> str:
    """Read the log's name; in an empty database that may be created, write the schema first."""
    if create_as is not None and _is_blank(connection):
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        open_databases.set_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have created the log while we waited for the lock.
        if _is_blank(connection):
            for statement in _SCHEMAS[-1]:
                connection.execute(statement)
            connection.execute("INSERT INTO header (id, format, origin) VALUES (1, ?, ?)", (FORMAT, create_as))
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("PRAGMA user_version=1")
        connection.execute("COMMIT")
        # Only a new log pays for this import.
        from policyguard.fs.write import sync_folder

        sync_folder(os.path.dirname(target) or ".")
    stored_origin = _read_header(target, connection, is_writer=is_writer)
    if is_writer:
        _probe(connection)
    return stored_origin


def _probe(connection: sqlite3.Connection) -> None:
    """Check at opening, instead of at the first decision, that the log can be written.

    A busy log passes: a decision waits for it.
    """
    wait_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute("PRAGMA busy_timeout=0")
    try:
        # Takes the write lock and changes nothing; `BEGIN IMMEDIATE` only reads where the file cannot be written.
        connection.execute("DELETE FROM entries WHERE 0")
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
    finally:
        connection.execute(f"PRAGMA busy_timeout={wait_ms}")


def _is_blank(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return bool(tables == 0 and connection.execute("PRAGMA application_id").fetchone()[0] == 0)


def _connect(target: str, mode: str, wait_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    # An absolute path needs no current folder, which may be gone.
    name = target if os.path.isabs(target) else os.path.join(os.getcwd(), target)
    for character in "%?#":
        name = name.replace(character, f"%{ord(character):02x}")
    name = f"file:{name}?{mode if '=' in mode else 'mode=' + mode}"
    connection = sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False, timeout=wait_s)
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        # INVARIANT I12: COMMIT returns after the WAL is synced; nothing is acknowledged before.
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _read_header(target: str, connection: sqlite3.Connection, *, is_writer: bool) -> str:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise AuditError(
            f"log `{target}` is another kind of SQLite database",
            # A log that was moved while a guard had it open leaves its entries in the WAL of the old name.
            help=None
            if application_id
            else "if it was moved, move it back to its `-wal` file, and `policyguard audit rotate`",
        )
    # INVARIANT I13: a schema that is not ours to the letter is refused: triggers and views could rewrite entries.
    schema = tuple(sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid"))
    header = connection.execute("SELECT format, origin FROM header").fetchall() if schema in _SCHEMAS else []
    if len(header) != 1 or header[0][0] != FORMAT or not isinstance(header[0][1], str):
        raise AuditError(f"log `{target}` has another schema or header than `{FORMAT}`")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    # A connection that treats the file as immutable reports no WAL mode, whatever the file says.
    if mode != "wal" and (is_writer or not _has_wal_mark(target)):
        raise AuditError(f"log `{target}` is not in WAL mode, expected the mode it was created with")
    return str(header[0][1])


def _has_wal_mark(target: str) -> bool:
    """Return True if the file header says WAL mode: bytes 18 and 19, the write and read version."""
    # Closing this drops the process's locks on the file: it is only asked of one on which SQLite takes none.
    with open(target, "rb") as file:
        file.seek(18)
        return file.read(2) == b"\x02\x02"


def _row(row: tuple[object, ...]) -> Row:
    index, leaf, hashes, checkpoint = row
    if not (
        type(index) is int
        and type(leaf) is bytes
        and type(hashes) is bytes
        and (checkpoint is None or type(checkpoint) is bytes)
        and len(hashes) % 32 == 0
        and hashes
    ):
        entry = index if type(index) is int else None
        raise AuditError(f"entry {entry} has malformed columns, expected the bytes that the log wrote", entry=entry)
    return Row(index, leaf, hashes, checkpoint)


def is_blank(path: str | os.PathLike[str]) -> bool:
    """Return True if the path has no file or an empty one; raises `AuditError` for anything but a regular file."""
    return not _size_of(os.fspath(path))


def _size_of(target: str) -> int | None:
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise AuditError(f"log `{target}` cannot be read: {reason_of_error(problem)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise AuditError(f"log `{target}` is not a regular file")
    return status.st_size


def _refuse(path: str, problem: Exception) -> NoReturn:
    reason = reason_of_error(problem)
    help = "another process writes to it for long: end that, or try again" if reason == "database is locked" else None
    raise AuditError(f"log `{path}`: {reason}; nothing was added", help=help) from problem
