"""The log: receipts that hold, one order for all threads and processes, nothing acknowledged before it is durable."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.audit.check import check_log
from policyguard.audit.checkpoint import open_checkpoint
from policyguard.audit.log import Log
from policyguard.audit.merkle import check_consistency, leaf_hash, root_from_inclusion
from policyguard.audit.proofs import latest_note, prove_consistency, prove_inclusion
from policyguard.audit.receipt import Receipt, check_inclusion
from policyguard.audit.stores import Row
from policyguard.audit.stores.interface import Store
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.audit.stores.used import UsedDecisions
from policyguard.errors import AuditError, ConfigurationError
from tests.attest_lab import LOG_KEY, ORIGIN, STRANGER

MakeStore = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """A function that opens the same store again each time it is called."""
    if request.param == "sqlite":
        return lambda: SqliteStore.open(tmp_path / "log.db", create_as=ORIGIN)
    store = MemoryStore(ORIGIN)
    return lambda: store


def holds(log: Log, leaf: bytes, receipt: Receipt) -> None:
    check_inclusion(leaf_hash(leaf), receipt, open_checkpoint(receipt.checkpoint, (log.verifier,)))


def test_every_receipt_holds(make_store: MakeStore) -> None:
    """Whatever groups the entries came in, each receipt leads to the checkpoint it names."""
    log = Log.open(make_store(), LOG_KEY)
    for count in (1, 1, 3, 1, 8, 2, 17, 1):
        leaves = [b"%d of %d after %d" % (n, count, log.size) for n in range(count)]
        first = log.size
        receipts = log.append_many(leaves)
        assert [receipt.index for receipt in receipts] == list(range(first, first + count))
        for leaf, receipt in zip(leaves, receipts, strict=True):
            holds(log, leaf, receipt)
    assert log.append_many([]) == ()
    assert check_log(make_store(), (log.verifier,)).checkpoint.size == log.size == 34


def test_log_goes_on_where_it_ended(make_store: MakeStore) -> None:
    """A log opened again appends after the last entry, and the new tree begins with the old."""
    first = Log.open(make_store(), LOG_KEY).append_many([b"a", b"b", b"c"])[-1]
    log = Log.open(make_store(), LOG_KEY)
    second = log.append(b"d")
    store = make_store()
    old, new = (open_checkpoint(each.checkpoint, (log.verifier,)) for each in (first, second))
    assert (old.size, new.size, second.index) == (3, 4, 3)
    check_consistency(3, old.root, 4, new.root, prove_consistency(store, 3))


def test_proofs_are_made_from_the_store_alone(make_store: MakeStore) -> None:
    """Every entry of every size has a receipt under the checkpoint of that size, without any key."""
    log = Log.open(make_store(), LOG_KEY)
    notes = [log.append(b"%d" % n).checkpoint for n in range(12)]
    store = make_store()
    assert latest_note(store) == notes[-1]
    for size, note in enumerate(notes, 1):
        for index in range(size):
            holds(log, b"%d" % index, prove_inclusion(store, index, note))
    with pytest.raises(AuditError, match="entry 12 is not in the log, expected 0 to 11"):
        prove_inclusion(store, 12)
    with pytest.raises(AuditError, match="log has 12 entries, expected at least 13"):
        prove_consistency(store, 13)


def test_another_origin_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(AuditError, match=r"log is of origin `lab.example/decisions`, expected `other`"):
        Log.open(make_store(), LOG_KEY, "other")
    Log.open(make_store(), LOG_KEY, ORIGIN)


def test_another_key_does_not_continue_the_log(make_store: MakeStore) -> None:
    """Invariant I13: a key signs only on top of a tree that it signed itself."""
    Log.open(make_store(), LOG_KEY).append(b"a")
    with pytest.raises(AuditError, match="entry 0: checkpoint carries no signature of a trusted log"):
        Log.open(make_store(), STRANGER)


def test_threads_share_transactions_and_order(make_store: MakeStore) -> None:
    """Many threads at once: every entry once, every receipt holds, and the log adds up."""
    log = Log.open(make_store(), LOG_KEY)
    receipts: dict[bytes, Receipt] = {}
    start = threading.Barrier(8)

    def work(name: int) -> None:
        start.wait()
        for n in range(12):
            leaf = b"%d/%d" % (name, n)
            receipts[leaf] = log.append(leaf)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.index for receipt in receipts.values()) == list(range(96))
    for leaf, receipt in receipts.items():
        holds(log, leaf, receipt)
    assert check_log(make_store(), (log.verifier,)).checkpoint.size == 96


class FailingStore(MemoryStore):
    """A store whose disk is full while `is_full`."""

    is_full = False

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        if self.is_full:
            raise AuditError("no space left")
        super().append(grow)


def test_failed_append_acknowledges_nothing_and_harms_nothing() -> None:
    """The error reaches the caller, the log is as before, and the next append works."""
    store = FailingStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append(b"a")
    store.is_full = True
    with pytest.raises(AuditError, match="no space left"):
        log.append(b"b")
    store.is_full = False
    receipt = log.append(b"c")
    assert receipt.index == 1
    holds(log, b"c", receipt)


def test_shrinking_log_is_noticed(make_store: MakeStore) -> None:
    """A log that lost entries we have seen is not continued."""
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append_many([b"a"])
    log.append_many([b"b"])
    store.rows.pop()
    with pytest.raises(AuditError, match="log shrank or changed: it has 1 entries, expected 2"):
        log.append(b"c")


# The SQLite file


def test_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    """The log file has mode 0600, and an existing file is never taken for a new log."""
    path = tmp_path / "log.db"
    SqliteStore.create(path, ORIGIN).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(AuditError, match="exists already, expected a new path"):
        SqliteStore.create(path, ORIGIN)


def test_path_opens_log_and_default_origin_names_the_key(tmp_path: Path) -> None:
    with Log.open(tmp_path / "log.db", LOG_KEY, create=True) as log:
        log.append(b"a")
        assert log.verifier.name == f"policyguard/{LOG_KEY.keyid[:16]}"
    with Log.open(tmp_path / "log.db", LOG_KEY) as log:
        assert log.size == 1


def test_missing_log_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="does not exist"):
        Log.open(tmp_path / "log.db", LOG_KEY)
    with pytest.raises(AuditError, match="cannot be created: no such file or directory"):
        Log.open(tmp_path / "nowhere" / "log.db", LOG_KEY, create=True)
    with pytest.raises(ConfigurationError, match="found the log name `a b`"):
        Log.open(tmp_path / "log.db", LOG_KEY, "a b", create=True)
    assert not list(tmp_path.iterdir())


def blank_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


@pytest.mark.parametrize("leave", [lambda path: path.touch(0o600), blank_database], ids=["no bytes", "no tables"])
def test_file_of_a_crashed_creation_is_taken_up(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    """A crash between making the file and writing the schema leaves a blank file; the next open starts again."""
    leave(tmp_path / "log.db")
    (tmp_path / "log.db").chmod(0o600)
    with Log.open(tmp_path / "log.db", LOG_KEY, create=True) as log:
        assert log.append(b"a").index == 0


def page_bytes(path: Path) -> int:
    """Bytes 16 and 17 of an SQLite header."""
    return int.from_bytes(path.read_bytes()[16:18], "big")


def test_pages_of_any_size_are_read_and_continued(tmp_path: Path) -> None:
    """New files have the pages that entries fill best; a file with others is the same log."""
    blank_database(tmp_path / "small.db")
    (tmp_path / "small.db").chmod(0o600)
    for name, size in (("small.db", 4096), ("new.db", 8192)):
        with Log.open(tmp_path / name, LOG_KEY, ORIGIN, create=True) as log:
            log.append_many([b"x" * 2200] * 9)
        with Log.open(tmp_path / name, LOG_KEY) as log:
            assert log.append(b"y").index == 9
        with SqliteStore.open(tmp_path / name, read_only=True) as store:
            assert check_log(store, (log.verifier,)).checkpoint.size == 10
        assert page_bytes(tmp_path / name) == size


def test_log_is_created_once_by_all_who_come_first(tmp_path: Path) -> None:
    """Eight openers of a log that is not there yet make one log, and each of them appends to it."""
    start = threading.Barrier(8)
    problems: list[BaseException] = []

    def work(name: int) -> None:
        try:
            start.wait()
            with Log.open(tmp_path / "log.db", LOG_KEY, ORIGIN, create=True) as log:
                log.append(b"%d" % name)
        except BaseException as problem:  # noqa: BLE001 - shown by the assertion below
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with Log.open(tmp_path / "log.db", LOG_KEY) as log:
        assert log.size == 8


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()


def with_trigger(path: Path) -> None:
    SqliteStore.create(path, ORIGIN).close()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON entries BEGIN UPDATE entries SET leaf = x'00'; END")
    connection.close()


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def directory(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def cut(path: Path) -> None:
    with Log.open(path, LOG_KEY, create=True) as log:
        log.append_many([b"x" * 3000] * 20)
    os.truncate(path, 8192 + 100)


@pytest.mark.parametrize(
    ("spoil", "wording"),
    [
        (foreign, "is another kind of SQLite database"),
        (with_trigger, "has another schema or header"),
        (garbage, "file is not a database"),
        (directory, "is not a regular file"),
        (fifo, "is not a regular file"),
        (cut, "malformed|disk image|missing|add up"),
    ],
    ids=["another application's", "a trigger added", "no database", "a folder", "a FIFO", "cut off"],
)
def test_file_that_is_no_log_of_ours_is_refused(tmp_path: Path, spoil: Callable[[Path], None], wording: str) -> None:
    """Invariant I13: refused with one line, and left alone."""
    path = tmp_path / "log.db"
    spoil(path)
    if path.is_file():
        path.chmod(0o600)
    with pytest.raises(AuditError, match=wording) as caught:
        Log.open(path, LOG_KEY, create=True)
    assert "\n" not in str(caught.value)


def test_full_disk_acknowledges_nothing(tmp_path: Path) -> None:
    """A database that may not grow refuses the entry; what was acknowledged before stays and adds up."""
    store = SqliteStore.create(tmp_path / "log.db", ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append(b"a")
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(AuditError, match="database or disk is full; nothing was added"):
        log.append(b"x" * 100_000)
    receipt = log.append(b"small")
    holds(log, b"small", receipt)
    assert check_log(store, (log.verifier,)).checkpoint.size == 2
    store.close()


FILE_LIMIT = """
import resource, sys
from policyguard.attest.keys import PrivateKey
from policyguard.audit.log import Log
from policyguard.errors import AuditError
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = Log.open(sys.argv[1], PrivateKey.generate(b"log".ljust(32, b".")), create=True)
log.append(b"a")
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    log.append(b"x" * 100_000)
except AuditError as problem:
    print(problem)
    sys.exit(0)
