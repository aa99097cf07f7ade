"""The content of uncommitted files: small jobs may run from exactly the files that were decided on.

`resource.code` names these files; here are their digests, so that a worker and every later measurement
compare the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable

from policyguard.errors import EvidenceError
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import file_record, kind_of, reason_of
from policyguard.git.directory import gitdir_of
from policyguard.git.refs import References
from policyguard.text import printable_name
from policyguard.values import FrozenMap

UNCOMMITTED = "resource.uncommitted"

MAX_UNCOMMITTED_BYTES = 256 << 20
"""Larger content is not read: the fact is absent, with this reason."""


def uncommitted_files(
    root: str, paths: Iterable[bytes], owners: Iterable[int], deadline: float
) -> tuple[FrozenMap, ...]:
    """Describe each of these paths below `root` as `{path, digest, size}`, sorted.

    The digest is SHA-256 over the bytes of a file or over where a link leads; of a submodule it is its commit, and
    empty for what is gone or is a plain folder, whose files are listed themselves. A link that leads out of `root` is
    not readable: what it leads to could change unseen.

    Args:
        root: the top folder of the repository.
        paths: relative to it.
        owners: the user ids that may own submodules.
        deadline: a time of `time.monotonic()` after which git is stopped.

    Raises:
        EvidenceError: one cannot be read, is neither file, link nor folder, or all are too large or take too long.
    """
    records, remaining_bytes = [], MAX_UNCOMMITTED_BYTES
    for path in sorted(set(paths)):
        if time.monotonic() > deadline:
            raise EvidenceError("reading the uncommitted files took too long")
        record = _record(os.fsencode(root), path, frozenset(owners), remaining_bytes)
        remaining_bytes -= int(str(record["size"]))
        records.append(record)
    return tuple(records)


def _record(root: bytes, relative: bytes, owners: frozenset[int], max_bytes: int) -> FrozenMap:
    path, name = os.path.join(root, relative), printable_name(relative)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return FrozenMap(path=name, digest="", size=0)
    except OSError as problem:
        raise EvidenceError(f"`{name}`: {reason_of(problem)}") from problem
    if stat.S_ISLNK(status.st_mode):
        return _link(root, path, name)
    if stat.S_ISDIR(status.st_mode):
        inside = os.path.lexists(os.path.join(path, b".git"))
        commit = References(gitdir_of(os.fsdecode(path), owners)).head()[0] if inside else ""
        return FrozenMap(path=name, digest=commit, size=0)
    # A FIFO or a device is never opened.
    if not stat.S_ISREG(status.st_mode):
        raise EvidenceError(f"`{name}`: found {kind_of(status.st_mode)}, expected a regular file")
    if status.st_size > max_bytes:
        raise EvidenceError(f"uncommitted files hold more than {MAX_UNCOMMITTED_BYTES} bytes, `{name}` among them")
    return file_record(os.fsdecode(path), name)


def _link(root: bytes, path: bytes, name: str) -> FrozenMap:
    real, top = os.path.realpath(path), os.path.realpath(root)
    if real == top or not is_below(real, top):
        raise EvidenceError(f"`{name}`: an uncommitted link leads out of the repository")
    target = os.readlink(path)
    return FrozenMap(path=name, digest=hashlib.sha256(b"link " + target).hexdigest(), size=len(target))
