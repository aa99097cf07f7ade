"""The checks of `policyguard doctor` on the decision log: access, file system, consistency and head file."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from policyguard.audit.check import check_log
from policyguard.audit.check_claims import check_claims
from policyguard.audit.head import HeadLocation, head_path, read_head
from policyguard.audit.stores.location import check_writable_location
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.config.file import Config
from policyguard.config.trust_file import read_trust
from policyguard.errors import AuditError
from policyguard.fs.mounts import file_system
from policyguard.fs.private_files import check_mode
from policyguard.fs.safe_open import reason_of


def log_problems(config: Config) -> Iterator[str]:
    """List what is wrong with the log: not writable, inconsistent, or not the one its head file names.

    Raises:
        AuditError: the log cannot be read, does not add up, or others may read or change it.
        ConfigurationError: it lies on a file system whose locks do not hold.
    """
    if config.log is None:
        return
    if config.state_dir is not None and config.state_dir.exists() and not config.state_dir.is_dir():
        yield f"stateDir `{config.state_dir}` is not a folder"
    check_writable_location(str(config.log))
    if not os.path.lexists(config.log):
        return
    with SqliteStore.open(config.log, read_only=True) as store:
        location = HeadLocation.of(config.log, config.state_dir)
        path = head_path(location, store.origin)
        problem = _head_problem(path)
        if problem is not None and (store.has_head or os.path.lexists(path)) and store.last() is not None:
            yield f"{problem}; guards refuse the log: `policyguard audit accept-reset` goes on after you found out why"
        if store.last() is None:
            return
        head = read_head(location, store.origin)
        logs = read_trust(config.trust).logs if config.trust is not None else None
        check_log(store, logs, head=None if head is None or head.note is None else head.note.encode())
        check_claims((store,), time.time_ns())


def describe_log(config: Config) -> list[str]:
    """List the log's file system and the path of its head file."""
    if config.log is None:
        return ["not configured"]
    folder = os.path.dirname(config.log) or "."
    lies_on = file_system(config.log if config.log.exists() else folder) or "a file system that is not known"
    lines = [f"{os.path.abspath(config.log)}: on {lies_on}"]
    if not config.log.exists():
        return [f"{lines[0]}; there is no log yet"]
    by = "" if config.state_dir is not None else "; `stateDir:` is not configured, so it lies beside the log"
    try:
        with SqliteStore.open(config.log, read_only=True) as store:
            path = head_path(HeadLocation.of(config.log, config.state_dir), store.origin)
            problem, marked = _head_problem(path), store.has_head
    except AuditError:
        # `log_problems` says so.
        return lines
    if problem is None:
        return [*lines, f"head file {os.path.abspath(path)}{by}"]
    return [*lines, problem if marked else f"{problem}; it is made when a guard first opens the log"]


def _head_problem(path: str) -> str | None:
    """Say why this account's guard cannot use the head file; None if it can."""
    try:
        status = os.lstat(path)
    except OSError as problem:
        return f"head file `{path}` is not there: {reason_of(problem)}"
    if not stat.S_ISREG(status.st_mode):
        return f"head file `{path}` is not a regular file"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"head file `{path}` cannot be read and written by this account"
    try:
        check_mode(path, status, noun="head file ")
    except AuditError as problem:
        return problem.message
    folder = Path(path).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"state folder `{folder}` cannot be written by this account"
    return None