sys.exit("acknowledged what cannot be on the disk")
"""


def test_file_size_limit_acknowledges_nothing(tmp_path: Path) -> None:
    """The operating system refuses to write on: no receipt, and the entry acknowledged before is there."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", FILE_LIMIT, str(tmp_path / "log.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was added" in done.stdout
    with Log.open(tmp_path / "log.db", LOG_KEY) as log:
        assert log.size == 1


def test_read_only_connection_acknowledges_nothing(tmp_path: Path) -> None:
    """A log opened for reading is checked and proved from, and refuses to grow."""
    path = tmp_path / "log.db"
    with Log.open(path, LOG_KEY, ORIGIN, create=True) as log:
        log.append(b"a")
    with SqliteStore.open(path, read_only=True) as store:
        assert check_log(store, (log.verifier,)).checkpoint.size == 1
        reader = Log.open(store, LOG_KEY)
        with pytest.raises(AuditError, match="attempt to write a readonly database; nothing was added"):
            reader.append(b"b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only files")
def test_read_only_file_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    Log.open(path, LOG_KEY, ORIGIN, create=True).close()
    path.chmod(0o400)
    with pytest.raises(AuditError, match="readonly"):
        Log.open(path, LOG_KEY)


def test_locked_log_is_an_error_not_a_wait_without_end(tmp_path: Path) -> None:
    """While another process holds the write lock, an append fails after the busy time."""
    path = tmp_path / "log.db"
    with Log.open(path, LOG_KEY, ORIGIN, create=True) as log:
        file = log._file
        assert file is not None
        file.store._connection.execute("PRAGMA busy_timeout=50")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(AuditError, match="database is locked; nothing was added"):
            log.append(b"a")
        holder.execute("ROLLBACK")
        holder.close()
        assert log.append(b"a").index == 0


def test_two_open_logs_follow_each_other(tmp_path: Path) -> None:
    """Two openers of one file append in turn: each sees the other's entries before it signs."""
    with Log.open(tmp_path / "log.db", LOG_KEY, create=True) as one, Log.open(tmp_path / "log.db", LOG_KEY) as two:
        for n in range(6):
            log = (one, two)[n % 2]
            receipt = log.append(b"%d" % n)
            assert receipt.index == n
            holds(log, b"%d" % n, receipt)
        store = one._store
        assert check_log(store, (one.verifier,)).checkpoints == 6


APPENDER = """
import sys
from policyguard.attest.keys import PrivateKey
from policyguard.audit.log import Log
name, count = sys.argv[2], int(sys.argv[3])
log = Log.open(sys.argv[1], PrivateKey.generate(b"log".ljust(32, b".")))
n = 0
while count < 0 or n < count:
    leaf = f"{name}/{n}".encode()
    print(log.append(leaf).index, leaf.decode(), flush=True)
    n += 1
"""


def test_two_processes_append_to_one_log(tmp_path: Path) -> None:
    """Two processes at once: no entry lost, doubled or overwritten, and the log adds up."""
    path = tmp_path / "log.db"
    with Log.open(path, LOG_KEY, ORIGIN, create=True) as log:
        verifier = log.verifier
    children = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), name, "60"], stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    acknowledged = dict(line.split() for child in children for line in child.communicate(timeout=60)[0].splitlines())
    assert [child.returncode for child in children] == [0, 0]
    assert len(acknowledged) == 120
    with SqliteStore.open(path, read_only=True) as store:
        assert check_log(store, (verifier,)).checkpoint.size == 120
        assert {str(row.entry): row.leaf.decode() for row in store.read(0, 120)} == acknowledged


