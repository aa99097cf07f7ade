"""Checks that the path of an open log still leads to the file that was opened.

Opening and closing the database file here would release SQLite's locks in this process: a POSIX lock is released when
any descriptor of its file is closed. Descriptors with `O_PATH` have no locks. They make the checks cheap: walking a
path costs several times an `fstat`, so names are resolved again only where their folder has changed.
"""

from __future__ import annotations

import os

from policyguard.errors import AuditError, ConfigurationError
from policyguard.fs.mounts import shared_file_system
from policyguard.fs.private_files import DATABASE_FILES, FolderState, check_mode
from policyguard.fs.safe_open import reason_of

_HELP = "put the log back, or start the guard again: it compares the log with its head file"


_PATH_ONLY = getattr(os, "O_PATH", None)
"""Descriptors that only `fstat` uses; closing one drops no lock of SQLite. Not on macOS."""


class LogLocation:
    """The identities and sizes of a log's files when it was opened; later they may only grow."""

    def __init__(self, path: str, before: os.stat_result) -> None:
        """Record the files of a log that was just opened; `before` is the `stat` of its path before opening."""
        # SQLite puts its other files beside the file that a link leads to.
        real = os.path.realpath(path)
        self._paths = [os.path.abspath(path), *(real + suffix for suffix in DATABASE_FILES[1:])]
        # What was put in place while the database was opened differs from `before` now, or at the first check.
        self._seen = [before, *(os.stat(name) for name in self._paths[1:])]
        self._sizes = [status.st_size for status in self._seen]
        self._folder = FolderState(os.path.dirname(real))
        self._handles: list[int] = []
        try:
            if _PATH_ONLY is not None:
                for name in self._paths[1:]:
                    self._handles.append(os.open(name, _PATH_ONLY | os.O_CLOEXEC))
            self._check_paths("nothing was added")
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise unless the files are those that were opened and none has shrunk; call it before SQLite reads.

        Reading past the end of a `-shm` file that was cut would end the process (SIGBUS), because SQLite maps it. A
        folder above the log that was renamed shows only in `check_written`.

        Raises:
            AuditError: one is not.
        """
        if self._handles and self._folder.is_unchanged():
            wal, shared = os.fstat(self._handles[0]).st_size, os.fstat(self._handles[1]).st_size
            if wal >= self._sizes[1] and shared >= self._sizes[2]:
                self._sizes[1:] = wal, shared
                return
        self._check_paths("nothing was added")

    def check_written(self) -> None:
        """Raise unless the path still leads to the file that was written; call it before a receipt is released.

        Raises:
            AuditError: it does not.
        """
        if self._handles and self._folder.is_unchanged():
            self._check_path(0, "nothing was released")
        else:
            self._check_paths("nothing was released")

    def close(self) -> None:
        """Close the descriptors."""
        self._folder.close()
        for handle in self._handles:
            os.close(handle)

    def _check_paths(self, outcome: str) -> None:
        begun = self._folder.begin()
        for number in range(len(self._paths)):
            self._check_path(number, outcome)
        self._folder.mark(begun)

    def _check_path(self, number: int, outcome: str) -> None:
        path, seen = self._paths[number], self._seen[number]
        try:
            now = os.stat(path)
        except OSError as problem:
            raise AuditError(f"log file `{path}` is gone: {reason_of(problem)}; {outcome}", help=_HELP) from None
        # INVARIANT I13: nothing is added to a file that the path of the log does not lead to.
        # Not by `identity_of`: this runs for each entry.
        if now.st_ino != seen.st_ino or now.st_dev != seen.st_dev:
            raise AuditError(
                f"log file `{path}` was replaced, expected the file that this guard opened; {outcome}", help=_HELP
            )
        if now.st_size < self._sizes[number]:
            raise AuditError(
                f"log file `{path}` was cut from {self._sizes[number]} to {now.st_size} bytes; {outcome}", help=_HELP
            )
        self._sizes[number] = now.st_size


def check_writable_location(path: str) -> None:
    """Refuse a log that other accounts can change, or on a file system without reliable locks.

    Raises:
        AuditError: the file has a wider mode than 0640.
        ConfigurationError: it lies on a network or FUSE file system.
    """
    try:
        status = os.stat(path)
    except OSError:
        status = None
    if status is not None:
        check_mode(path, status, noun="log ")
        # SQLite keeps the newest entries in a file beside the log, and makes it with the mode of the log.
        real = os.path.realpath(path)
        for name in (real + suffix for suffix in DATABASE_FILES[1:]):
            if os.path.lexists(name):
                check_mode(name, os.lstat(name), noun="log file ")
    kind = shared_file_system(path if status is not None else os.path.dirname(path) or ".")
    if kind is not None:
        raise ConfigurationError(
            f"log `{path}` lies on `{kind}`, expected a local file system: SQLite's locks do not hold there",
            help="keep the log on a local disk of one machine; PostgreSQL, for several machines, is not supported yet",
        )
