"""Finds a repository by reading its small files, without running git or applying its configuration.

Nothing read here is trusted: `objects.py` hashes every object again. Folders of other accounts, and a `.git` that is a
symbolic link, are refused.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

MAX_SMALL_FILE_BYTES = 65_536
MAX_PACKED_REFS_BYTES = 64 << 20
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GitDir:
    """The folders of a repository: working tree (`root`), own files (`own`), and files shared by all working trees."""

    root: str
    own: str
    shared: str

    @property
    def objects(self) -> str:
        return os.path.join(self.shared, "objects")


def find_gitdir(directory: str, owners: Collection[int]) -> GitDir:
    """Find the repository that contains a folder.

    Raises:
        EvidenceError: there is none, or it or a part of it belongs to a uid outside `owners`.
    """
    root = repository_root(directory)
    if root is None:
        raise EvidenceError(f"`{printable_name(directory)}`: found no git repository here or above")
    return gitdir_of(root, owners)


def repository_root(directory: str) -> str | None:
    """Return the nearest folder with a `.git`, this one or one above it, links resolved; None if there is none."""
    root = os.path.realpath(directory)
    while not os.path.lexists(os.path.join(root, ".git")):
        parent = os.path.dirname(root)
        if parent == root:
            return None
        root = parent
    return root


def gitdir_of(root: str, owners: Collection[int]) -> GitDir:
    """Open the repository whose working tree begins at `root`, which contains `.git`; see `find_gitdir`.

    Raises:
        EvidenceError: `.git` is a symbolic link or malformed, or another account owns the repository.
    """
    dot_git = os.path.join(root, ".git")
    if os.path.islink(dot_git):
        raise EvidenceError(f"`{printable_name(dot_git)}`: found a symbolic link, expected a folder or a file")
    own = dot_git if os.path.isdir(dot_git) else _pointed_to(dot_git)
    shared = own
    if os.path.lexists(os.path.join(own, "commondir")):
        shared = os.path.realpath(os.path.join(own, os.fsdecode(read_line(os.path.join(own, "commondir")))))
    git = GitDir(root=root, own=own, shared=shared)
    for path in dict.fromkeys((root, dot_git, own, shared, git.objects)):
        _check_owner(path, owners)
    return git


def bare_gitdir(directory: str, owners: Collection[int]) -> GitDir:
    """Open a bare repository in a folder whose links are already resolved.

    Raises:
        EvidenceError: it is none, or it belongs to a uid outside `owners`.
    """
    git = GitDir(root=directory, own=directory, shared=directory)
    for path in (directory, git.objects):
        _check_owner(path, owners)
    return git


def config_text(git: GitDir) -> bytes:
    """Read the repository's own configuration as text; empty if there is none. It is never applied."""
    path = os.path.join(git.shared, "config")
    return read_small(path, MAX_CONFIG_BYTES) if os.path.lexists(path) else b""


def _pointed_to(dot_git: str) -> str:
    content = read_line(dot_git)
    if not content.startswith(b"gitdir:"):
        raise EvidenceError(
            f"`{printable_name(dot_git)}`: found `{printable_name(content[:80])}`, expected `gitdir: PATH`"
        )
    target = os.path.join(os.path.dirname(dot_git), os.fsdecode(content[7:].strip()))
    return os.path.realpath(target)


def _check_owner(path: str, owners: Collection[int]) -> None:
    try:
        uid = os.lstat(path).st_uid
    except (OSError, ValueError):
        raise EvidenceError(
            f"`{printable_name(path)}`: found nothing here, expected a part of a git repository"
        ) from None
    # INVARIANT I16: a repository whose owner is not the job's is not measured, its owner could change it afterwards.
    if uid not in owners:
        expected = " or ".join(f"uid {owner}" for owner in sorted(owners))
        raise EvidenceError(
            f"`{printable_name(path)}`: belongs to uid {uid}, expected {expected}",
            help="clone the repository as the user who runs the job; there is no safe.directory to switch this off",
        )


def read_line(path: str) -> bytes:
    """Read a small file of one line, without surrounding white space.

    Raises:
        EvidenceError: it cannot be read, is too large, or holds a NUL byte.
    """
    content = read_small(path, MAX_SMALL_FILE_BYTES).strip()
    if b"\0" in content:
        raise EvidenceError(f"`{printable_name(path)}`: found a NUL byte, expected a line of text")
    return content
