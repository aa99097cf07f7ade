"""Remembered digests are believed by who holds the key only if the key sealed them; without a key, by their owner."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.environment.cache import KIND, RACY_NS, FileCache, Remembered
from policyguard.environment.listing import list_files
from policyguard.errors import EvidenceError
from policyguard.fs.mounts import file_system
from policyguard.fs.sealed import SEAL_PURPOSE, sealed, unsealed
from policyguard.scan.digest_cache import QUIET_S, DigestCache
from policyguard.scan.files import Options, scan_file
from tests.attacks.checkpoint_lab import GOOD, STORAGE, torch_zip

KEY = PrivateKey.generate(b"\x44" * 32).derive(SEAL_PURPOSE)
OTHER = PrivateKey.generate(b"\x45" * 32).derive(SEAL_PURPOSE)
FALSE = "sha256:" + "0" * 64


def test_a_derived_secret_is_of_one_key_and_one_purpose() -> None:
    """The same again from the same, another from any other; and it is not the seed."""
    key = PrivateKey.generate(b"\x44" * 32)
    assert key.derive(SEAL_PURPOSE) == KEY
    assert len({KEY, OTHER, key.derive("something else"), b"\x44" * 32}) == 4
    assert len(KEY) == 32


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    made = tmp_path / "env"
    made.mkdir()
    (made / "optim.py").write_text("rate = 1\n")
    return made


def looked(prefix: Path, key: bytes | None) -> tuple[dict[str, str], FileCache]:
    cache = FileCache(str(prefix.parent / "cache"), key)
    found = list_files(str(prefix), cache).files
    cache.save()
    return found, cache


def forge(prefix: Path, key: bytes | None) -> None:
    """Write the cache that calls the file, as it is now, something else: what an attacker who edited it would want."""
    status = os.stat(prefix / "optim.py")
    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    payload = msgspec.msgpack.encode({"optim.py": Remembered(version, FALSE)})
    path = prefix.parent / "cache"
    path.write_bytes(sealed(KIND, payload, key))
    path.chmod(0o600)


def test_a_forged_cache_is_not_believed_by_who_holds_the_key(prefix: Path) -> None:
    """INVARIANT I16: the same account may write the file; without the key it cannot make it say anything."""
    for forger, doubt in ((None, "it has no seal"), (OTHER, "its seal is not of this key")):
        forge(prefix, forger)
        found, cache = looked(prefix, KEY)
        assert found["optim.py"] != FALSE
        assert cache.doubt == doubt


def test_the_holders_own_cache_is_believed(prefix: Path) -> None:
    """The twin; and without a key the old rule stays: what this account alone can write is believed."""
    forge(prefix, KEY)
    found, cache = looked(prefix, KEY)
    assert (found["optim.py"], cache.doubt) == (FALSE, "")
    forge(prefix, None)
    found, cache = looked(prefix, None)
    assert (found["optim.py"], cache.doubt) == (FALSE, "")


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the payload": flipped(-5),
    "a bit of the seal": flipped(40),
    "cut short": lambda data: data[:-1],
    "something added": lambda data: data + b"\0",
    "the seal taken away": lambda data: b"policyguard environment-digests 2 unsealed\n" + data.partition(b"\n")[2],
    "an empty seal": lambda data: b"policyguard environment-digests 2 \n" + data.partition(b"\n")[2],
    "another kind": lambda data: data.replace(b"environment", b"checkpoints", 1),
    "another version": lambda data: data.replace(b" 2 ", b" 3 ", 1),
    "the old format": lambda data: data.partition(b"\n")[2],
    "nothing": lambda data: b"",
    "a seal that is no ASCII": lambda data: b"policyguard environment-digests 2 \xff\xfe\n" + data.partition(b"\n")[2],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_cache_is_hashed_again_and_reported(prefix: Path, edit: Callable[[bytes], bytes]) -> None:
    """INVARIANT I16: one line says why; then the file is put right, for the next look."""
    forge(prefix, KEY)
    path = prefix.parent / "cache"
    path.write_bytes(edit(path.read_bytes()))
    found, cache = looked(prefix, KEY)
    assert found["optim.py"] != FALSE
    assert cache.doubt
    assert "\n" not in cache.doubt
    assert FileCache(str(path), KEY).doubt == ""


def test_one_kind_of_cache_is_not_another() -> None:
    """A sealed listing of checkpoints is none of an environment, though the key is the same."""
    data = sealed("checkpoint-digests", b"payload", KEY)
    assert unsealed("checkpoint-digests", data, KEY).payload == b"payload"
    renamed = data.replace(b"checkpoint-digests", KIND.encode(), 1)
    assert unsealed(KIND, renamed, KEY).payload is None


def test_who_has_no_key_leaves_a_sealed_cache_as_it_is(prefix: Path) -> None:
    """It is believed by its owner, as before; written without the seal it would be lost to who holds the key."""
    forge(prefix, KEY)
    (prefix / "new.py").write_text("")
    os.utime(prefix / "new.py", (1, 1))
    before = (prefix.parent / "cache").read_bytes()
    found, _ = looked(prefix, None)
    assert found["optim.py"] == FALSE
    assert (prefix.parent / "cache").read_bytes() == before


@pytest.mark.parametrize("attack", ["writable by others", "a hard link"])
def test_a_cache_of_others_is_refused_with_and_without_a_key(prefix: Path, attack: str) -> None:
    """INVARIANT I16: refused with the reason; the twin is the file as it was."""
    forge(prefix, KEY)
    path = prefix.parent / "cache"
    FileCache(str(path), KEY)
    if attack == "a hard link":
        os.link(path, prefix.parent / "second")
    else:
        path.chmod(0o620)
    for key in (None, KEY):
        with pytest.raises(EvidenceError, match="others may write this cache"):
            FileCache(str(path), key)


@pytest.mark.parametrize("kind", ["a link", "a FIFO", "a folder"])
def test_a_cache_that_is_no_file_is_refused(prefix: Path, kind: str) -> None:
    """Nothing is read from it, and it is not renamed away."""
    path = prefix.parent / "cache"
    if kind == "a link":
        path.symlink_to("/etc/passwd")
    elif kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = os.lstat(path)
    with pytest.raises(EvidenceError, match="expected a regular file"):
        looked(prefix, KEY)
    assert os.lstat(path) == before


WRITER = """
import sys
from policyguard.environment.cache import FileCache
for number in range(30):
    cache = FileCache(sys.argv[1], bytes(32))
    assert not cache.doubt, cache.doubt
    cache.remember(f"{sys.argv[2]}-{number}", (1, 2, 3, 4, 5), "sha256:" + "1" * 64)
    cache.save()
