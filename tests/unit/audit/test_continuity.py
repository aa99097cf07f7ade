"""Rotation and reset step by step: what a crash, a name that is taken or a lost head file leads to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.note import NoteKey, sign_note
from policyguard.audit import continuity
from policyguard.audit.checkpoint import Checkpoint
from policyguard.audit.continuity import MAX_REASON_CHARS, accept_reset, rotate
from policyguard.audit.head import HeadFile, HeadLocation, read_head
from policyguard.audit.log import Log
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError, ConfigurationError
from tests.attest_lab import LOG_KEY, NOW, STRANGER

WITNESS = NoteKey("witness.example/w", STRANGER.public)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of two entries."""
    path = tmp_path / "log.db"
    grow(path, b"1", b"2")
    return path


def grow(path: Path, *leaves: bytes) -> int:
    with Log.open(path, LOG_KEY, create=True) as log:
        log.append_many(leaves)
        return log.size


def turn(path: Path, archive: str | None = None) -> str:
    return rotate(str(path), LOG_KEY, HeadLocation.of(path), archive=archive, reason="monthly", now=NOW)


def accept(path: Path, reason: str = "disk lost", **options: Any) -> int:
    return accept_reset(str(path), LOG_KEY, HeadLocation.of(path), reason=reason, now=NOW, **options)


def stop_before(step: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation that is killed before its step T3 or T4."""

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*{"T3": (HeadFile, "reset"), "T4": (continuity, "_move")}[step], crash)
        with pytest.raises(KeyboardInterrupt):
            turn(path)


@pytest.mark.parametrize("archive", [None, "kept.db"])
def test_a_rotation_that_was_stopped_is_finished_once(
    path: Path, archive: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new log is not rotated again, and the old one has the name that it would have had."""
    stop_before("T4", path, monkeypatch)
    target = path.with_name(archive or "log.db.2")
    assert turn(path, archive and str(target)) == str(target)
    with SqliteStore.open(target, read_only=True) as old, SqliteStore.open(path, read_only=True) as new:
        assert [store.last() and store.last().entry for store in (old, new)] == [1, 0]  # type: ignore[union-attr]
    assert grow(path, b"3") == 2


def test_a_rotation_that_was_stopped_overwrites_no_archive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody took the name meanwhile: the old log stays where it is until there is another."""
    stop_before("T4", path, monkeypatch)
    taken = path.with_name("log.db.2")
    taken.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        turn(path)
    assert taken.read_text() == "mine"
    assert turn(path, str(path) + ".old") == str(path) + ".old"


def test_a_rotation_whose_old_log_was_moved_already_is_finished(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two names of step T4."""
    stop_before("T4", path, monkeypatch)
    path.rename(path.with_name("log.db.2"))
    turn(path)
    assert grow(path, b"3") == 2


def test_what_an_early_crash_left_is_removed_and_the_log_rotated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before("T3", path, monkeypatch)
    assert grow(path, b"3") == 3
    assert turn(path) == f"{path}.3"
    assert grow(path, b"4") == 2


def test_what_an_early_crash_left_is_no_log_without_its_head(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head file was lost after the crash: a file beside the log, with any entry, does not become the log."""
    stop_before("T3", path, monkeypatch)
    for head in path.parent.glob("*.head"):
        head.unlink()
    with pytest.raises(AuditError, match="no head file"):
        turn(path)


@pytest.mark.parametrize("leaves_a_file", [False, True])
def test_a_log_without_entries_is_not_rotated(tmp_path: Path, leaves_a_file: bool) -> None:
    """Its head names nothing, and an empty file beside it is not what follows it."""
    path = tmp_path / "log.db"
    grow(path)
    if leaves_a_file:
        with Log.open(path, LOG_KEY) as log:
            SqliteStore.create(f"{path}.next", log.verifier.name).close()
    with pytest.raises(ConfigurationError, match="is empty, expected at least one entry to rotate"):
        turn(path)
    assert [file.name for file in tmp_path.glob("log.db*")] == ["log.db"]


@pytest.mark.parametrize("length", [0, MAX_REASON_CHARS + 1])
def test_a_reason_is_read_by_people(path: Path, length: int) -> None:
    path.unlink()
    with pytest.raises(ConfigurationError, match=rf"--reason: found {length} characters, expected 1 to 2000"):
        accept(path, "x" * length)
    assert accept(path, "x" * MAX_REASON_CHARS) == 0


def test_a_reset_names_what_the_witness_signs(path: Path) -> None:
    """The text of the checkpoint that is given up; where no head is left, there is none."""
    location = HeadLocation.of(path)
    (head_file,) = path.parent.glob("*.head")
    with Log.open(path, LOG_KEY) as log:
        origin = log.verifier.name
    head = read_head(location, origin)
    assert head is not None
    checkpoint = head.checkpoint()
    assert checkpoint is not None
    path.unlink()
    with pytest.raises(ConfigurationError, match="--witness is missing") as caught:
        accept(path, witness=WITNESS)
    assert "have the witness sign the text" in str(caught.value.help)
    assert origin in str(caught.value.help)
    head_file.write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="--witness is missing") as caught:
        accept(path, witness=WITNESS)
    assert caught.value.help is None


@pytest.mark.parametrize("has_head", [True, False])
def test_a_witness_of_another_log_accepts_nothing(path: Path, has_head: bool) -> None:
    """Also where the head is lost, and only the name of the log is known."""
    (head_file,) = path.parent.glob("*.head")
    with Log.open(path, LOG_KEY) as log:
        origin = log.verifier.name
    head = read_head(HeadLocation.of(path), origin)
    assert head is not None
    checkpoint = head.checkpoint()
    assert checkpoint is not None
    path.unlink()
    if not has_head:
        head_file.write_bytes(b"damaged")
    other = sign_note(Checkpoint("other.example", checkpoint.size, checkpoint.root).to_text(), WITNESS, STRANGER)
    expected = "2 entries of `policyguard/" if has_head else "expected the old head of `policyguard/"
    with pytest.raises(ConfigurationError, match=f"is about 2 entries of `other.example`.*{expected}"):
        accept(path, witness=WITNESS, countersigned=other)
    own = sign_note(checkpoint.to_text(), WITNESS, STRANGER)
    assert accept(path, witness=WITNESS, countersigned=own) == 0


@pytest.mark.parametrize("goes_on", [turn, accept], ids=["a rotation", "a reset"])
def test_no_older_revocation_list_comes_back(path: Path, goes_on: Callable[[Path], object]) -> None:
    """The new log has no entry of it: the head remembers."""
    with Log.open(path, LOG_KEY) as log:
        log.remember_list(("k",), 5, NOW)
    if goes_on is accept:
        path.unlink()
    goes_on(path)
    with Log.open(path, LOG_KEY) as log:
        assert log.remember_list(("k",), 4, NOW) == 5
        assert log.size == 1