def test_killed_process_loses_no_acknowledged_entry(tmp_path: Path) -> None:
    """SIGKILL at a dozen moments: each time every acknowledged entry is there, and the log adds up. Invariant I12."""
    path = tmp_path / "log.db"
    with Log.open(path, LOG_KEY, ORIGIN, create=True) as log:
        verifier = log.verifier
    acknowledged: dict[str, str] = {}
    for attempt in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(path), f"r{attempt}", "-1"], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(1 + 7 * attempt % 23)]
        child.kill()
        lines += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        acknowledged.update({line.split()[0]: line.split()[1] for line in lines if line.endswith("\n")})
        with SqliteStore.open(path, read_only=True) as store:
            size = check_log(store, (verifier,)).checkpoint.size
            kept = {str(row.entry): row.leaf.decode() for row in store.read(0, size)}
        assert acknowledged.items() <= kept.items()
        assert len(kept) - len(acknowledged) <= attempt + 1


def test_single_use_store_refuses_what_is_not_its_own(tmp_path: Path) -> None:
    """A foreign database, or a folder, is no single-use store; nothing is taken as unused."""
    foreign(tmp_path / "used.db")
    (tmp_path / "used.db").chmod(0o600)
    before = (tmp_path / "used.db").read_bytes()
    with pytest.raises(AuditError, match="has another schema than ours"):
        UsedDecisions.open(tmp_path / "used.db")
    assert before == (tmp_path / "used.db").read_bytes()
    with pytest.raises(AuditError, match="single-use store"):
        UsedDecisions.open(tmp_path)


