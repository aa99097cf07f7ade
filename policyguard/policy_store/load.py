"""Where snapshots come from: a folder of policies, or one compiled and signed file. Reads files.

The folder's path loads yaml, casbin and the CEL checker; the compiled file's path loads none of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from policyguard.attest.keys import PublicKey
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.policy.bundle import MAX_BUNDLE_BYTES, open_sealed

if TYPE_CHECKING:
    # Annotations only: with all that it imports, pathlib costs a hook three milliseconds.
    from pathlib import Path


def load_snapshot(path: str | Path, keys: Sequence[PublicKey]) -> Snapshot:
    """Return the snapshot of a policy folder, or of a compiled file that one of these keys has signed.

    Raises:
        PolicyErrors: mistakes in the policies. ConfigurationError: the path or the compiled file is unusable.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{path}: no policies there: {_why(problem)}") from problem
    if stat.S_ISDIR(status.st_mode):
        # The loader's imports cost five times a whole decision process; only this branch pays for them.
        loader: Any = import_module("policyguard.policy_store.folder")
        snapshot: Snapshot = loader.snapshot_of_folder(import_module("pathlib").Path(path))
        return snapshot
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path}: found neither a folder nor a file, expected policies")
    return Snapshot.from_compiled(*open_sealed(read_bounded(path, MAX_BUNDLE_BYTES), keys))


def stamp_of(path: str | Path) -> tuple[tuple[str, int, int, int, int], ...]:
    """Return name, inode, size and both times of everything at this path: another value once something changed.

    Cheap enough to ask every second; what cannot be seen leaves a gap, which is another value, too.
    """
    names = [os.fspath(path)]
    for folder, folders, files in os.walk(path):
        names += [os.path.join(folder, name) for name in (*folders, *files)]
    found = []
    for name in sorted(names):
        try:
            status = os.stat(name)
        except (OSError, ValueError):
            continue
        found.append((name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)


def read_bounded(path: str | Path, most: int) -> bytes:
    """Return the bytes of a regular file of at most this size, else raise `ConfigurationError`."""
    data = read_start(path, most + 1)
    if len(data) > most:
        raise ConfigurationError(f"{path}: larger than {most} bytes")
    return data


def read_start(path: str | Path, most: int) -> bytes:
    """Return the first bytes of a regular file, at most so many, else raise `ConfigurationError`.

    Never waits: a FIFO, a device or a terminal in the file's place is refused, not read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{path}: cannot be read: {_why(problem)}") from problem
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigurationError(f"{path}: found {kind_of(mode)}, expected a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {_why(problem)}") from problem
    finally:
        os.close(descriptor)


def kind_of(mode: int) -> str:
    """Return what people call this kind of file."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISLNK, "a link"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a regular file")


def _why(problem: Exception) -> str:
    # A path with a NUL in it is a ValueError.
    return (getattr(problem, "strerror", None) or str(problem)).lower()
