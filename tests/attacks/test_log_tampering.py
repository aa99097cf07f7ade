"""Whoever edits the log file is found out, and the entry is named."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.keys import encode_base64
from policyguard.audit.check import check_log
from policyguard.audit.checkpoint import Checkpoint, read_checkpoint, sign_checkpoint
from policyguard.audit.log import Log
from policyguard.audit.merkle import EMPTY_ROOT, Range, leaf_hash
from policyguard.audit.proofs import latest_note, prove_consistency, prove_inclusion, row_at
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError
from tests.attest_lab import LOG_KEY, ORIGIN, STRANGER

Edit = Callable[[sqlite3.Connection], None]
COUNT = 9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of nine entries: seven on their own, the last two in one transaction."""
    with Log.open(tmp_path / "log.db", LOG_KEY, ORIGIN, create=True) as log:
        for n in range(COUNT - 2):
            log.append(b"entry %d: allow" % n)
        log.append_many([b"entry 7: allow", b"entry 8: deny"])
    return tmp_path / "log.db"


def leaves_of(connection: sqlite3.Connection) -> list[bytes]:
    return [leaf for (leaf,) in connection.execute("SELECT leaf FROM entries ORDER BY idx")]


def rehash(connection: sqlite3.Connection) -> None:
    """What a careful attacker does: all stored hashes follow from the leaves again; only signatures do not."""
    tree = Range()
    for entry, leaf in enumerate(leaves_of(connection)):
        hashes = b"".join(tree.append(leaf_hash(leaf)))
        connection.execute("UPDATE entries SET hashes = ? WHERE idx = ?", (hashes, entry))


def rewrite(connection: sqlite3.Connection) -> None:
    """More careful still: checkpoints are rewritten to fit, with the old signature lines."""
    rehash(connection)
    tree = Range()
    for entry, leaf in enumerate(leaves_of(connection)):
        tree.append(leaf_hash(leaf))
        (note,) = connection.execute("SELECT checkpoint FROM entries WHERE idx = ?", (entry,)).fetchone()
        if note is not None:
            new = note.replace(encode_base64(read_checkpoint(note).root), encode_base64(tree.root()))
            connection.execute("UPDATE entries SET checkpoint = ? WHERE idx = ?", (new, entry))


