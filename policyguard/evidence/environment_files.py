"""Every file of an installed environment and its digest, with a cache that no change escapes.

A listing maps names relative to the environment to `sha256:...` for regular files (a link to a file counts as its
content, with where it leads), and to `link:...` for other links. Byte code in `__pycache__` is left out: the launcher
keeps Python from reading it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import msgspec

from policyguard.errors import EvidenceError
from policyguard.evidence.files import open_regular, open_resolved, read_all, read_small, shown

MAX_FILES = 500_000
MAX_CACHE_BYTES = 256 << 20

RACY_NS = 5_000_000_000
"""A file changed this recently may change again within one tick of its time stamps, so it is not remembered."""

SETTLED_NS = 600_000_000_000
"""The kernel has long written out what was dirty this long ago (Documentation/admin-guide/sysctl/vm, 30 s)."""

LARGE_BYTES = 1 << 20

_UNREMEMBERED = frozenset({"tmpfs", "ramfs", "fuse", "devtmpfs", "hugetlbfs"})
"""File systems where writing through a memory map, or the server, may leave the time stamps as they are."""

_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC

Version = tuple[int, int, int, int, int]


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """A digest, and the device, inode, size and times (ns) the file had when it was computed."""

    version: Version
    digest: str


class Listing(msgspec.Struct, frozen=True):
    """What is installed: names to digests, byte code without source, and how many files had to be read."""

    files: dict[str, str]
    stray_bytecode: tuple[str, ...] = ()
    read: int = 0


def list_files(prefix: str, cache: str | None = None) -> Listing:
    """Return the listing of the environment at `prefix`.

    Args:
        cache: a file of ours that remembers digests; made if it is not there, ignored and replaced if it is damaged.

    Raises:
        EvidenceError: no such folder, too many files, a file that cannot be read or changes, or a cache that others
            may write.
    """
    root = os.path.realpath(prefix)
    regular, links, stray = _walk(root)
    remembered = _read_cache(cache) if cache is not None else {}
    files: dict[str, str] = {}
    fresh: list[tuple[str, str]] = []
    for name, version in regular.items():
        known = remembered.get(name)
        if known is not None and known.version == version:
            files[name] = known.digest
        else:
            fresh.append((name, os.path.join(root, name)))
    begun = time.time_ns()
    digests = _digests(fresh, regular, cache is not None)
    files.update({name: digest for name, (_, digest) in digests.items()})
    files.update({name: _link(root, name) for name in links})
    if cache is not None and (fresh or len(remembered) != len(regular)):
        kept = {name: remembered[name] for name in regular if name in remembered and name not in digests}
        _write_cache(cache, {**kept, **_rememberable(digests, begun)})
    shown_files = {shown(name): digest for name, digest in files.items()}
    return Listing(shown_files, tuple(sorted(shown(name) for name in stray)), len(fresh))


def _walk(root: str) -> tuple[dict[str, Version], list[str], list[str]]:
    """Return regular files with their versions, links, and byte code in `__pycache__` that has no source beside it."""
    regular: dict[str, Version] = {}
    links: list[str] = []
    bytecode: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for entry in _entries(os.path.join(root, folder)):
            name = folder + entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(name + "/")
            elif stat.S_ISLNK(status.st_mode):
                links.append(name)
            elif name.endswith(".pyc") and folder.endswith("__pycache__/"):
                bytecode.append(name)
            else:
                regular[name] = _version(status)
        if len(regular) + len(links) > MAX_FILES:
            raise EvidenceError(f"`{shown(root)}`: found more than {MAX_FILES} files")
    return regular, links, [name for name in bytecode if _source_of(name) not in regular]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        descriptor = os.open(folder, _FOLDER)
    except OSError as problem:
        raise EvidenceError(f"`{shown(folder)}`: {(problem.strerror or 'cannot be opened').lower()}") from problem
    os.close(descriptor)
    with os.scandir(folder) as listing:
        return list(listing)


def _source_of(bytecode: str) -> str:
    folder, _, name = bytecode.rpartition("__pycache__/")
    return f"{folder}{name.partition('.')[0]}.py"


def _digests(
    files: list[tuple[str, str]], sizes: Mapping[str, Version], synced: bool
) -> dict[str, tuple[Version, str]]:
    """Return version and digest of each file; large ones are hashed side by side.

    Small files one after the other: opening them in threads costs three times more than it saves.
    """
    large = [file for file in files if sizes[file[0]][2] >= LARGE_BYTES]
    small = [file for file in files if sizes[file[0]][2] < LARGE_BYTES]
    digests = {name: _digest(path, synced) for name, path in small}
    if large:
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="policyguard-hash") as pool:
            found = pool.map(_digest, [path for _, path in large], repeat(synced))
            digests.update(zip((name for name, _ in large), found, strict=True))
    return digests


def _digest(path: str, synced: bool) -> tuple[Version, str]:
    descriptor, status = open_regular(path)
    try:
        if synced and time.time_ns() - status.st_ctime_ns < SETTLED_NS:
            # Dirty pages of a shared memory map are written out: from then on a write through it changes ctime.
            os.fdatasync(descriptor)
            status = os.fstat(descriptor)
        hasher = hashlib.sha256()
        read_all(descriptor, status, path, hasher.update)
    finally:
        os.close(descriptor)
    return _version(status), f"sha256:{hasher.hexdigest()}"


def _link(root: str, name: str) -> str:
    path = os.path.join(root, name)
    target = shown(os.readlink(path))
    if not os.path.isfile(path):
        return f"link:{target}"
    descriptor, status, _ = open_resolved(path)
    try:
        hasher = hashlib.sha256()
        read_all(descriptor, status, path, hasher.update)
    finally:
        os.close(descriptor)
    return f"link:{target} sha256:{hasher.hexdigest()}"


def _version(status: os.stat_result) -> Version:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _rememberable(digests: Mapping[str, tuple[Version, str]], begun: int) -> dict[str, Remembered]:
    """Return what may be used again without reading: old enough, and where time stamps can be relied on."""
    devices = _unreliable_devices()
    return {
        name: Remembered(version, digest)
        for name, (version, digest) in digests.items()
        if max(version[3], version[4]) < begun - RACY_NS and version[0] not in devices
    }


def _unreliable_devices() -> frozenset[int]:
    """Return the devices of mounted file systems whose time stamps do not follow every write (proc(5), mountinfo)."""
    devices = set()
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for mount in mounts:
                before, _, after = mount.partition(" - ")
                kind, major_minor = after.split(" ", 1)[0], before.split(" ", 3)[2]
                if kind.split(".")[0] in _UNREMEMBERED:
                    major, _, minor = major_minor.partition(":")
                    devices.add(os.makedev(int(major), int(minor)))
    except (OSError, ValueError, IndexError):
        return frozenset(devices)
    return frozenset(devices)


def _read_cache(path: str) -> dict[str, Remembered]:
    if not os.path.lexists(path):
        return {}
    status = os.lstat(path)
    # A cache that somebody else may write, or owns, says whatever they like.
    if status.st_uid != os.geteuid() or status.st_mode & 0o022 or not stat.S_ISREG(status.st_mode):
        raise EvidenceError(f"`{shown(path)}`: others may write this cache, expected a file of mode 0600 of our own")
    try:
        return _DECODER.decode(read_small(path, MAX_CACHE_BYTES))
    except (msgspec.DecodeError, EvidenceError, UnicodeDecodeError):
        return {}


def _write_cache(path: str, remembered: Mapping[str, Remembered]) -> None:
    """Put the cache in place whole: written beside it, then renamed. A crash leaves the old one; failing is fine."""
    beside = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_ENCODER.encode(remembered))
        os.replace(beside, path)
    except (OSError, ValueError, UnicodeEncodeError):
        return


_DECODER = msgspec.msgpack.Decoder(dict[str, Remembered])
_ENCODER = msgspec.msgpack.Encoder()
