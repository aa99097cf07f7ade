"""A log file column by column and mode by mode: what a writer and a reader take, and what one step away is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policyguard.audit.log import Log
from policyguard.audit.stores import Row, reading
from policyguard.audit.stores.claims import Claim
from policyguard.audit.stores.memory import MemoryClaims
from policyguard.audit.stores.sqlite import SqliteStore, _connect, _probe
from policyguard.audit.stores.used import UsedDecisions
from policyguard.errors import AuditError
from policyguard.fs import open_databases
from tests.attest_lab import LOG_KEY, NOW, ORIGIN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of three entries."""
    path = tmp_path / "log.db"
    with Log.open(path, LOG_KEY, ORIGIN, create=True) as log:
        log.append_many((b"1", b"2", b"3"))
    return path


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "column",
    ["leaf = 'text'", "leaf = 1", "hashes = 'text'", "hashes = x''", "hashes = zeroblob(33)", "checkpoint = 'text'"],
)
def test_a_column_that_the_log_did_not_write_is_refused(path: Path, column: str) -> None:
    """The operator of a log may have edited it: every reader names the entry."""
    change(path, f"UPDATE entries SET {column} WHERE idx = 2")
    with SqliteStore.open(path, read_only=True) as store:
        assert [row.leaf for row in store.read(0, 2)] == [b"1", b"2"]
        with pytest.raises(AuditError, match="entry 2 has malformed columns") as caught:
            list(store.read(0, 3))
    assert caught.value.entry == 2


HEADERS = [
    ("DELETE FROM header",),
    ("UPDATE header SET format = 'policyguard log v2'",),
    ("UPDATE header SET origin = x'6c6162'",),
    ("ALTER TABLE entries ADD COLUMN more TEXT",),
    ("CREATE VIEW more AS SELECT 1",),
]


@pytest.mark.parametrize("statements", HEADERS)
@pytest.mark.parametrize("read_only", [False, True])
def test_another_schema_or_header_is_refused(path: Path, statements: tuple[str, ...], read_only: bool) -> None:
    change(path, *statements)
    with pytest.raises(AuditError, match="has another schema or header than `policyguard log v1`"):
        SqliteStore.open(path, read_only=read_only)


@pytest.mark.parametrize("read_only", [False, True])
def test_another_application_or_mode_is_refused(path: Path, read_only: bool) -> None:
    """In another mode than WAL a commit is not what the crash story says."""
    change(path, "PRAGMA journal_mode=DELETE")
    with pytest.raises(AuditError, match="is not in WAL mode"):
        SqliteStore.open(path, read_only=read_only)
    change(path, "PRAGMA journal_mode=WAL", "PRAGMA application_id=1")
    with pytest.raises(AuditError, match="is another kind of SQLite database"):
        SqliteStore.open(path, read_only=read_only)


def test_a_missing_an_empty_and_a_foreign_file_are_three_refusals(tmp_path: Path, path: Path) -> None:
    with pytest.raises(AuditError, match="does not exist"):
        SqliteStore.open(tmp_path / "none.db")
    (tmp_path / "empty.db").touch(0o600)
    with pytest.raises(AuditError, match="is empty"):
        SqliteStore.open(tmp_path / "empty.db")
    with pytest.raises(AuditError, match=r"is of origin `lab.example/decisions`, expected `other`"):
        SqliteStore.open(path, origin="other")
    SqliteStore.open(path, origin=ORIGIN).close()
    SqliteStore.open(tmp_path / "empty.db", create_as=ORIGIN).close()
    # A database that is not blank is never made a log.
    change(tmp_path / "foreign.db", "CREATE TABLE t (x)")
    change(tmp_path / "marked.db", "PRAGMA application_id=1", "CREATE TABLE t (x)", "DROP TABLE t")
    for name in ("foreign.db", "marked.db"):
        (tmp_path / name).chmod(0o600)
        with pytest.raises(AuditError, match="is another kind of SQLite database"):
            SqliteStore.open(tmp_path / name, create_as=ORIGIN)


def test_a_forked_child_neither_writes_nor_closes_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parent's locks are not its own, and closing would drop them."""
    with SqliteStore.open(path) as store:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(AuditError, match="when this process was forked"):
                store.append(lambda _: ())
            store.close()
        last = store.last()
    assert last is not None
    assert last.entry == 2
    with pytest.raises(AuditError, match="closed"):
        store.last()


