"""A head file never goes back: not after a crash in the middle of a write, not on a full disk, not by a late writer."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from policyguard.attest.note import NoteKey
from policyguard.audit.checkpoint import Checkpoint, sign_checkpoint
from policyguard.audit.head import (
    SLOT_BYTES,
    SYNC_EVERY_S,
    Head,
    HeadFile,
    HeadLocation,
    head_path,
    other_head,
    read_head,
)
from policyguard.errors import AuditError
from tests.attest_lab import LOG_KEY, ORIGIN


@pytest.fixture
def location(tmp_path: Path) -> HeadLocation:
    return HeadLocation.of(tmp_path / "log", tmp_path)


@pytest.fixture
def file(location: HeadLocation) -> Iterator[HeadFile]:
    file = HeadFile.open(location, ORIGIN)
    yield file
    file.close()


def head_of(size: int, *, generation: int = 0, log: str = "log") -> Head:
    checkpoint = Checkpoint(ORIGIN, size, b"r" * 32)
    note = sign_checkpoint(checkpoint, NoteKey(ORIGIN, LOG_KEY.public), LOG_KEY).decode() if size else None
    return Head(generation=generation, log=log, note=note)


def test_a_file_that_was_never_written_has_no_head(file: HeadFile) -> None:
    assert file.read() == (None, 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_newest_of_both_slots_is_read(location: HeadLocation, file: HeadFile, count: int) -> None:
    """By this process, by another one, and by an auditor."""
    for size in range(count + 1):
        file.write(head_of(size), size)
    for reader in (file, HeadFile.open(location, ORIGIN)):
        assert reader.read() == (head_of(count), count)
    assert read_head(location, ORIGIN) == head_of(count)


def test_a_late_writer_takes_nothing_back(location: HeadLocation, file: HeadFile) -> None:
    """Two processes commit, and the first of them is the last to write its head."""
    late = HeadFile.open(location, ORIGIN)
    file.write(head_of(2), 2)
    late.write(head_of(1), 1)
    assert (late.read(), file.read()) == ((head_of(2), 2), (head_of(2), 2))


def test_a_head_of_the_same_size_has_the_new_path_of_the_log(file: HeadFile) -> None:
    file.write(head_of(2), 2)
    file.write(head_of(2, log="moved"), 2)
    assert file.read() == (head_of(2, log="moved"), 2)


def test_a_reset_outlives_late_writers(location: HeadLocation, file: HeadFile) -> None:
    """A guard of the log that was given up has more entries, and an older generation."""
    late = HeadFile.open(location, ORIGIN)
    late.write(head_of(3), 3)
    file.reset(head_of(1, generation=1), 1)
    late.write(head_of(4), 4)
    assert (late.read(), file.read()) == ((head_of(1, generation=1), 1), (head_of(1, generation=1), 1))
    assert read_head(location, ORIGIN) == head_of(1, generation=1)


def test_a_crash_in_the_middle_of_a_write_leaves_the_head_before(location: HeadLocation, file: HeadFile) -> None:
    file.write(head_of(1), 1)
    before = Path(file.path).read_bytes()
    file.write(head_of(2), 2)
    slot = Path(file.path).read_bytes()[SLOT_BYTES:]
    for length in range(0, len(slot), 7):
        Path(file.path).write_bytes(before.ljust(SLOT_BYTES, b"\0") + slot[:length])
        assert HeadFile.open(location, ORIGIN).read() == (
            (head_of(1), 1) if length < len(slot) - 1 else (head_of(2), 2)
        )


def test_a_crash_in_the_first_write_leaves_a_new_file(location: HeadLocation, file: HeadFile) -> None:
    """Whatever part of the first head is on the disk without its first byte, the file is as if it were empty."""
    file.write(head_of(1), 1)
    slot = Path(file.path).read_bytes()
    for length in range(0, len(slot), 7):
        Path(file.path).write_bytes(b"\0" + slot[1:length])
        reader = HeadFile.open(location, ORIGIN)
        assert reader.read() == (None, 0)
        reader.write(head_of(1), 1)
        assert HeadFile.open(location, ORIGIN).read() == (head_of(1), 1)
    # One step away: a first byte that is there, and a head that is not.
    Path(file.path).write_bytes(slot[:-9])
    with pytest.raises(AuditError, match="is damaged"):
        HeadFile.open(location, ORIGIN).read()


@pytest.mark.parametrize("crash_at", ["fdatasync", "pwrite"])
def test_the_first_byte_of_a_new_head_file_is_written_last(
    location: HeadLocation, file: HeadFile, crash_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss before the sync, or after it: neither needs `accept-reset`."""
    pwrite = os.pwrite

    def fail(_: int, data: bytes = b"", offset: int = 0) -> int:
        if crash_at == "pwrite" and offset:
            return pwrite(file._handle, data, offset)
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(os, crash_at, fail)
        with pytest.raises(AuditError, match="cannot be written: input/output error"):
            file.write(head_of(1), 1)
    assert Path(file.path).stat().st_size > 1
    assert HeadFile.open(location, ORIGIN).read() == (None, 0)
    file.write(head_of(1), 1)
    assert HeadFile.open(location, ORIGIN).read() == (head_of(1), 1)