"""


def test_many_writers_leave_a_whole_file(tmp_path: Path) -> None:
    """Each writes beside it and renames: whoever reads meanwhile finds one or the other, sealed."""
    path = tmp_path / "cache"
    environment = {"PYTHONPATH": str(Path(__file__).parents[3])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], env=environment) for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    cache = FileCache(str(path), bytes(32))
    assert cache.doubt == ""
    assert sum(cache.digest(f"{who}-29", (1, 2, 3, 4, 5)) is not None for who in range(4)) >= 1
    assert [each.name for each in tmp_path.iterdir()] == ["cache"]


def test_a_name_that_is_no_utf_8_does_not_keep_the_rest_from_being_remembered(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One odd file name would else cost every start the whole hash."""
    (Path(os.fsdecode(os.fsencode(prefix) + b"/od\xffd.py"))).write_text("")
    later = time.time_ns() + RACY_NS + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    looked(prefix, KEY)
    assert list_files(str(prefix), FileCache(str(prefix.parent / "cache"), KEY)).read == 0


# ---- the cache of checkpoints' digests


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip(GOOD, **STORAGE))
    return path


def opened(checkpoint: Path, key: bytes | None) -> DigestCache:
    here = frozenset({file_system(checkpoint) or ""})
    return DigestCache.open(checkpoint.parent / "digests", key=key, filesystems=here)


def test_a_forged_digest_of_a_checkpoint_is_not_believed(checkpoint: Path) -> None:
    """INVARIANT I16, for weights: who can write the cache and not read the key exchanges no file unseen."""
    for forger, believed in ((None, False), (OTHER, False), (KEY, True)):
        cache = DigestCache(checkpoint.parent / "digests", frozenset({file_system(checkpoint) or ""}), key=forger)
        cache.remember(os.stat(checkpoint), checkpoint, "0" * 64, time.time_ns() + 2 * QUIET_S * 10**9)
        cache.save()
        found = opened(checkpoint, KEY)
        assert (scan_file(checkpoint, Options(cache=found)).sha256 == "0" * 64) is believed
        assert bool(found.doubt) is not believed


def test_the_old_format_of_digests_is_not_believed(checkpoint: Path) -> None:
    """It has no seal and no version that we know; it is built again."""
    path = checkpoint.parent / "digests"
    path.write_bytes(b'{"version": 1, "digests": []}')
    path.chmod(0o600)
    for key in (None, KEY):
        assert opened(checkpoint, key).doubt == "it is of another version, or damaged"
