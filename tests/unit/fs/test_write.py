"""Files are whole and durable or absent, whoever writes them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.cli.files import replace_file as replace_output
from policyguard.cli.files import write_new
from policyguard.environment.cache import FileCache
from policyguard.errors import ConfigurationError
from policyguard.fs.write import create_file, replace_file
from policyguard.hooks.git.decision_store import DecisionStore
from policyguard.keyfiles import write_private_key, write_public_key

KEY = PrivateKey.generate(bytes(range(32)))


def _cache(path: Path) -> None:
    cache = FileCache(str(path))
    cache.remember("a", (1, 2, 3, 4, 5), "0" * 64)
    cache.save()


WRITERS: dict[str, Callable[[Path], object]] = {
    "a new file": lambda path: create_file(path, b"x"),
    "a replaced file": lambda path: replace_file(path, b"x"),
    "a private key": lambda path: write_private_key(path, KEY),
    "a public key": lambda path: write_public_key(path, KEY.public),
    "an answer of a verb": lambda path: replace_output(path, b"x"),
    "a new file of a verb": lambda path: write_new(path, b"x"),
    "remembered digests": _cache,
    "a used push certificate": lambda path: DecisionStore(str(path.parent)).mark_certificate_used("0" * 64),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_data_and_then_its_name_are_durable(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced before it gets its name, and its folder after that; some writers did neither."""
    events: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def note_sync(handle: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "sync file")
        fsync(handle)

    def note_link(old: str, new: str) -> None:
        events.append("name")
        link(old, new)

    def note_replace(old: str, new: str) -> None:
        events.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "link", note_link)
    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "fsync", note_sync)
    write(tmp_path / "file")
    assert events == ["sync file", "name", "sync folder"]
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("write", [create_file, replace_file])
def test_a_full_disk_leaves_nothing(
    write: Callable[[Path, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "file", b"x")
    assert list(tmp_path.iterdir()) == []


def _link(path: Path) -> None:
    path.symlink_to("/nowhere")


PLACES: dict[str, Callable[[Path], object]] = {
    "a dangling link": _link,
    "a folder": lambda path: path.mkdir(),
    "a FIFO": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_only_regular_files_are_replaced(place: Callable[[Path], object], tmp_path: Path) -> None:
    """What is no regular file stays, for every kind of write."""
    path = tmp_path / "file"
    place(path)
    before = path.lstat()
    with pytest.raises(FileExistsError):
        create_file(path, b"x")
    with pytest.raises(OSError, match="expected a regular file or a new path"):
        replace_file(path, b"x")
    with pytest.raises(ConfigurationError, match="expected a regular file or a new path"):
        replace_output(path, b"x")
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        create_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_hook_is_executable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        replace_file(tmp_path / "hook", b"x", mode=0o755, ignore_umask=True)
        replace_file(tmp_path / "private", b"x", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "hook").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


def test_a_path_without_a_folder_is_in_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_file("file", b"x")
    replace_file("file", b"y")
    assert (tmp_path / "file").read_bytes() == b"y"
