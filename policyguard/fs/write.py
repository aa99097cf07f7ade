"""Writes files completely and durably, or not at all.

The data is written to a new file `.<random>.part` in the same folder and synced; then the file is renamed, and the
folder is synced. A crash leaves the old file or the new one, and at most a `.part` file. Raises `OSError`, or
`ValueError` for a path that no system call accepts; callers convert both to their own errors.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from policyguard.fs.safe_open import kind_of

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def create_file(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644) -> None:
    """Write a new file; raise if it exists.

    Args:
        mode: permissions, less those that the umask removes.

    Raises:
        FileExistsError: the name is taken, if only by a dangling link; what has it stays as it is.
    """
    # INVARIANT I14: a key file is never overwritten; `link` fails where `rename` would replace.
    _write(os.fspath(path), data, mode, os.link)


def replace_file(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o644, ignore_umask: bool = False) -> None:
    """Write a file, or replace a regular one; the last of several writers wins.

    Args:
        mode: permissions, less those that the umask removes unless `ignore_umask`.

    Raises:
        OSError: also if something other than a regular file has this name.
    """
    check_replaceable(path)
    _write(os.fspath(path), data, mode, os.replace, ignore_umask=ignore_umask)


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Check that a path is a regular file, or a new name in an existing folder.

    Raises:
        OSError: the path names something else.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        os.stat(_folder_of(os.fspath(path)))
        return
    # INVARIANT I14: a device, a link or a folder is never renamed away: as root that would be the machine's own.
    if not stat.S_ISREG(status.st_mode):
        problem = f"found {kind_of(status.st_mode)}, expected a regular file or a new path"
        raise OSError(errno.EINVAL, problem, os.fspath(path))


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable; without this, a crash can lose the name of a synced file."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard_output(descriptor: int) -> None:
    """Discard what an output stream could not write, so that the interpreter does not report the error at exit."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


@contextmanager
def open_new(path: str | os.PathLike[str], *, replace: bool, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file to write to; it gets its name when the block ends without an error, and is gone otherwise.

    Args:
        path: the name.
        replace: replace a regular file of that name; otherwise the name must be new.
        mode: permissions, less those that the umask removes.

    Raises:
        FileExistsError: the name is taken.
        OSError: something other than a regular file has it.
    """
    if replace:
        check_replaceable(path)
    with _opened(os.fspath(path), mode, os.replace if replace else os.link) as file:
        yield file


def _write(
    path: str, data: bytes, mode: int, give_name: Callable[[str, str], None], *, ignore_umask: bool = False
) -> None:
    with _opened(path, mode, give_name) as file:
        if ignore_umask:
            os.fchmod(file.fileno(), mode)
        file.write(data)


@contextmanager
def _opened(path: str, mode: int, give_name: Callable[[str, str], None]) -> Iterator[BinaryIO]:
    folder = _folder_of(path)
    temp_path = os.path.join(folder, f".{os.urandom(8).hex()}.part")
    handle = os.open(temp_path, _NEW_FILE, mode)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        give_name(temp_path, path)
    finally:
        try:
            os.unlink(temp_path)
        except FileNotFoundError:
            pass  # It was renamed.
    sync_folder(folder)


def _folder_of(path: str) -> str:
    return os.path.dirname(path) or "."
