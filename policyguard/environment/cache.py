"""A cache of digests of installed files, and of which byte code equals which source.

An entry is used only if device, inode, size and both times of the file are unchanged, if the file had not changed
shortly before it was hashed, and if its file system updates the times at every write. The cache file is sealed if there
is a key (`fs/sealed.py`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection

import msgspec

from policyguard.errors import EvidenceError
from policyguard.fs.mounts import devices_of
from policyguard.fs.safe_open import FileVersion
from policyguard.fs.sealed import Opened, read_own, sealed, unsealed
from policyguard.fs.write import replace_file
from policyguard.text import printable_name

KIND = "environment-digests"
MAX_CACHE_BYTES = 256 << 20

RACY_NS = 5_000_000_000
"""A file changed this recently could change again within one clock tick, so its digest is not cached."""

_UNREMEMBERED = frozenset({"tmpfs", "ramfs", "fuse", "devtmpfs", "hugetlbfs"})
"""File systems where a write can leave the time stamps unchanged (memory maps, servers)."""


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """A file's digest, its version when it was hashed, and the source that its byte code equals."""

    version: FileVersion
    digest: str
    equal_to: str = ""


class FileCache:
    """Cache entries by name relative to the environment. `doubt` says why an existing file is not used."""

    def __init__(self, path: str, key: bytes | None = None) -> None:
        """Read the cache file, if it exists.

        Raises:
            EvidenceError: others may write it, or it is no regular file; then nothing is put in its place.
        """
        self._path, self._key = path, key
        opened = _read(path, key)
        self.doubt = opened.doubt
        self._foreign_seal = opened.is_sealed and key is None
        self._entries = _entries(opened)
        self._begun = time.time_ns()
        self._devices = devices_of(_UNREMEMBERED)
        self._changed = bool(self.doubt)

    def digest(self, name: str, version: FileVersion) -> str | None:
        """Return the cached digest of a file in this version; None if there is none."""
        known = self._entries.get(name)
        return known.digest if known is not None and known.version == version else None

    def equal_to(self, name: str, digest: str) -> str:
        """Return the source that byte code with this digest equals; empty if unknown."""
        known = self._entries.get(name)
        return known.equal_to if known is not None and known.digest == digest else ""

    def remember(self, name: str, version: FileVersion, digest: str) -> None:
        """Store a digest, unless a later write could have the same version.

        Args:
            name: the file, relative to the environment.
            version: the state of the file when it was read.
            digest: its SHA-256.
        """
        if max(version[3], version[4]) < self._begun - RACY_NS and version[0] not in self._devices:
            self._put(name, Remembered(version, digest, self.equal_to(name, digest)))
        elif self._entries.pop(name, None) is not None:
            self._changed = True

    def remember_equal(self, name: str, digest: str, equal_to: str) -> None:
        """Store which source byte code equals, if the cache has the byte code's digest.

        Args:
            name: the byte code, relative to the environment.
            digest: its SHA-256.
            equal_to: identifies the source and the interpreter.
        """
        known = self._entries.get(name)
        if known is not None and known.digest == digest:
            self._put(name, Remembered(known.version, digest, equal_to))

    def keep_only(self, names: Collection[str]) -> None:
        """Remove the entries of files that no longer exist."""
        for name in [name for name in self._entries if name not in names]:
            del self._entries[name]
            self._changed = True

    def save(self) -> None:
        """Write the cache if it changed; a failure only makes the next run slower."""
        # A file sealed with another key stays: its owner would not trust what we write.
        if not self._changed or self._foreign_seal:
            return
        try:
            replace_file(self._path, sealed(KIND, _ENCODER.encode(self._entries), self._key), mode=0o600)
            self._changed = False
        except (OSError, ValueError):
            return

    def _put(self, name: str, entry: Remembered) -> None:
        self._entries[name] = entry
        self._changed = True


def _read(path: str, key: bytes | None) -> Opened:
    if not os.path.lexists(path):
        return Opened()
    data = read_own(path, MAX_CACHE_BYTES)
    # INVARIANT I16: a cache that somebody else may write, or owns, says whatever they like.
    if data is None:
        raise EvidenceError(
            f"`{printable_name(path)}`: others may write this cache, expected a file of mode 0600 of our own"
        )
    return unsealed(KIND, data, key)


def _entries(opened: Opened) -> dict[str, Remembered]:
    try:
        return _DECODER.decode(opened.payload) if opened.payload is not None else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


_DECODER = msgspec.msgpack.Decoder(dict[str, Remembered])
_ENCODER = msgspec.msgpack.Encoder()
