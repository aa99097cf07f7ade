"""Key files: their owner's alone, whole or absent, never overwritten; every failure one line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest import keys
from policyguard.attest.keys import PrivateKey
from policyguard.errors import ConfigurationError, SigningError
from policyguard.keyfiles import read_private_key, read_public_key, write_private_key, write_public_key

KEY = PrivateKey.generate(b"f" * 32)


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_DEFAULT_COST", (1, 8, 1))


def test_keys_read_back(tmp_path: Path) -> None:
    """Plain, wrapped and public: what was written is read, in files of mode 0600, 0600 and 0644."""
    old = os.umask(0)
    try:
        write_private_key(tmp_path / "plain", KEY)
        write_private_key(tmp_path / "wrapped", KEY, passphrase=b"secret")
        write_public_key(tmp_path / "public", KEY.public)
    finally:
        os.umask(old)
    assert read_private_key(tmp_path / "plain").public == KEY.public
    assert read_private_key(tmp_path / "wrapped", passphrase=b"secret").public == KEY.public
    assert read_public_key(tmp_path / "public") == KEY.public
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "wrapped", "public")]
    assert modes == [0o600, 0o600, 0o644]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "public", "wrapped"]


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    """Invariant I14: the second write fails, the first key stays, no half file is left."""
    path = tmp_path / "key"
    write_private_key(path, KEY)
    for target in (path, _dangling(tmp_path)):
        with pytest.raises(SigningError, match="exists already, expected a new path"):
            write_private_key(target, PrivateKey.generate(b"g" * 32))
    with pytest.raises(ConfigurationError, match="exists already, expected a new path"):
        write_public_key(path, KEY.public)
    assert read_private_key(path).public == KEY.public
    assert sorted(each.name for each in tmp_path.iterdir()) == ["dangling", "key"]


def _dangling(folder: Path) -> Path:
    (folder / "dangling").symlink_to(folder / "nowhere")
    return folder / "dangling"


def readable(path: Path) -> None:
    write_private_key(path, KEY)
    path.chmod(0o640)


def writable(path: Path) -> None:
    write_private_key(path, KEY)
    path.chmod(0o602)


def linked(path: Path) -> None:
    write_private_key(path.with_name("target"), KEY)
    path.symlink_to(path.with_name("target"))


def large(path: Path) -> None:
    path.write_bytes(KEY.to_pem() * 100)
    path.chmod(0o600)


def text(path: Path) -> None:
    path.write_text("secret")
    path.chmod(0o600)


def locked(path: Path) -> None:
    write_private_key(path, KEY, passphrase=b"secret")


def public(path: Path) -> None:
    path.write_bytes(KEY.public.to_pem())
    path.chmod(0o600)


def someone_elses(path: Path) -> None:
    write_private_key(path, KEY)
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    ("make", "wording"),
    [
        (lambda path: None, "cannot be read: no such file or directory"),
        (readable, "has mode 0640, expected 0600: others may read or change it"),
        (writable, "has mode 0602, expected 0600"),
        (linked, "found a symbolic link, expected a regular file"),
        (os.mkfifo, "found a FIFO, expected a regular file"),
        (os.mkdir, "found a folder, expected a regular file"),
        (someone_elses, "belongs to uid 12345, expected 0"),
        (large, "is larger than 4096 bytes, expected a key"),
        (text, "found no Ed25519 private key"),
        (public, "found no Ed25519 private key"),
        (locked, "key is wrapped, expected a passphrase"),
    ],
    ids=[
        "missing",
        "readable by the group",
        "writable by others",
        "a symbolic link",
        "a FIFO",
        "a folder",
        "another owner",
        "too large",
        "no key",
        "a public key",
        "wrapped, no passphrase",
    ],
)
def test_unsafe_key_file_is_refused(tmp_path: Path, make: Callable[[Path], None], wording: str) -> None:
    """Invariant I14: one line with the path, and the key stays closed."""
    make(tmp_path / "key")
    with pytest.raises(SigningError) as caught:
        read_private_key(tmp_path / "key")
    assert wording in caught.value.message
    assert f"`{tmp_path / 'key'}`" in caught.value.message
    assert "\n" not in caught.value.message


def test_wrong_passphrase_is_one_line(tmp_path: Path) -> None:
    locked(tmp_path / "key")
    with pytest.raises(SigningError, match="wrapped key does not open: wrong passphrase, or the file was altered"):
        read_private_key(tmp_path / "key", passphrase=b"guess")


def test_public_key_failures_are_configuration(tmp_path: Path) -> None:
    """A public key that is missing or none is the operator's configuration, through a link or not."""
    with pytest.raises(ConfigurationError, match="cannot be read: no such file"):
        read_public_key(tmp_path / "key")
    (tmp_path / "key").write_bytes(KEY.to_pem())
    with pytest.raises(ConfigurationError, match="found no Ed25519 public key"):
        read_public_key(tmp_path / "key")


def test_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="cannot be written: no such file or directory"):
        write_private_key(tmp_path / "nowhere" / "key", KEY)