def test_single_use_store_refuses_another_application_id(tmp_path: Path) -> None:
    """The schema alone does not make a file ours: `docs/formats.md` lists the application id too. The twin has it."""
    path = tmp_path / "used.db"
    UsedDecisions.open(path).close()
    for application_id in (0, 1, 0x7067756C, -1):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA application_id={application_id}")
        with pytest.raises(AuditError, match=r"has the application id .*, expected 0x70677573"):
            UsedDecisions.open(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id=0x70677573")
    with UsedDecisions.open(path, clock=lambda: 0) as used:
        assert used.use("d-1", 10)


def test_id_is_used_once_by_all_who_share_the_file(tmp_path: Path) -> None:
    """Eight workers with one decision: one of them may start. Invariant I12."""
    start = threading.Barrier(8)
    answers: list[bool] = []

    def work() -> None:
        start.wait()
        with UsedDecisions.open(tmp_path / "used.db", clock=lambda: 0) as used:
            answers.append(used.use("d-1", 10**18))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]


def test_used_ids_beyond_the_limit_are_forgotten_a_day_after_they_expire(tmp_path: Path) -> None:
    """The earliest go first, and the store does not grow without end; below the limit nothing is forgotten."""
    now = [0]
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: now[0], min_remembered=400) as used:
        assert all(used.use(f"d-{number:04}", 10 + number) for number in range(500))
        now[0] = 86_400 * 10**9 + 10**6
        assert used.use("late-1", now[0])
        ids = {name for (name,) in used._database.connection.execute("SELECT decision_id FROM used")}
        assert len(ids - {"\nuses"}) == 401
        assert {"late-1", "d-0101"} <= ids
        assert "d-0100" not in ids
        assert not used.use("d-0101", 111)
        with pytest.raises(AuditError, match="no longer remembers decisions that expire until"):
            used.use("d-0100", 110)


