"""Writes the files of a commit into a new folder, as they are in the commit.

Every blob is hashed before it is written. Git's filters, attributes, hooks and replaced objects have no effect, because
only `git cat-file` runs, in a private git directory (`objects.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import reason_of
from policyguard.git.objects import ObjectReader
from policyguard.git.trees import EXECUTABLE, GITLINK, SYMLINK, Entry
from policyguard.git.worktree import LFS_POINTER, MAX_LFS_POINTER_BYTES
from policyguard.text import printable_name

FILE_MODE, PROGRAM_MODE, FOLDER_MODE = 0o444, 0o555, 0o555

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WITHOUT = "or start the job without `--from-commit`, if the policies allow it"


def export_files(reader: ObjectReader, files: Mapping[bytes, Entry], folder: str) -> None:
    """Write the files of a tree into an empty folder of ours; afterwards nothing in it is writable.

    Args:
        reader: the objects of the repository.
        files: as `files_of` lists them.
        folder: exists, is empty, and belongs to this account alone.

    Raises:
        EvidenceError: there is a submodule, a Git LFS pointer, or a link that leaves the tree; or the folder cannot be
            written, or its file system executes nothing.
    """
    _check_folder(folder)
    _check_submodules(files)
    progress = [b""]
    try:
        _write_all(reader, files, os.fsencode(folder), progress)
    except OSError as problem:
        raise EvidenceError(
            f"`{printable_name(progress[-1])}`: cannot be exported to `{printable_name(folder)}`: {reason_of(problem)}",
            help="set TMPDIR to a folder with space, on a file system that keeps names as they are",
        ) from problem


def _write_all(reader: ObjectReader, files: Mapping[bytes, Entry], top: bytes, progress: list[bytes]) -> None:
    """Write folders, then files, then links; `progress` ends with the path that is being written.

    A umask takes bits of the modes from everybody but this account, which starts the job.
    """
    folders = sorted({path[:end] for path in files for end in range(len(path)) if path[end] == 0x2F})
    for path in folders:
        progress[:] = [path]
        os.mkdir(os.path.join(top, path), 0o700)
    links = {}
    contents = reader.read_blobs([entry.oid for entry in files.values()])
    for path, entry in files.items():
        progress[:] = [path]
        content = _next(contents, path)
        if entry.mode == SYMLINK:
            links[path] = content
            continue
        _check_pointer(path, content)
        _write(os.path.join(top, path), content, PROGRAM_MODE if entry.mode == EXECUTABLE else FILE_MODE)
    # No file was written through a link, because there was none.
    for path, target in links.items():
        progress[:] = [path]
        _check_relative(path, target)
        os.symlink(target, os.path.join(top, path))
    for path in links:
        _check_stays_inside(top, path)
    for path in (*reversed(folders), b""):
        os.chmod(os.path.join(top, path), FOLDER_MODE)


def _next(contents: Iterator[bytes], path: bytes) -> bytes:
    try:
        return next(contents)
    except EvidenceError as problem:
        raise EvidenceError(f"`{printable_name(path)}`: {problem}") from problem


def _check_folder(folder: str) -> None:
    # Scripts of the commit would start nowhere else either, but the job would end with an error that explains nothing.
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise EvidenceError(
            f"`{printable_name(folder)}`: is on a file system that executes nothing (noexec), expected one that does",
            help="set TMPDIR to a folder on another file system",
        )


def _check_submodules(files: Mapping[bytes, Entry]) -> None:
    for path, entry in files.items():
        if entry.mode == GITLINK:
            raise EvidenceError(
                f"`{printable_name(path)}`: is a submodule, which has its own commit, expected files of this commit",
                help=f"add its files to this repository, or install it into the job's environment; {_WITHOUT}",
            )


def _check_pointer(path: bytes, content: bytes) -> None:
    if len(content) <= MAX_LFS_POINTER_BYTES and LFS_POINTER.fullmatch(content):
        raise EvidenceError(
            f"`{printable_name(path)}`: is a Git LFS pointer, expected the content of the file in the commit",
            help=f"put the file elsewhere and name it under `data:` or `checkpoints:`; {_WITHOUT}",
        )


def _check_relative(path: bytes, target: bytes) -> None:
    if not target or target.startswith(b"/") or b"\0" in target:
        raise _leaves(path, target)


def _check_stays_inside(top: bytes, path: bytes) -> None:
    # INVARIANT I15: an exported commit leads nowhere else, so all that it loads by its own names is part of it.
    full = os.path.join(top, path)
    if not os.path.realpath(full).startswith(os.path.realpath(top) + b"/") and os.path.realpath(full) != top:
        raise _leaves(path, os.readlink(full))


def _leaves(path: bytes, target: bytes) -> EvidenceError:
    return EvidenceError(
        f"`{printable_name(path)}`: is a link to `{printable_name(target)}`, expected one that stays in the commit",
        help=f"put the file into the commit, or name it under `data:`; {_WITHOUT}",
    )


def _write(path: bytes, content: bytes, mode: int) -> None:
    # Created with its mode: changing it afterwards takes a third of the time that an export does on ext4.
    descriptor = os.open(path, _NEW_FILE, mode)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
