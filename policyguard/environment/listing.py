"""Lists every file of an installed environment with its digest, using a cache.

A listing maps names, relative to the environment, to `sha256:...` for regular files (a link to a file counts as its
content, together with its target), and to `link:...` for other links. Byte code in `__pycache__` is listed separately,
because Python may write it at any time; it is compared with its source (`bytecode.py`). What the environment loads from
elsewhere (`outside.py`, and folders that links lead to) is listed under its absolute path.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import msgspec

from policyguard.environment.cache import FileCache
from policyguard.environment.outside import Outside, outside_of
from policyguard.errors import EvidenceError
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import (
    FOLDER_FLAGS,
    FileVersion,
    kind_of,
    open_regular,
    open_resolved,
    read_all,
    reason_of,
    version_of,
)
from policyguard.text import printable_name

MAX_FILES = 500_000

SETTLED_NS = 600_000_000_000
"""After this time the kernel has written back changed pages (Documentation/admin-guide/sysctl/vm, 30 s)."""

LARGE_BYTES = 1 << 20

MAX_BYTECODE_BYTES = 64 << 20
"""Larger byte code files get no digest; compilers write some hundred kilobytes."""


class Listing(msgspec.Struct, frozen=True):
    """The files of an environment by printable name, and how many had to be hashed.

    `files` and `bytecode` map to digests; `unread` is byte code that has none, and why. `real_names` has the real name
    where the shown one differs. `outside` lists files and folders elsewhere, `unmeasured` what could not be measured
    and why, `starting` the lines of path files that run when the interpreter starts.
    """

    root: str
    files: dict[str, str]
    bytecode: dict[str, str] = {}
    unread: dict[str, str] = {}
    real_names: dict[str, str] = {}
    read: int = 0
    outside: tuple[str, ...] = ()
    unmeasured: dict[str, str] = {}
    starting: dict[str, list[str]] = {}

    def path(self, name: str) -> str:
        """Return the path of the file with this printable name."""
        return os.path.join(self.root, self.real_names.get(name, name))


class _Walked(msgspec.Struct):
    """The files, byte code and links found in a folder, by printable name, with their versions."""

    regular: dict[str, FileVersion] = {}
    bytecode: dict[str, FileVersion] = {}
    links: list[str] = []
    real_names: dict[str, str] = {}
    folders: list[str] = []
    """Folders that links lead to."""


def list_files(
    prefix: str,
    cache: FileCache | None = None,
    *,
    users: Sequence[str] = (),
    owners: Collection[int] | None = None,
) -> Listing:
    """List the environment at `prefix`, and what it loads from elsewhere.

    Args:
        cache: supplies digests, and gets the new ones; it is not saved here.
        users: user site folders that count as elsewhere.
        owners: a standard library elsewhere that only they can write is not listed; root and this account if None.

    Raises:
        EvidenceError: no such folder, too many files, or a file that cannot be read or changes.
    """
    root = os.path.realpath(prefix)
    walked = _Walked()
    _walk(walked, root)
    outside = outside_of(root, users, (os.geteuid(),) if owners is None else owners)
    folders = _walk_outside(walked, root, outside)
    listing = Listing(root, {}, real_names=walked.real_names, outside=folders)
    listing = msgspec.structs.replace(listing, unmeasured=outside.unmeasured, starting=outside.starting)
    read = _digest_all(listing, walked.regular, listing.files, cache)
    read += _digest_bytecode(listing, walked.bytecode, cache)
    listing.files.update({name: _link(listing.path(name)) for name in walked.links})
    if cache is not None:
        cache.keep_only({*walked.regular, *walked.bytecode})
    return msgspec.structs.replace(listing, read=read)


def _digest_all(
    listing: Listing, versions: Mapping[str, FileVersion], digests: dict[str, str], cache: FileCache | None
) -> int:
    """Add the digest of each file; count those that had to be hashed."""
    fresh = []
    for name, version in versions.items():
        known = cache.digest(name, version) if cache is not None else None
        if known is not None:
            digests[name] = known
        else:
            fresh.append((name, listing.path(name)))
    for name, (version, digest) in _digests(fresh, versions, cache is not None).items():
        digests[name] = digest
        if cache is not None:
            cache.remember(name, version, digest)
    return len(fresh)


def _digest_bytecode(listing: Listing, versions: Mapping[str, FileVersion], cache: FileCache | None) -> int:
    """Add the digest of each byte code file, or the reason why it cannot be read."""
    large = {name: version[2] for name, version in versions.items() if version[2] > MAX_BYTECODE_BYTES}
    for name, size in large.items():
        listing.unread[name] = f"found {size} bytes, expected at most {MAX_BYTECODE_BYTES}"
    versions = {name: version for name, version in versions.items() if name not in large}
    try:
        return _digest_all(listing, versions, listing.bytecode, cache)
    except EvidenceError:
        listing.bytecode.clear()
    for name, version in versions.items():
        try:
            _digest_all(listing, {name: version}, listing.bytecode, cache)
        except EvidenceError as problem:
            listing.unread[name] = problem.message
    return len(versions)


def _walk(walked: _Walked, top: str, label: str = "", skipped: Collection[str] | None = None) -> None:
    """Add the files in a folder and below it; their names begin with `label`.

    Of a folder outside of the environment (`skipped` is not None) the `skipped` folders are left out, and those of git,
    which change all the time and hold no modules.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for entry in _entries(os.path.join(top, folder)):
            name = folder + entry.name
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if skipped is None or (entry.name != ".git" and os.path.join(top, name) not in skipped):
                    waiting.append(name + "/")
                continue
            name = label + name
            text = printable_name(name)
            if text != name:
                walked.real_names[text] = name
            if stat.S_ISLNK(status.st_mode):
                walked.links.append(text)
                if os.path.isdir(entry.path):
                    walked.folders.append(os.path.realpath(entry.path))
            elif name.endswith(".pyc") and folder.endswith("__pycache__/"):
                walked.bytecode[text] = version_of(status)
            else:
                walked.regular[text] = version_of(status)
        if len(walked.regular) + len(walked.bytecode) + len(walked.links) > MAX_FILES:
            raise EvidenceError(f"`{printable_name(top)}`: found more than {MAX_FILES} files")