def change(entry: int, *then: Edit) -> Edit:
    def edit(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE entries SET leaf = CAST(leaf || x'21' AS BLOB) WHERE idx = ?", (entry,))
        for each in then:
            each(connection)

    return edit


def run(*statements: str) -> Edit:
    def edit(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return edit


CLOSE_GAP = ("UPDATE entries SET idx = -idx WHERE idx > 4", "UPDATE entries SET idx = -idx - 1 WHERE idx < 0")


def swap_leaves(connection: sqlite3.Connection) -> None:
    leaves = leaves_of(connection)
    connection.execute("UPDATE entries SET leaf = ? WHERE idx = 2", (leaves[3],))
    connection.execute("UPDATE entries SET leaf = ? WHERE idx = 3", (leaves[2],))


def swap_leaves_and_hashes(connection: sqlite3.Connection) -> None:
    swap_leaves(connection)
    rehash(connection)


def add_entry(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO entries VALUES (9, x'61', zeroblob(64), NULL)")
    rehash(connection)


def delete_and_rehash(connection: sqlite3.Connection) -> None:
    run("DELETE FROM entries WHERE idx = 4", *CLOSE_GAP)(connection)
    rehash(connection)


ATTACKS: dict[str, tuple[int, str, Edit]] = {
    "one byte of an entry": (4, "entry 4: leaf hash is", change(4)),
    "one byte of the first entry": (0, "entry 0: leaf hash is", change(0)),
    "one byte of the last entry": (8, "entry 8: leaf hash is", change(8)),
    "an entry and all stored hashes": (4, "entry 4 was changed, moved, added or removed", change(4, rehash)),
    "an entry within a group, and hashes": (7, "one of entries 7 to 8 was changed", change(7, rehash)),
    "an entry, hashes and checkpoints": (4, "entry 4: its checkpoint does not hold: .*verify", change(4, rewrite)),
    "a stored hash alone": (3, "entry 3: leaf hash is", run("UPDATE entries SET hashes = zeroblob(96) WHERE idx = 3")),
    "an inner hash alone": (
        3,
        "entry 3: the stored subtree hashes",
        run("UPDATE entries SET hashes = CAST(substr(hashes, 1, 64) || zeroblob(32) AS BLOB) WHERE idx = 3"),
    ),
    "an entry deleted": (4, "entry 4 is missing, found entry 5", run("DELETE FROM entries WHERE idx = 4")),
    "an entry deleted and the rest renumbered": (4, "entry 4: ", run("DELETE FROM entries WHERE idx = 4", *CLOSE_GAP)),
    "an entry deleted, renumbered and rehashed": (4, "entry 4 was changed, moved", delete_and_rehash),
    "two entries swapped": (2, "entry 2: leaf hash is", swap_leaves),
    "two entries swapped and rehashed": (2, "entry 2 was changed, moved", swap_leaves_and_hashes),
    "an entry added without a signature": (9, "entries 9 to 9 are under no signed checkpoint", add_entry),
    "a checkpoint removed inside": (9, "", run("UPDATE entries SET checkpoint = NULL WHERE idx = 3")),
    "the last checkpoint removed": (
        7,
        "entries 7 to 8 are under no signed checkpoint",
        run("UPDATE entries SET checkpoint = NULL WHERE idx = 8"),
    ),
    "a checkpoint of another size": (
        3,
        "its checkpoint|entry 3 was changed",
        run("UPDATE entries SET checkpoint = (SELECT checkpoint FROM entries WHERE idx = 2) WHERE idx = 3"),
    ),
    "a checkpoint that is none": (
        3,
        "entry 3: its checkpoint does not hold: note has no signature lines",
        run("UPDATE entries SET checkpoint = x'61' WHERE idx = 3"),
    ),
    "a column of text": (3, "entry 3 has malformed columns", run("UPDATE entries SET leaf = 'a' WHERE idx = 3")),
    "everything deleted": (-1, "log is empty", run("DELETE FROM entries")),
}

HARMLESS = {"a checkpoint removed inside"}


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name not in HARMLESS])
def test_edit_is_found_and_the_entry_named(path: Path, attack: str) -> None:
    """Each edit of the file is refused by the check, which names the first entry that does not add up."""
    entry, wording, edit = ATTACKS[attack]
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
        check_log(store, logs)
    connection = sqlite3.connect(path)
    with connection:
        edit(connection)
    connection.close()
    with SqliteStore.open(path, read_only=True) as store, pytest.raises(AuditError) as caught:
        check_log(store, logs)
    assert re.search(wording, caught.value.message), caught.value.message
    assert caught.value.entry == (None if entry < 0 else entry)
    assert "\n" not in caught.value.message


def test_checkpoint_missing_inside_loses_nothing(path: Path) -> None:
    """The next checkpoint covers the same entries: a log without an inner one still adds up."""
    connection = sqlite3.connect(path)
    with connection:
        ATTACKS["a checkpoint removed inside"][2](connection)
    connection.close()
    with SqliteStore.open(path, read_only=True) as store:
        assert check_log(store, (Log.open(store, LOG_KEY).verifier,)).checkpoints == 7


def test_one_byte_of_the_file_is_found(path: Path) -> None:
    """A byte flipped in the file itself, past SQLite, names the entry it stands in."""
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
    data = path.read_bytes()
    at = data.index(b"entry 5: allow") + 9
    path.write_bytes(data[:at] + b"A" + data[at + 1 :])
    with (
        SqliteStore.open(path, read_only=True) as store,
        pytest.raises(AuditError, match="entry 5: leaf hash") as caught,
    ):
        check_log(store, logs)
    assert caught.value.entry == 5


def test_cut_end_is_found_with_a_stored_checkpoint(path: Path) -> None:
    """Whole transactions removed from the end leave a shorter log that adds up; a kept checkpoint tells. I13."""
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
        kept = latest_note(store)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM entries WHERE idx > 5")
    connection.close()
    with SqliteStore.open(path, read_only=True) as store:
        assert check_log(store, logs).checkpoint.size == 6
        with pytest.raises(AuditError, match="log has 6 entries, a kept checkpoint says 9: the end was cut off"):
            check_log(store, logs, (kept,))


def test_history_rewritten_with_the_key_is_found(path: Path) -> None:
    """Even the keeper of the log's key cannot rewrite what a kept checkpoint covers: a split view. I13."""
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
        kept = latest_note(store)
        check_log(store, logs, (kept, kept))
    other = MemoryStore(ORIGIN)
    log = Log.open(other, LOG_KEY)
    for n in range(12):
        log.append(b"entry %d: deny" % n)
    check_log(other, logs)
    with pytest.raises(AuditError, match=r"the first 9 entries have root .*a split view"):
        check_log(other, logs, (kept,))


def test_stored_checkpoint_must_be_signed_too(path: Path) -> None:
    """A forged kept checkpoint accuses nobody: it is refused itself."""
    forged = MemoryStore(ORIGIN)
    Log.open(forged, STRANGER).append(b"x")
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
        with pytest.raises(AuditError, match="kept checkpoint: checkpoint carries no signature of a trusted log"):
            check_log(store, logs, (latest_note(forged),))


def note_of(count: int, word: str) -> bytes:
    """The checkpoint that the log's own key signs over a log of so many entries."""
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    for n in range(count):
        log.append(b"entry %d: %s" % (n, word.encode()))
    return latest_note(store)


@pytest.mark.parametrize("others", [0, 1, 2], ids=["shown first", "in between", "shown last"])
def test_two_stored_checkpoints_that_differ_are_a_split_view(path: Path, others: int) -> None:
    """I13: two trees of one size are told although the log agrees with one of them, in whatever order they come."""
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
        kept = [latest_note(store)] * 2
        check_log(store, logs, kept)
        kept.insert(others, note_of(COUNT, "deny"))
        with pytest.raises(AuditError, match="two kept checkpoints of 9 entries have different roots: a split view"):
            check_log(store, logs, kept)


def test_the_shortest_tree_that_was_cut_off_is_named(path: Path) -> None:
    """I13: of several kept checkpoints beyond the end, the first that the log lacks; each within it is looked at."""
    with SqliteStore.open(path, read_only=True) as store:
        logs = (Log.open(store, LOG_KEY).verifier,)
        with pytest.raises(AuditError, match="log has 9 entries, a kept checkpoint says 11"):
            check_log(store, logs, (note_of(13, "allow"), note_of(11, "allow")))
        with pytest.raises(AuditError, match="the first 3 entries have root"):
            check_log(store, logs, (note_of(3, "deny"), latest_note(store)))
        check_log(store, None, (latest_note(store),))
        with pytest.raises(AuditError, match="kept checkpoint: "):
            check_log(store, None, (b"x",))


def test_a_checkpoint_of_nothing_asks_for_nothing(path: Path) -> None:
    """Every log begins with the tree of no entries: keeping its checkpoint accuses nobody."""
    with SqliteStore.open(path, read_only=True) as store:
        verifier = Log.open(store, LOG_KEY).verifier
        kept = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), verifier, LOG_KEY)
        assert check_log(store, (verifier,), (kept,)).checkpoint.size == COUNT