@contextlib.contextmanager
def reader(path: Path) -> Iterator[None]:
    """Another process that reads the log as it was, while entries are added."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM entries").fetchone()
        yield


def test_a_log_in_use_is_not_held_still(path: Path) -> None:
    """Part of it would stay in a WAL that a rotation leaves behind."""
    with Log.open(path, LOG_KEY, ORIGIN, wait_s=0.01) as log, reader(path):
        log.append(b"4")
        with pytest.raises(AuditError, match="is in use by another process"), log.held_still():
            raise AssertionError("it was held")
        assert log.append(b"5").index == 4


def test_an_entry_added_just_before_the_lock_is_not_left_in_the_wal(path: Path) -> None:
    """Between emptying the WAL and taking the lock another process may append."""
    with Log.open(path, LOG_KEY, ORIGIN) as log, Log.open(path, LOG_KEY, ORIGIN) as other:
        store = log.store
        assert isinstance(store, SqliteStore)
        execute = store._execute

        def racing(statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "BEGIN IMMEDIATE":
                other.append(b"4")
            return execute(statement, *values)

        store._execute = racing
        with pytest.raises(AuditError, match="is in use by another process"), log.held_still():
            raise AssertionError("it was held")


def test_a_locked_log_opens_and_a_log_that_cannot_be_written_does_not(path: Path) -> None:
    """Who is about to write waits only then; a hook that could log nothing says so at once."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store = SqliteStore.open(path, wait_s=0.01)
        with pytest.raises(AuditError, match="locked"):
            store.append(lambda _: ())
        other.execute("ROLLBACK")
        store.append(lambda _: ())
        store.close()


def test_a_failed_transaction_leaves_no_lock(path: Path) -> None:
    """What `grow` raises is passed on, and the next append goes on, here and elsewhere."""

    def fail(_: Row | None) -> list[Row]:
        raise KeyboardInterrupt

    with SqliteStore.open(path) as store, SqliteStore.open(path, wait_s=0) as other:
        with pytest.raises(KeyboardInterrupt):
            store.append(fail)
        other.append(lambda _: ())


def test_a_closed_store_says_so_and_never_that_it_is_empty(path: Path) -> None:
    """What a reader cannot read is an error: no entries would be another answer."""
    store = SqliteStore.open(path)
    store.close()
    with pytest.raises(AuditError, match="closed"):
        list(store.read(0, 1))
    with pytest.raises(AuditError, match="closed"):
        store.append(lambda _: ())
    with pytest.raises(AuditError, match="closed"):
        store.mark_head()
    with pytest.raises(AuditError, match="closed"), store.held_still():
        raise AssertionError("it was held")


def test_a_file_put_in_place_of_an_open_log_takes_no_entry(path: Path) -> None:
    """A copy, byte for byte, of the log and of its other files: readers of that path would miss the entry."""
    with SqliteStore.open(path) as store:
        copy = path.with_name("copy.db")
        shutil.copyfile(path, copy)
        copy.rename(path)
        with pytest.raises(AuditError, match=r"log file `\S*log.db` was replaced.*; nothing was added"):
            store.append(lambda _: ())


@pytest.mark.parametrize("mode", ["rw", "ro"])
def test_a_log_that_cannot_be_written_is_refused_when_it_is_opened(path: Path, mode: str) -> None:
    """Not at the first decision. The twin can be written."""
    with contextlib.closing(_connect(str(path), mode)) as connection:
        if mode == "rw":
            _probe(connection)
            return
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            _probe(connection)


def test_two_entries_of_one_log_take_a_name_once() -> None:
    """Also in memory, where tests and trials keep their logs. The twin replaces."""
    claims = MemoryClaims()
    claims.add("approval", Claim("d1", "", 0, ""))
    with pytest.raises(AuditError, match="approval `d1` is taken already"):
        claims.add("approval", Claim("d1", "", 1, ""))
    claims.add("reservation", Claim("d1", "", 1, ""))
    claims.replace("approval", Claim("d1", "", 2, ""))
    assert claims.find("approval", ("d1", "d2")) == {"d1": Claim("d1", "", 2, "")}


# ---- readers who may not write


def refusing_connect(code: int, wal: bool) -> Any:
    """What SQLite says to an account that may not write the folder; any other mode opens as ever."""

    def connect(target: str, mode: str) -> sqlite3.Connection:
        if mode == "ro":
            problem = sqlite3.OperationalError("unable to open database file")
            problem.sqlite_errorcode = code
            raise problem
        assert (mode == "rw") is wal
        return _connect(target, mode)

    return connect


