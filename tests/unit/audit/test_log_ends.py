"""The end of a log: what a writer compares before it goes on, and what a refusal names."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey, add_signature
from policyguard.audit.checkpoint import Checkpoint, sign_checkpoint
from policyguard.audit.head import Head, HeadFile, HeadLocation
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import PolicyUse
from policyguard.audit.stores.memory import MemoryStore
from policyguard.errors import AuditError
from tests.attest_lab import LOG_KEY, NOW, ORIGIN, STRANGER

NEW = PrivateKey.generate(b"n" * 32)


def grow(path: Path, *leaves: bytes, state_dir: Path | None = None, key: PrivateKey = LOG_KEY) -> None:
    """Append to a log, which is made if it is not there, as one run of a hook does."""
    with Log.open(path, key, create=True, state_dir=state_dir) as log:
        log.append_many(leaves)


@pytest.mark.parametrize(
    ("leaves", "refusal"),
    [
        ((b"1",), r"log `\S*/log.db` has 1 entries, expected at least 2"),
        ((b"1", b"x"), r"the first 2 entries of log `\S*/log.db` are not those"),
        ((b"1", b"x", b"3"), r"the first 2 entries of log `\S*/log.db` are not those"),
    ],
    ids=["shorter", "as long", "longer"],
)
def test_another_log_in_its_place_is_refused_by_name(tmp_path: Path, leaves: tuple[bytes, ...], refusal: str) -> None:
    path = tmp_path / "log.db"
    grow(path, b"1", b"2", state_dir=tmp_path / "state")
    path.unlink()
    grow(path, *leaves, state_dir=tmp_path / "elsewhere")
    with pytest.raises(AuditError, match=refusal):
        grow(path, b"more", state_dir=tmp_path / "state")


def test_a_log_that_is_gone_is_not_begun_again_by_another_key(tmp_path: Path) -> None:
    """The head file is named for the key; that of the old key still names the path. The twin is another path."""
    path = tmp_path / "log.db"
    grow(path, b"1")
    path.unlink()
    for key in (LOG_KEY, STRANGER):
        with pytest.raises(AuditError, match=r"log `\S*/log.db` is gone"):
            grow(path, b"1", key=key)
        assert not path.exists()
    grow(tmp_path / "other.db", b"1", key=STRANGER)


def test_what_another_process_added_before_it_was_killed_is_in_the_head_of_a_log_held_still(tmp_path: Path) -> None:
    """Killed between its commit and its head: a rotation links to the whole log, not to what its own process saw."""
    path = tmp_path / "log.db"
    grow(path, b"1")
    (head_file,) = tmp_path.glob("*.head")
    with Log.open(path, LOG_KEY) as log:
        before = head_file.read_bytes()
        with Log.open(path, LOG_KEY) as other:
            other.append(b"2")
        head_file.write_bytes(before)
        with log.held_still() as (head, _):
            checkpoint = head.checkpoint()
    assert checkpoint is not None
    assert checkpoint.size == 2


def test_a_log_without_a_file_cannot_be_rotated() -> None:
    with (
        pytest.raises(AuditError, match="log is not in a file of its own, expected one"),
        Log.open(MemoryStore(ORIGIN), LOG_KEY).held_still(),
    ):
        raise AssertionError("it was held")


def test_a_last_entry_without_a_checkpoint_is_not_continued() -> None:
    """Nothing says that the log's key ever signed it."""
    store = MemoryStore(ORIGIN)
    Log.open(store, LOG_KEY).append_many((b"1", b"2"))
    store.rows[-1] = structs.replace(store.rows[-1], checkpoint=None)
    with pytest.raises(AuditError, match="entry 1 carries no checkpoint") as caught:
        Log.open(store, LOG_KEY)
    assert caught.value.entry == 1


def test_a_checkpoint_that_a_witness_signed_too_hands_nothing_over() -> None:
    """Two signatures alone are no handover: the entry says what it is."""
    store = MemoryStore(ORIGIN)
    note = Log.open(store, LOG_KEY).append(b"1").checkpoint
    witness = NoteKey("witness.example/w", STRANGER.public)
    store.rows[-1] = structs.replace(store.rows[-1], checkpoint=add_signature(note, witness, STRANGER))
    assert Log.open(store, LOG_KEY).append(b"2").index == 1


