"""Checks that the path of an open log still leads to the file that was opened. Calls only `stat`.

Opening and closing the database file here would release SQLite's locks in this process: a POSIX lock is released when
any descriptor of its file is closed.
"""

from __future__ import annotations

import os

from policyguard.errors import AuditError, ConfigurationError
from policyguard.fs.mounts import shared_file_system
from policyguard.fs.private_files import DATABASE_FILES, check_mode
from policyguard.fs.safe_open import reason_of

_HELP = "put the log back, or start the guard again: it compares the log with its head file"


class LogLocation:
    """The identities and sizes of a log's files when it was opened; later they may only grow."""

    def __init__(self, path: str, before: os.stat_result) -> None:
        """Record the files of a log that was just opened; `before` is the `stat` of its path before opening."""
        # SQLite puts its other files beside the file that a link leads to.
        real = os.path.realpath(path)
        self._paths = [os.path.abspath(path), *(real + suffix for suffix in DATABASE_FILES[1:])]
        # What was put in place while the database was opened differs from `before` now, or at the first check.
        self._seen = [before, *(os.stat(name) for name in self._paths[1:])]
        self.check()

    def check(self, outcome: str = "nothing was added") -> None:
        """Raise unless every path still leads to the opened file and no file has shrunk.

        Raises:
            AuditError: one does not; `outcome` says what that means for the caller.
        """
        for number, path in enumerate(self._paths):
            seen = self._seen[number]
            try:
                now = os.stat(path)
            except OSError as problem:
                raise AuditError(f"log file `{path}` is gone: {reason_of(problem)}; {outcome}", help=_HELP) from None
            # INVARIANT I13: nothing is added to a file that the path of the log does not lead to.
            # Not by `identity_of`: this runs six times for each entry.
            if now.st_ino != seen.st_ino or now.st_dev != seen.st_dev:
                raise AuditError(
                    f"log file `{path}` was replaced, expected the file that this guard opened; {outcome}",
                    help=_HELP,
                )
            if now.st_size < seen.st_size:
                raise AuditError(
                    f"log file `{path}` was cut from {seen.st_size} to {now.st_size} bytes; {outcome}",
                    help=_HELP,
                )
            self._seen[number] = now


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
    kind = shared_file_system(path if status is not None else os.path.dirname(path) or ".")
    if kind is not None:
        raise ConfigurationError(
            f"log `{path}` lies on `{kind}`, expected a local file system: SQLite's locks do not hold there",
            help="keep the log on a local disk of one machine; PostgreSQL, for several machines, is not supported yet",
        )