@pytest.mark.parametrize("has_wal", [False, True])
def test_a_reader_who_may_not_write_sees_every_entry(path: Path, has_wal: bool) -> None:
    """Without a WAL the file is complete; with one, both are copied."""
    with contextlib.ExitStack() as stack:
        if has_wal:
            stack.enter_context(Log.open(path, LOG_KEY, ORIGIN)).append(b"4")
        connection, folder = reading.connect_reader(str(path), refusing_connect(sqlite3.SQLITE_CANTOPEN, has_wal))
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        assert (count, folder is not None) == (4 if has_wal else 3, has_wal)
        connection.close()
        if folder is not None:
            folder.cleanup()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT])
def test_a_damaged_or_locked_log_is_not_read_around(path: Path, code: int) -> None:
    """As immutable it might be read without what its WAL would change."""
    with pytest.raises(sqlite3.OperationalError):
        reading.connect_reader(str(path), refusing_connect(code, False))


def test_a_log_that_is_written_all_the_time_is_not_copied_in_halves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each copy has to be of one moment; the folder of the attempts is removed."""
    monkeypatch.setattr(reading, "_TRIES", 2)
    monkeypatch.setattr(reading, "_PAUSE_S", 0)
    copies: list[Path] = []
    copyfile = shutil.copyfile

    def slow(source: str, target: str) -> None:
        copyfile(source, target)
        copies.append(Path(target))
        os.utime(source, ns=(NOW + len(copies), NOW + len(copies)))

    monkeypatch.setattr(shutil, "copyfile", slow)
    with Log.open(path, LOG_KEY, ORIGIN) as log:
        log.append(b"4")
        with pytest.raises(AuditError, match="is written while it is copied for reading"):
            reading.connect_reader(str(path), refusing_connect(sqlite3.SQLITE_CANTOPEN, True))
    assert len(copies) == 4
    assert not copies[0].parent.exists()


def test_a_log_is_opened_from_a_folder_that_is_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook whose current folder was removed still logs, as the path of the log is absolute."""
    gone = path.with_name("gone")
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    SqliteStore.open(path).close()


def test_a_log_that_cannot_be_made_says_why_in_the_words_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"cannot be created: no such file or directory$"):
        SqliteStore.create(tmp_path / "none" / "log.db", ORIGIN)


# ---- single-use stores


def test_a_forked_child_uses_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with UsedDecisions.open(tmp_path / "used.db") as used:
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            with pytest.raises(AuditError, match="when this process was forked"):
                used.use("d", NOW)
        assert used.use("d", NOW)


def test_ids_are_forgotten_a_quarter_at_a_time(tmp_path: Path) -> None:
    """With room for four, the fifth is remembered too; the sixth ends the two that expired first."""
    now = [0]
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: now[0], min_remembered=4) as used:
        assert all(used.use(f"d{number}", number + 1) for number in range(4))
        now[0] = 3 * 86_400 * 10**9
        for name, remembered in (("e0", {"d0", "d1", "d2", "d3", "e0"}), ("e1", {"d2", "d3", "e0", "e1", ""})):
            assert used.use(name, now[0])
            rows = used._database.connection.execute("SELECT decision_id FROM used")
            assert {decision_id for (decision_id,) in rows} == remembered | {"\nuses"}


def test_a_store_of_used_decisions_is_closed_once(tmp_path: Path) -> None:
    """Two stores on one file share a connection: closing one of them twice does not close the other."""
    open_before = dict(open_databases._OPEN)
    one, two = UsedDecisions.open(tmp_path / "used.db"), UsedDecisions.open(tmp_path / "used.db")
    assert len(open_databases._OPEN) == len(open_before) + 1
    one.close()
    one.close()
    assert two.use("d", NOW)
    two.close()
    assert open_before == open_databases._OPEN


def test_a_decision_is_not_named_like_a_revocation_list(tmp_path: Path) -> None:
    """Its expiry would be taken for a sequence; and a list does not go back, also in a store that forgets."""
    now = [0]
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: now[0], min_remembered=4) as used:
        assert used.remember_list(("a",), 5) == 5
        with pytest.raises(AuditError, match="found the name of a revocation list"):
            used.use("\nrevocation list of a", NOW)
        assert used.remember_list(("a", "b"), 4) == 5
        assert used.remember_list(("b",), 1) == 1
        now[0] = 3 * 86_400 * 10**9
        assert all(used.use(f"d{number}", number + 1) for number in range(9))
        assert used.remember_list(("a",), 4) == 5