def test_a_log_without_any_checkpoint_is_under_none(path: Path) -> None:
    """Entries that nobody signed for are told from an empty log."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE entries SET checkpoint = NULL")
    connection.close()
    with SqliteStore.open(path, read_only=True) as store:
        with pytest.raises(AuditError, match="entries 0 to 8 are under no signed checkpoint"):
            check_log(store, None)
        with pytest.raises(AuditError, match="entry 8 carries no checkpoint") as caught:
            latest_note(store)
        assert caught.value.entry == 8


def test_no_proof_is_made_from_rows_that_are_not_there(path: Path) -> None:
    """Every proof over a damaged store is an error that names the entry, never a proof that fails elsewhere."""
    empty = MemoryStore(ORIGIN)
    with pytest.raises(AuditError, match="log is empty"):
        latest_note(empty)
    with pytest.raises(AuditError, match="the log has 0 entries, numbered from 0"):
        row_at(empty, 0)
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    for n in range(4):
        log.append(b"%d" % n)
    note = latest_note(store)
    assert prove_consistency(store, 0) == prove_consistency(store, 4) == ()
    assert len(prove_consistency(store, 3)) == len(prove_consistency(store, 3, 4)) == 3
    assert prove_consistency(store, 1, 2) == prove_consistency(store, 1)[:1]
    assert prove_inclusion(store, 0) == prove_inclusion(store, 0, note)
    for index in (-1, 4):
        with pytest.raises(AuditError, match=f"entry {index} is not in the log, expected 0 to 3"):
            prove_inclusion(store, index)
        with pytest.raises(AuditError, match="log has 4 entries, expected at least"):
            prove_consistency(store, 5 if index > 0 else -1)
    with pytest.raises(AuditError, match="note"):
        prove_inclusion(store, 0, b"x")
    store.rows[1] = structs.replace(store.rows[1], hashes=store.rows[1].hashes[:32])
    with pytest.raises(AuditError, match="entry 1 lacks the hash of the subtree it closes") as caught:
        prove_inclusion(store, 2)
    assert caught.value.entry == 1


def test_writer_does_not_sign_over_a_tampered_end(path: Path) -> None:
    """I13: opening the log to append finds a changed last tree before anything new is signed."""
    connection = sqlite3.connect(path)
    with connection:
        change(8, rehash)(connection)
    connection.close()
    with pytest.raises(AuditError, match="the last 9 entries do not add up to the tree of 9 that the log signed"):
        Log.open(path, LOG_KEY)


def test_digest_of_the_file_is_unchanged_by_checking(path: Path) -> None:
    """A check reads only: the file is byte for byte the same afterwards."""
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with SqliteStore.open(path, read_only=True) as store:
        check_log(store, (Log.open(store, LOG_KEY).verifier,))
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "trigger",
    [
        "create trigger t before insert on entries begin select raise(ignore); end",
        "create trigger t after insert on entries begin delete from entries where idx = new.idx; end",
    ],
)
def test_a_trigger_that_swallows_entries_releases_nothing(tmp_path: Path, trigger: str) -> None:
    """Somebody who may write the log teaches it to forget while a guard is running."""
    path = tmp_path / "audit.db"
    with Log.open(path, LOG_KEY, ORIGIN, create=True) as log:
        log.append(b"entry 0: allow")
        with closing(sqlite3.connect(path)) as other:
            other.execute(trigger)
        with pytest.raises(AuditError):
            log.append(b"entry 1: deny")