def test_a_refusal_in_the_first_transaction_of_a_new_key_leaves_the_log_as_it_is() -> None:
    """Nothing is signed where nothing is added: the checkpoint of the handover has two signatures, and stays."""
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append_many((b"{}",), PolicyUse(name="lab", epoch=2, digest="d", is_signed=True))
    log.hand_over(NEW, NOW)
    new = Log.open(store, NEW)
    assert new.append_many(()) == ()
    with pytest.raises(AuditError, match="seen other policies"):
        new.append_many((b"{}",), PolicyUse(name="lab", epoch=2, digest="e", is_signed=False, edited=True))
    assert new.append(b"3").index == 2


def test_another_history_of_the_same_length_is_not_continued() -> None:
    """Put in place while the log is open, and signed by the same key."""
    store, other = MemoryStore(ORIGIN), MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append_many((b"1", b"2"))
    Log.open(other, LOG_KEY).append_many((b"1", b"x"))
    store.rows[:] = other.rows
    with pytest.raises(AuditError, match="log shrank or changed: it has 2 entries, expected 2 that we have seen"):
        log.append(b"3")


def test_a_log_is_made_in_a_folder_that_is_there(tmp_path: Path) -> None:
    """A mistyped path makes no folder, and no head file in it."""
    with pytest.raises(AuditError, match=r"none/log.db` cannot be created: no such file or directory"):
        grow(tmp_path / "none" / "log.db", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("leaves", "had_head", "goes_on"),
    [((b"1",), True, False), ((b"1",), False, True), ((), True, True)],
    ids=["a log that had one", "a log of version 0.1.0", "a log without entries"],
)
def test_a_log_without_a_head_file(tmp_path: Path, leaves: tuple[bytes, ...], had_head: bool, goes_on: bool) -> None:
    """Only one that never had one, or has nothing to lose, gets one."""
    path = tmp_path / "log.db"
    grow(path, *leaves)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={int(had_head)}")
    (head_file,) = tmp_path.glob("*.head")
    head_file.unlink()
    if not goes_on:
        with pytest.raises(AuditError, match="has 1 entries and no head file"):
            grow(path, b"2")
        return
    grow(path, b"2")
    head_file.unlink()
    with pytest.raises(AuditError, match=f"has {len(leaves) + 1} entries and no head file"):
        grow(path, b"3")


def test_a_revocation_list_is_an_entry_where_it_is_news() -> None:
    """For any of its keys; the same list, and an older one under a key that is new, are none."""
    log = Log.open(MemoryStore(ORIGIN), LOG_KEY)
    for keys, sequence, highest, size in (
        (("a",), 5, 5, 1),
        (("a",), 5, 5, 1),
        (("a", "b"), 4, 5, 1),
        (("a", "b"), 5, 5, 2),
        (("b",), 6, 6, 3),
        (("c",), 1, 1, 4),
    ):
        assert log.remember_list(keys, sequence, NOW) == highest
        assert log.size == size
    assert log.revocations == {"a": 5, "b": 6, "c": 1}


def test_a_running_guard_asks_the_head_file_before_each_entry(tmp_path: Path) -> None:
    """Removed, or that of a log which somebody reset meanwhile: nothing is added."""
    path = tmp_path / "log.db"
    grow(path, b"1")
    (head_file,) = tmp_path.glob("*.head")
    with Log.open(path, LOG_KEY) as log, Log.open(path, LOG_KEY) as other:
        head_file.rename(tmp_path / "away")
        with pytest.raises(AuditError, match="is gone"):
            log.append(b"2")
        (tmp_path / "away").rename(head_file)
        checkpoint = Checkpoint(log.verifier.name, 5, b"r" * 32)
        handle = HeadFile.open(HeadLocation.of(path), log.verifier.name)
        handle.reset(Head(generation=1, note=sign_checkpoint(checkpoint, log.verifier, LOG_KEY).decode()), 5)
        handle.close()
        for writer in (log, other):
            with pytest.raises(AuditError, match="has 1 entries, expected at least 5"):
                writer.append(b"2")
        last = log.store.last()
    assert last is not None
    assert last.entry == 0
