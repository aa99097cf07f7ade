"""A private folder that exists as long as a job; folders whose launcher was killed are removed later.

The launcher and, by inheritance, the processes of its job hold the lock of a file in the folder. When nobody holds it
any more, the next launcher of the same account removes the folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.fs.ownership import check_resolved
from policyguard.fs.private_files import open_lock
from policyguard.fs.safe_open import reason_of
from policyguard.text import printable_name

PREFIX = "policyguard-job-"

_LOCK = "lock"
_MIN_AGE_S = 60.0
"""A folder younger than this may be of a launcher that has not locked it yet."""


class JobFolder(msgspec.Struct, frozen=True, kw_only=True):
    """The folders of one job: `private` may be written by the job, `tree` takes the exported commit."""

    private: str
    tree: str
    lock_path: str
    lock: int
    """An open file with the folder's lock; a process that inherits it keeps the folder."""


@contextmanager
def job_folder() -> Iterator[JobFolder]:
    """Make the folders of a job below the folder for temporary files; remove them when the block ends.

    Raises:
        EvidenceError: they cannot be made.
    """
    base = os.environ.get("TMPDIR", "/tmp")
    try:
        base = os.path.realpath(tempfile.gettempdir())
        _sweep(base)
        top = tempfile.mkdtemp(prefix=PREFIX, dir=base)
    except OSError as problem:
        raise _unusable(base, problem) from problem
    lock = None
    try:
        try:
            lock = open_lock(os.path.join(top, _LOCK))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = JobFolder(
                private=os.path.join(top, "private"),
                tree=os.path.join(top, "tree"),
                lock_path=os.path.join(top, _LOCK),
                lock=lock,
            )
            os.mkdir(folder.private, 0o700)
            os.mkdir(folder.tree, 0o700)
        except OSError as problem:
            raise _unusable(base, problem) from problem
        yield folder
    finally:
        _remove(top)
        if lock is not None:
            os.close(lock)


def _unusable(base: str, problem: OSError) -> EvidenceError:
    return EvidenceError(
        f"`{printable_name(base)}`: no folder can be made for the job: {reason_of(problem)}",
        help="set TMPDIR to a folder that this account can write",
    )


def _sweep(base: str) -> None:
    """Remove what killed launchers of this account left here; nothing in a folder where others could exchange it."""
    with suppress(OSError, ConfigurationError):
        _sweep_entries(check_resolved(base))


def _sweep_entries(base: str) -> None:
    with os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _remove_abandoned(entry.path)


def _remove_abandoned(folder: str) -> None:
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        return
    if time.time() - status.st_mtime < _MIN_AGE_S:
        return
    lock = os.open(os.path.join(folder, _LOCK), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    except OSError as problem:
        if problem.errno != errno.EWOULDBLOCK:
            raise
    finally:
        os.close(lock)


def _remove(top: str) -> None:
    # An exported tree is read-only; only its own folders, which no link can replace, are made writable again.
    for folder, _, _ in os.walk(os.path.join(top, "tree")):
        with suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(top, ignore_errors=True)