def test_a_crash_in_a_reset_leaves_the_head_before(
    location: HeadLocation, file: HeadFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log that is reset is refused then as before, and nobody begins a new one."""
    file.write(head_of(3), 3)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", fail)
        with pytest.raises(AuditError, match="cannot be written"):
            file.reset(head_of(1, generation=1), 1)
    assert HeadFile.open(location, ORIGIN).read() == (head_of(3), 3)


def test_an_open_reader_notices_a_slot_that_was_cut_short_and_then_completed(
    location: HeadLocation, file: HeadFile
) -> None:
    """A reader compares slots with those that it parsed; a part of a slot begins as the whole one does."""
    file.write(head_of(1), 1)
    file.write(head_of(2), 2)
    whole = Path(file.path).read_bytes()
    for length in range(0, len(whole) - SLOT_BYTES - 1, 7):
        Path(file.path).write_bytes(whole[: SLOT_BYTES + length])
        reader = HeadFile.open(location, ORIGIN)
        assert reader.read() == (head_of(1), 1)
        Path(file.path).write_bytes(whole)
        assert reader.read() == (head_of(2), 2)
        reader.close()


def test_older_bytes_in_an_open_head_file_are_refused(file: HeadFile) -> None:
    """In place, so that the file is the one that was opened."""
    file.write(head_of(1), 1)
    before = Path(file.path).read_bytes()
    file.write(head_of(2), 2)
    file.write(head_of(3), 3)
    Path(file.path).write_bytes(before)
    with pytest.raises(AuditError, match="went back"):
        file.read()


def test_a_damaged_head_file_is_refused(location: HeadLocation, file: HeadFile) -> None:
    Path(file.path).write_bytes(b"\0" * SLOT_BYTES)
    assert file.read() == (None, 0)
    Path(file.path).write_bytes(b"no head")
    with pytest.raises(AuditError, match="is damaged"):
        file.read()
    assert (file.read_or_none(), read_head(location, ORIGIN)) == (None, None)


def filled(length: int) -> Head:
    """A head that fills a slot up to this many bytes."""
    return Head(log="x" * (length - len(b"0123456789abcdef 12345 \n") - len(msgspec.json.encode(Head()))))


def test_a_head_fills_its_slot_and_no_more(location: HeadLocation, file: HeadFile) -> None:
    """A head that is too long would be cut, or reach into the other slot."""
    file.write(filled(SLOT_BYTES), 0)
    file.write(filled(SLOT_BYTES), 0)
    assert Path(file.path).stat().st_size == 2 * SLOT_BYTES
    assert HeadFile.open(location, ORIGIN).read()[0] == filled(SLOT_BYTES)
    with pytest.raises(AuditError, match=rf"head of {SLOT_BYTES + 1} bytes is too large"):
        file.write(filled(SLOT_BYTES + 1), 0)


def test_a_disk_with_room_for_a_part_of_the_head_acknowledges_nothing(file: HeadFile) -> None:
    """The system writes what fits, and reports no error."""
    file.write(head_of(1), 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SLOT_BYTES + 10, limits[1]))
    try:
        with pytest.raises(AuditError, match="cannot be written: no space left"):
            file.write(head_of(2), 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read() == (head_of(1), 1)
    file.write(head_of(2), 2)
    assert file.read() == (head_of(2), 2)


@pytest.mark.parametrize(("name", "size", "log"), [("x.head", 1, "log"), ("x.head", 0, None), ("x.lock", 1, None)])
def test_a_log_of_another_key_is_known_by_its_head(
    location: HeadLocation, file: HeadFile, name: str, size: int, log: str | None
) -> None:
    """Only a head file counts, and only of a log with entries."""
    file.write(head_of(size), size)
    own, other = head_path(location, ORIGIN), Path(location.state_dir, name)
    assert other_head(own, "log") is None
    os.rename(own, other)
    assert other_head(own, "log") == (str(other) if log else None)
    assert other_head(own, "log2") is None


def replaced(path: Path) -> None:
    data = path.read_bytes()
    path.rename(path.with_name("moved"))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [(replaced, "was replaced"), (Path.unlink, "is gone: no such file")],
    ids=["a copy in its place", "nothing in its place"],
)
def test_an_open_head_file_that_was_exchanged_decides_nothing(
    file: HeadFile, change: Callable[[Path], None], refusal: str
) -> None:
    file.write(head_of(1), 1)
    change(Path(file.path))
    with pytest.raises(AuditError, match=refusal):
        file.read()


@pytest.mark.parametrize(("mode", "refusal"), [(0o644, "644"), (0o660, "660"), (0o602, "602")])
def test_a_head_file_that_others_may_read_or_change_is_refused(location: HeadLocation, mode: int, refusal: str) -> None:
    HeadFile.open(location, ORIGIN).close()
    Path(head_path(location, ORIGIN)).chmod(mode)
    with pytest.raises(AuditError, match=refusal):
        HeadFile.open(location, ORIGIN)


def test_a_fifo_in_place_of_the_head_file_is_refused(location: HeadLocation) -> None:
    os.mkfifo(head_path(location, ORIGIN), 0o600)
    with pytest.raises(AuditError, match="is not a regular file"):
        HeadFile.open(location, ORIGIN)


@pytest.mark.parametrize("length", [b"9" * 5000, b"", b"+2", b"-1", b"99999", b"999999"])
def test_a_length_that_nobody_wrote_is_damage(file: HeadFile, length: bytes) -> None:
    """Python refuses to read a number of thousands of digits: that is no traceback of a guard."""
    Path(file.path).write_bytes(b"0123456789abcdef %b {}\n" % length)
    with pytest.raises(AuditError, match="is damaged"):
        file.read()


@pytest.mark.parametrize("change", [-1, 1, None])
def test_a_head_that_was_edited_by_hand_is_damage(file: HeadFile, change: int | None) -> None:
    """Its digest covers what it says, whatever else would read well, and no more than that."""
    file.write(head_of(0), 0)
    before = Path(file.path).read_bytes()
    length = int(before.split(b" ")[1])
    edited = before.replace(b'"log":"log"', b'"log":"lag"')
    if change is not None:
        edited = before.replace(b" %d " % length, b" %d " % (length + change))
    assert edited != before
    Path(file.path).write_bytes(edited)
    with pytest.raises(AuditError, match="is damaged"):
        file.read()


@pytest.mark.parametrize("is_late", [False, True])
def test_a_disk_that_cannot_be_synced_acknowledges_nothing(
    file: HeadFile, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write a second after the last sync reports it; so does the one after a sync that failed meanwhile."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    file.write(head_of(1), 1)
    assert file._timer is not None
    file._timer.cancel()
    file._timer = None
    with monkeypatch.context() as disk:
        disk.setattr(os, "fdatasync", fail)
        if is_late:
            file._sync_late()
        else:
            file._synced -= SYNC_EVERY_S
        with pytest.raises(AuditError, match="cannot be synced: input/output error"):
            file.write(head_of(2), 2)
    file.write(head_of(3), 3)
    assert time.monotonic() - file._synced < SYNC_EVERY_S


def test_closing_syncs_once(location: HeadLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is closed by hand and by its `with` block is closed once: its descriptor may be another file's."""
    file = HeadFile.open(location, ORIGIN)
    synced: list[int] = []
    file.write(head_of(0), 0)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    file.write(head_of(1), 1)
    assert synced == []
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(synced[0])
    file.close()
    assert len(synced) == 1
