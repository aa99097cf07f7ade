"""SHA-256 of open files, and a cache of digests that is sealed or private to this account.

A cached digest is used only if device, inode, size, modification and change time of the file are unchanged, if it had
not changed for `QUIET_S` before it was hashed, and if its file system keeps change times reliably. An account that
writes the file cannot reset its change time. This does not stop root, or a raw write to the disk. With a key, the cache
is sealed (`fs/sealed.py`), and used only if the seal is right.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.fs.mounts import file_system
from policyguard.fs.safe_open import FileVersion, version_of
from policyguard.fs.sealed import read_own, sealed, unsealed
from policyguard.fs.write import replace_file
from policyguard.scan.source import Truncated

BLOCK = 2**20
QUIET_S = 120
"""A file changed more recently than this may change again under the same times: a mapped page is stamped when first
touched, and again only at write-back, some 35 s later."""

HONEST_FILESYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})
"""Local file systems that update times for mapped writes; not tmpfs, and not network ones."""

MAX_ENTRIES = 100_000
MAX_CACHE_BYTES = 64 << 20
_REMOVE = "remove it; it is built again"
KIND = "checkpoint-digests"
Progress = Callable[[int], None]


def sha256_of(fd: int, size: int, progress: Progress | None = None) -> str:
    """Hash the first `size` bytes of an open file; raises `Truncated` if there are fewer.

    Args:
        fd: an open descriptor.
        size: how many bytes to hash.
        progress: is called as the work proceeds.
    """
    digest, buffer, at = hashlib.sha256(), memoryview(bytearray(BLOCK)), 0
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while at < size:
        count = os.preadv(fd, [buffer[: min(BLOCK, size - at)]], at)
        if not count:
            raise Truncated
        digest.update(buffer[:count])
        at += count
        if progress:
            progress(count)
    return digest.hexdigest()


@dataclass(slots=True)
class DigestCache:
    """Digests by file state, in memory; `open` reads the cache file and `save` writes it, if there is one.

    `doubt` says why the file that is there was not believed.
    """

    path: Path | None = None
    filesystems: frozenset[str] = HONEST_FILESYSTEMS
    clock_ns: Callable[[], int] = time.time_ns
    entries: dict[FileVersion, str] = field(default_factory=dict)
    key: bytes | None = field(default=None, repr=False)
    doubt: str = ""
    _foreign_seal: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changed: bool = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        key: bytes | None = None,
        filesystems: frozenset[str] = HONEST_FILESYSTEMS,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> DigestCache:
        """Read the cache at `path`; start empty if it does not exist or cannot be trusted.

        Args:
            key: what the file is sealed with; without one it is believed as a file of this account.

        Raises:
            ConfigurationError: the file or its folder could have been written by somebody else.
        """
        cache = cls(path, filesystems, clock_ns, key=key)
        _check_folder(path.parent)
        # INVARIANT I16: the cache is believed only if nobody but this account can have written it.
        try:
            data = read_own(str(path), MAX_CACHE_BYTES)
        except EvidenceError as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return cache
            raise ConfigurationError(f"digest cache {problem.message}", help=_REMOVE) from problem
        if data is None:
            raise ConfigurationError(
                f"digest cache `{path}` is not a file of mode 0600 that belongs to this account", help=_REMOVE
            )
        stored = unsealed(KIND, data, key)
        cache.doubt, cache._foreign_seal = stored.doubt, stored.is_sealed and key is None
        cache._changed = bool(stored.doubt)
        cache.entries = _parse(stored.payload) if stored.payload is not None else {}
        return cache

    def find(self, status: os.stat_result, path: Path) -> str | None:
        """Return the digest of a file in this state, if its file system's times are reliable."""
        with self._lock:
            digest = self.entries.get(version_of(status))
        return digest if digest and self._is_honest(path) else None

    def remember(self, status: os.stat_result, path: Path, sha256: str, hashed_from_ns: int) -> None:
        """Store a digest, unless the file changed shortly before `hashed_from_ns` or after it.

        Args:
            status: the status of the file.
            path: the file.
            sha256: its digest.
            hashed_from_ns: when hashing began.
        """
        # INVARIANT I16: a digest is reused only for a state of the file that cannot have changed unseen.
        if hashed_from_ns - max(status.st_mtime_ns, status.st_ctime_ns) < QUIET_S * 1_000_000_000:
            return
        if self._is_honest(path):
            with self._lock:
                self.entries[version_of(status)] = sha256
                self._changed = True

    def save(self) -> None:
        """Write the cache completely or not at all."""
        with self._lock:
            # A file sealed with another key stays: its owner would not trust what we write.
            if not self._changed or self.path is None or self._foreign_seal:
                return
            newest = list(self.entries.items())[-MAX_ENTRIES:]
            data = json.dumps({"digests": [[*key, digest] for key, digest in newest]})
            self._changed = False
        replace_file(self.path, sealed(KIND, data.encode(), self.key), mode=0o600)

    def _is_honest(self, path: Path) -> bool:
        return file_system(path) in self.filesystems


def _check_folder(folder: Path) -> None:
    try:
        status = os.stat(folder)
    except OSError as problem:
        raise ConfigurationError(f"digest cache folder `{folder}`: {problem.strerror}") from None
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise ConfigurationError(
            f"digest cache folder `{folder}` can be written by others",
            help="keep the cache in a folder that belongs to this account and has mode 0700",
        )


def _parse(data: bytes) -> dict[FileVersion, str]:
    try:
        return {
            (int(dev), int(inode), int(size), int(mtime), int(ctime)): digest
            for dev, inode, size, mtime, ctime, digest in json.loads(data)["digests"]
            if type(digest) is str and len(digest) == 64
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