def _walk_outside(walked: _Walked, root: str, outside: Outside) -> tuple[str, ...]:
    """Add the files and folders outside of the environment, and those that links there lead to; return them."""
    done = [root]
    waiting = list(outside.paths)
    while waiting or walked.folders:
        waiting += walked.folders
        walked.folders.clear()
        path = os.path.realpath(waiting.pop(0))
        # A folder of git counts where a path leads into it; then it is listed on its own.
        if any(is_below(path, folder) and "/.git/" not in path.removeprefix(folder) + "/" for folder in done):
            continue
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                _walk(walked, path, path.rstrip("/") + "/", {*done, *outside.skipped} - {path})
            elif stat.S_ISREG(status.st_mode):
                text = printable_name(path)
                walked.real_names.update({text: path} if text != path else {})
                walked.regular[text] = version_of(status)
            else:
                raise EvidenceError(f"found {kind_of(status.st_mode)}, expected a file or a folder")
        except (EvidenceError, OSError) as problem:
            reason = problem.message if isinstance(problem, EvidenceError) else reason_of(problem)
            outside.unmeasured[printable_name(path)] = reason
        done.append(path)
    return tuple(done[1:])


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        descriptor = os.open(folder, FOLDER_FLAGS)
    except OSError as problem:
        raise EvidenceError(f"`{printable_name(folder)}`: {reason_of(problem)}") from problem
    os.close(descriptor)
    with os.scandir(folder) as listing:
        return list(listing)


def _digests(
    files: list[tuple[str, str]], sizes: Mapping[str, FileVersion], synced: bool
) -> dict[str, tuple[FileVersion, str]]:
    """Compute the version and digest of each file; large files are hashed in parallel.

    Small files one after the other: opening them in threads costs three times more than it saves.
    """
    large = [file for file in files if sizes[file[0]][2] >= LARGE_BYTES]
    small = [file for file in files if sizes[file[0]][2] < LARGE_BYTES]
    digests = {name: _digest(path, synced) for name, path in small}
    if large:
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="policyguard-hash") as pool:
            large_digests = pool.map(_digest, [path for _, path in large], repeat(synced))
            digests.update(zip((name for name, _ in large), large_digests, strict=True))
    return digests


def _digest(path: str, synced: bool) -> tuple[FileVersion, str]:
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
    return version_of(status), f"sha256:{hasher.hexdigest()}"


def _link(path: str) -> str:
    target = printable_name(os.readlink(path))
    if not os.path.isfile(path):
        return f"link:{target}"
    descriptor, status, _ = open_resolved(path)
    try:
        hasher = hashlib.sha256()
        read_all(descriptor, status, path, hasher.update)
    finally:
        os.close(descriptor)
    return f"link:{target} sha256:{hasher.hexdigest()}"
