"""Checks who can change a file: only the operator, or another account.

A path is walked from `/` down. Each folder, link and file on the way must belong to root or to the effective uid, and
no other account may be able to write it, so that nobody can change what the walk has already passed. This module
follows links itself, never the kernel. POSIX ACLs are checked. A folder of root with the sticky bit, such as `/tmp`, is
accepted, because others can neither rename nor replace our files there.

A file with a second hard link is refused, unless it is a program: the other name may be in the folder of a job, where a
tool of the operator that writes in place would change the configuration. Packages install programs with hard links.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from typing import AnyStr

from policyguard.errors import ConfigurationError
from policyguard.fs.safe_open import open_plain, reason_of
from policyguard.text import printable_name

OVERFLOW_UID = 65534
"""The uid that the kernel reports for an owner it cannot map, as in a user namespace. It is `nobody`, never root."""

_MAX_LINKS = 40
_MAX_ENTRIES = 100_000
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_PROGRAM = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_ACCESS_ACL = "system.posix_acl_access"
_ACL_VERSION, _ACL_USER, _ACL_GROUP, _ACL_MASK, _ACL_WRITE = 2, 0x02, 0x08, 0x10, 0x02
_NO_ACL = (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def check_owned(path: str | os.PathLike[str], *, apart: Sequence[str] = ()) -> str:
    """Check that only the operator can change this path and what it leads to; return its resolved name.

    The last component need not exist; then nobody else can create it.

    Args:
        path: a file or folder that a configuration or an option names.
        apart: folders that must not contain it: those of the job and its repository.

    Raises:
        ConfigurationError: another account could change it, it has a second name, or it is inside one of these folders.
    """
    resolved = _walk(os.path.abspath(os.fspath(path)), os.fspath(path))
    check_apart(resolved, apart, os.fspath(path))
    return resolved


def check_resolved(path: str | os.PathLike[str], *, apart: Sequence[str] = ()) -> str:
    """Check the file that this path leads to, and return its name without links, the only one that may be opened.

    For a path that the caller of the program chose: with a link in a folder of theirs they can choose nothing that they
    could not name. The link may lead elsewhere after the check.
    """
    resolved = _walk(os.path.realpath(path), os.fspath(path))
    check_apart(resolved, apart, os.fspath(path))
    return resolved


def check_owned_tree(path: str | os.PathLike[str], *, apart: Sequence[str] = ()) -> None:
    """Check a file, or a folder with everything in it; links in it are followed once.

    Raises:
        ConfigurationError: another account could change one of them.
    """
    pending = [check_owned(path, apart=apart)]
    seen = set[str]()
    while pending:
        folder = pending.pop()
        if folder in seen:
            continue
        seen.add(folder)
        if len(seen) > _MAX_ENTRIES:
            raise ConfigurationError(f"{path}: more than {_MAX_ENTRIES} entries, expected a folder of policies")
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.path for entry in entries)
        except NotADirectoryError:
            continue
        except FileNotFoundError:
            continue  # Its reader says that it is missing.
        except OSError as problem:
            raise ConfigurationError(f"{folder}: cannot be read: {reason_of(problem)}") from problem
        pending += [check_owned(name, apart=apart) for name in names]


def read_owned(path: str | os.PathLike[str], max_bytes: int, *, apart: Sequence[str] = ()) -> tuple[bytes, str]:
    """Read a file that only the operator can change; return its bytes and its resolved name.

    The descriptor that is read is checked as well: what was checked is what is read.

    Args:
        path: the file.
        max_bytes: its maximum size.
        apart: folders that must not contain it.

    Raises:
        ConfigurationError: it cannot be read, is longer than `max_bytes`, or another account could change it.
    """
    resolved = check_resolved(path, apart=apart)
    try:
        descriptor, status = open_plain(resolved)
        with open(descriptor, "rb") as file:
            problem = _problem_of(status, _acl_of(descriptor))
            data = file.read(max_bytes + 1)
    except OSError as error:
        reason = reason_of(error)
        text = reason if reason.startswith("found ") else f"cannot be read: {reason}"
        raise ConfigurationError(f"{path}: {text}") from error
    if problem is not None:
        raise _refusal(resolved, os.fspath(path), status, problem)
    if len(data) > max_bytes:
        raise ConfigurationError(f"{path}: larger than {max_bytes} bytes")
    return data, resolved


def is_written_by_only(path: str, owners: Collection[int]) -> bool:
    """Return True if a path and all above it belong to root or these accounts, and nobody else may write there."""
    while True:
        status = os.stat(path)
        is_sticky = status.st_mode & stat.S_ISVTX and status.st_uid == 0
        if status.st_uid not in {0, *owners} or (status.st_mode & 0o022 and not is_sticky):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def is_below(path: AnyStr, folder: AnyStr) -> bool:
    """Return True for the folder itself and all in it; both are absolute, with links resolved."""
    slash = "/" if isinstance(folder, str) else b"/"
    return path == folder or path.startswith(folder.rstrip(slash) + slash)


def check_apart(resolved: str, apart: Sequence[str], label: str) -> None:
    """Check that a resolved path is outside these folders.

    Args:
        resolved: the path without links.
        apart: the folders.
        label: the path as it was named, for errors.

    Raises:
        ConfigurationError: it is inside one of them.
    """
    for folder in apart:
        outside = os.path.realpath(folder)
        if is_below(resolved, outside):
            raise ConfigurationError(
                f"{printable_name(label)}: found in `{printable_name(outside)}`, the folder or repository of the job, "
                "expected a path outside of it",
                help="move it to a folder of the operator such as /etc/policyguard, or start the job elsewhere",
            )


def _walk(path: str, label: str) -> str:
    """Check each component of an absolute path; return the path without links."""
    pending, done, links = _parts(path), "/", 0
    _check("/", label)
    while pending:
        name = pending.pop()
        if name == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, name)
        status = _check(here, label)
        if status is None:
            # Nobody else can create what is missing in a folder that passed, unless everybody can create files there.
            _check_creatable(done, here, label)
            return os.path.normpath(os.path.join(here, *reversed(pending)))
        if not stat.S_ISLNK(status.st_mode):
            done = here
            continue
        links += 1
        if links > _MAX_LINKS:
            raise ConfigurationError(f"{printable_name(label)}: found a circle of symbolic links, expected a file")
        target = os.readlink(here)
        pending += _parts(target)
        done = "/" if target.startswith("/") else done
    return done


def _parts(path: str) -> list[str]:
    """Split a path into its components, last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _check(path: str, label: str) -> os.stat_result | None:
    """Check one component without following it; None if it does not exist."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{printable_name(label)}: cannot be read: {reason_of(problem)}") from problem
    acl = None if stat.S_ISLNK(status.st_mode) else _acl_of(path)
    problem_found = _problem_of(status, acl)
    if problem_found is not None:
        raise _refusal(path, label, status, problem_found)
    return status


def _check_creatable(folder: str, path: str, label: str) -> None:
    status = os.lstat(folder)
    if status.st_mode & _OTHERS:
        raise ConfigurationError(
            f"{printable_name(path)}: does not exist, and any account can create it in `{printable_name(folder)}`, "
            "expected a file of the operator",
            help=f"create it, or name a path in a folder that only the operator writes to ({printable_name(label)})",
        )


def is_trusted_owner(uid: int) -> bool:
    """Return True for root and the effective uid, never for the uid of an unknown owner."""
    return uid in (0, os.geteuid()) and uid != OVERFLOW_UID


def _problem_of(status: os.stat_result, acl: bytes | None) -> str | None:
    """Say how somebody other than the operator can change this file; None if nobody can."""
    if not is_trusted_owner(status.st_uid):
        return "owner"
    if stat.S_ISLNK(status.st_mode):
        return None  # A link has no mode of its own.
    # INVARIANT I1: what the operator vouches for has no second name, where a job could be.
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and not status.st_mode & _PROGRAM:
        return "links"
    if stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and status.st_mode & stat.S_ISVTX:
        return None
    if acl is not None:
        # With an ACL the group bits of the mode are its mask, the entries say who may write.
        return "acl" if status.st_mode & stat.S_IWOTH or _acl_lets_write(acl) else None
    return "mode" if status.st_mode & _OTHERS else None


def _acl_of(path: str | int) -> bytes | None:
    try:
        return os.getxattr(path, _ACCESS_ACL)
    except OSError as problem:
        if problem.errno in _NO_ACL:
            return None
        raise ConfigurationError(f"{path}: its ACL cannot be read: {reason_of(problem)}") from problem


def _acl_lets_write(acl: bytes) -> bool:
    """Return True if a POSIX ACL lets a named user or any group write."""
    # A version of four bytes, then entries of eight: tag, rights and id, little-endian.
    if len(acl) < 4 or (len(acl) - 4) % 8 or int.from_bytes(acl[:4], "little") != _ACL_VERSION:
        return True
    numbers = [int.from_bytes(acl[start : start + 2], "little") for start in range(4, len(acl), 2)]
    entries = [
        (tag, rights, low | high << 16)
        for tag, rights, low, high in zip(*(numbers[column::4] for column in range(4)), strict=True)
    ]
    mask = next((rights for tag, rights, _ in entries if tag == _ACL_MASK), _ACL_WRITE)
    return any(
        tag in (_ACL_USER, 0x04, _ACL_GROUP) and rights & mask & _ACL_WRITE
        for tag, rights, uid in entries
        if not (tag == _ACL_USER and is_trusted_owner(uid))
    )


def _refusal(path: str, label: str, status: os.stat_result, kind: str) -> ConfigurationError:
    name = printable_name(path)
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    named = "" if path == label else f"{printable_name(label)}: "
    owners = "root" if os.geteuid() == 0 else f"root or uid {os.geteuid()}"
    if kind == "owner":
        return ConfigurationError(
            f"{named}{name}: found owner uid {status.st_uid}, mode {mode}, expected owner {owners}: "
            "another account could change it",
            help=f"run `chown {os.geteuid()} {name}`, or move the file to a folder of the operator",
        )
    if kind == "links":
        return ConfigurationError(
            f"{named}{name}: found {status.st_nlink} hard links, expected a file with one name: another one may be in "
            "the folder of a job",
            help=f"run `cp -p {name} {name}.new && mv {name}.new {name}`",
        )
    by, command = ("an ACL", f"setfacl -b {name}") if kind == "acl" else (f"mode {mode}", f"chmod go-w {name}")
    return ConfigurationError(
        f"{named}{name}: found owner uid {status.st_uid}, {by}{f' and mode {mode}' if kind == 'acl' else ''}, "
        f"expected that only {owners} can write to it",
        help=f"run `{command}`",
    )
