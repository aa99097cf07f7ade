"""Digests are those of sha256; the cache helps only where nobody else can have written it or the file."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from policyguard.errors import ConfigurationError
from policyguard.fs.mounts import file_system
from policyguard.scan.digest_cache import QUIET_S, DigestCache, sha256_of
from policyguard.scan.files import Options, scan_file, scan_paths
from policyguard.scan.source import Truncated
from tests.attacks.checkpoint_lab import GOOD, STORAGE, torch_zip

DATA = torch_zip(GOOD, **STORAGE)
RIGHT = hashlib.sha256(DATA).hexdigest()
WRONG = "0" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def file(place: Path) -> Path:
    path = place / "model.pt"
    path.write_bytes(DATA)
    return path


def opened(place: Path) -> DigestCache:
    return DigestCache.open(place / "digests.json", filesystems=frozenset({file_system(place) or ""}))


def remembered(place: Path, file: Path, digest: str = WRONG) -> None:
    """Put `digest` into the cache as if the file had been hashed well after it was last touched."""
    cache = opened(place)
    cache.remember(os.stat(file), file, digest, time.time_ns() + 2 * QUIET_S * 10**9)
    cache.save()


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 7])
def test_the_digest_is_that_of_sha256(size: int, tmp_path: Path) -> None:
    """Whatever the block boundaries."""
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    with open(tmp_path / "a", "rb") as file:
        assert sha256_of(file.fileno(), size) == hashlib.sha256(data).hexdigest()


def test_a_file_shorter_than_it_says_has_no_digest(file: Path) -> None:
    """Truncation is an exception, never a digest of less."""
    with open(file, "rb") as opened_file, pytest.raises(Truncated):
        sha256_of(opened_file.fileno(), len(DATA) + 1)


def test_a_remembered_digest_is_used(place: Path, file: Path) -> None:
    """The twin of every refusal below: an unchanged, quiet file is not hashed again."""
    remembered(place, file)
    assert scan_file(file, Options(cache=opened(place))).sha256 == WRONG


def test_a_changed_file_is_hashed_again(place: Path, file: Path) -> None:
    """INVARIANT I16: same size and modification time set back do not help; the change time moved."""
    remembered(place, file)
    before = os.stat(file)
    time.sleep(0.02)
    file.write_bytes(DATA)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(file).st_mtime_ns == before.st_mtime_ns
    assert scan_file(file, Options(cache=opened(place))).sha256 == RIGHT


def test_another_file_under_the_same_name_is_hashed_again(place: Path, file: Path) -> None:
    """A rename over the file brings another inode."""
    remembered(place, file)
    (place / "other").write_bytes(DATA)
    (place / "other").rename(file)
    assert scan_file(file, Options(cache=opened(place))).sha256 == RIGHT


def test_a_file_touched_a_moment_ago_is_not_remembered(place: Path, file: Path) -> None:
    """INVARIANT I16: a mapped page may still change under the same times."""
    cache = opened(place)
    scan_paths([file], Options(cache=cache))
    assert cache.entries == {}


def test_a_file_from_the_future_is_not_remembered(place: Path, file: Path) -> None:
    """A clock that is ahead does not make a file quiet."""
    ahead = time.time_ns() + 10**15
    os.utime(file, ns=(ahead, ahead))
    cache = opened(place)
    cache.remember(os.stat(file), file, WRONG, time.time_ns() + 10**12)
    assert cache.entries == {}


def test_a_file_system_of_unknown_habits_is_not_remembered(place: Path, file: Path) -> None:
    """INVARIANT I16: tmpfs and network file systems do not stamp every write."""
    cache = DigestCache.open(place / "digests.json", filesystems=frozenset({"none"}))
    cache.remember(os.stat(file), file, WRONG, time.time_ns() + 10**12)
    assert cache.entries == {}


@pytest.mark.parametrize("attack", ["readable by others", "a link", "a hard link", "folder of others", "a folder"])
def test_a_cache_that_others_may_have_written_is_refused(attack: str, place: Path, file: Path) -> None:
    """INVARIANT I16: refused with the reason, not silently ignored and never used."""
    remembered(place, file)
    path = place / "digests.json"
    if attack == "readable by others":
        path.chmod(0o644)
    elif attack == "a link":
        path.rename(place / "real.json")
        path.symlink_to("real.json")
    elif attack == "a hard link":
        os.link(path, place / "second.json")
    elif attack == "folder of others":
        place.chmod(0o777)
    else:
        path.unlink()
        path.mkdir(0o700)
    with pytest.raises(ConfigurationError, match="digest cache"):
        opened(place)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 9, "digests": []}', b'{"version":1,"digests":[[1]]}']
)
def test_a_damaged_cache_is_empty(content: bytes, place: Path) -> None:
    """It is a cache: what does not parse is built again."""
    (place / "digests.json").write_bytes(content)
    (place / "digests.json").chmod(0o600)
    assert opened(place).entries == {}


def test_the_cache_is_written_for_its_owner_only(place: Path, file: Path) -> None:
    """Mode 0600, and nothing is left beside it."""
    remembered(place, file)
    assert (place / "digests.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in place.iterdir()) == ["digests.json", "model.pt"]
