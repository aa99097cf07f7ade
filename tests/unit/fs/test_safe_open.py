"""One way to open a file that somebody else may have placed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.errors import ConfigurationError, EvidenceError, PolicyGuardError, SigningError
from policyguard.fs.safe_open import read_bounded, read_small, read_start
from policyguard.fs.sealed import read_own
from policyguard.keyfiles import read_private_key, read_public_key, write_public_key
from policyguard.policy.files import read_folder
from policyguard.scan.digest_cache import MAX_CACHE_BYTES, DigestCache

READERS: dict[str, Callable[[Path], object]] = {
    "evidence": lambda path: read_small(str(path), 100),
    "configuration": lambda path: read_bounded(path, 100),
    "the start of a file": lambda path: read_start(path, 100),
    "a private key": read_private_key,
    "a public key": read_public_key,
    "remembered digests of an environment": lambda path: read_own(str(path), 100),
    "remembered digests of a scan": DigestCache.open,
}
PLACES: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: os.mknod(path, 0o020600, os.makedev(1, 3)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_only_regular_files_are_read_and_nothing_waits(
    read: Callable[[Path], object], place: Callable[[Path], object], tmp_path: Path
) -> None:
    try:
        place(tmp_path / "file")
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(PolicyGuardError):
        read(tmp_path / "file")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_path_that_no_system_call_takes_is_an_error_of_ours(read: Callable[[Path], object]) -> None:
    """A NUL byte in a path was a `ValueError` for evidence, keys and remembered digests."""
    with pytest.raises(PolicyGuardError):
        read(Path("a\0b"))


@pytest.mark.parametrize("read", [READERS["evidence"], READERS["a private key"]])
def test_a_link_is_not_followed_to_evidence_or_private_keys(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises((EvidenceError, SigningError), match="a symbolic link"):
        read(tmp_path / "link")


def test_a_link_is_followed_to_what_the_operator_names(tmp_path: Path) -> None:
    """Mounted configuration is full of links."""
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert read_bounded(tmp_path / "link", 1) == b"x"
    write_public_key(tmp_path / "key", PrivateKey.generate(bytes(32)).public)
    (tmp_path / "key link").symlink_to("key")
    assert read_public_key(tmp_path / "key link")


def test_a_limit_is_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 101)
    assert read_start(tmp_path / "file", 100) == b"x" * 100
    for read, family in ((READERS["evidence"], EvidenceError), (READERS["configuration"], ConfigurationError)):
        with pytest.raises(family, match=r"101 bytes, expected at most 100|larger than 100 bytes"):
            read(tmp_path / "file")


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o620])
def test_remembered_digests_are_of_this_account_alone(mode: int, tmp_path: Path) -> None:
    """A cache of an environment might be readable by others, that of a scan might not."""
    (tmp_path / "cache").write_bytes(b"x")
    (tmp_path / "cache").chmod(mode)
    assert read_own(str(tmp_path / "cache"), 100) is None


def test_remembered_digests_of_a_scan_are_bounded(tmp_path: Path) -> None:
    """They were read whole, of whatever size."""
    tmp_path.chmod(0o700)
    with (tmp_path / "cache").open("wb") as file:
        file.truncate(MAX_CACHE_BYTES + 1)
    (tmp_path / "cache").chmod(0o600)
    assert DigestCache.open(tmp_path / "cache").entries == {}


def test_policies_are_plain_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigurationError, match="found a FIFO, expected a plain file"):
        read_folder(tmp_path)