def test_batch_of_1024_is_one_signature(tmp_path: Path) -> None:
    """1,024 entries under one signed root, each with its own inclusion proof."""
    with Log.open(tmp_path / "log.db", LOG_KEY, create=True) as log:
        log.append_many([b"before", b"it"])
        leaves = [b"decision %d" % n for n in range(1024)]
        receipts = log.append_many(leaves)
        assert len({receipt.checkpoint for receipt in receipts}) == 1
        checkpoint = open_checkpoint(receipts[0].checkpoint, (log.verifier,))
        for leaf, receipt in zip(leaves, receipts, strict=True):
            root = root_from_inclusion(leaf_hash(leaf), receipt.index, checkpoint.size, receipt.path)
            assert root == checkpoint.root


def test_key_of_another_log_cannot_be_mixed_in(tmp_path: Path) -> None:
    """Two logs of one key have different origins, so their checkpoints never pass for each other's."""
    key = PrivateKey.generate(b"k" * 32)
    with (
        Log.open(tmp_path / "a.db", key, "a", create=True) as a,
        Log.open(tmp_path / "b.db", key, "b", create=True) as b,
    ):
        a.append(b"x")
        b.append(b"x")
        note = latest_note(a._store)
        with pytest.raises(Exception, match="carries no signature of a trusted log, expected one of `b`"):
            open_checkpoint(note, (b.verifier,))
