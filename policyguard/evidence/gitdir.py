"""Finding a repository and its HEAD by reading small files, without running git and without obeying its configuration.

Nothing read here is trusted to be true: `gitobjects` hashes every object again. What is refused: folders that belong to
somebody else, a `.git` that is a symbolic link, reference formats that this module does not know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass

from policyguard.errors import EvidenceError
from policyguard.evidence.files import read_small, shown

MAX_SMALL_FILE_BYTES = 65_536
MAX_PACKED_REFS_BYTES = 64 << 20
MAX_CONFIG_BYTES = 1 << 20

_REF = re.compile(rb"refs/(?!.*(?:\.\.|//|/\.|\.lock\Z|\.lock/))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_OID = re.compile(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitDir:
    """Where a working tree (`root`), its own files (`own`) and the files shared by all its working trees are."""

    root: str
    own: str
    shared: str

    @property
    def objects(self) -> str:
        return os.path.join(self.shared, "objects")


def find_gitdir(directory: str, owners: Collection[int]) -> GitDir:
    """Return the repository at or above a folder.

    Raises:
        EvidenceError: there is none, or it or a part of it belongs to a uid outside `owners`.
    """
    root = os.path.realpath(directory)
    while not os.path.lexists(os.path.join(root, ".git")):
        parent = os.path.dirname(root)
        if parent == root:
            raise EvidenceError(f"`{shown(directory)}`: found no git repository here or above")
        root = parent
    return gitdir_of(root, owners)


def gitdir_of(root: str, owners: Collection[int]) -> GitDir:
    """Return the repository whose working tree begins at `root`, which has a `.git`; see `find_gitdir`."""
    dot_git = os.path.join(root, ".git")
    if os.path.islink(dot_git):
        raise EvidenceError(f"`{shown(dot_git)}`: found a symbolic link, expected a folder or a file")
    own = dot_git if os.path.isdir(dot_git) else _pointed_to(dot_git)
    shared = own
    if os.path.lexists(os.path.join(own, "commondir")):
        shared = os.path.realpath(os.path.join(own, os.fsdecode(_line(os.path.join(own, "commondir")))))
    found = GitDir(root=root, own=own, shared=shared)
    for path in dict.fromkeys((root, dot_git, own, shared, found.objects)):
        _check_owner(path, owners)
    return found


def bare_gitdir(directory: str, owners: Collection[int]) -> GitDir:
    """Return the repository without a working tree whose files lie in this folder itself, links already resolved.

    Raises:
        EvidenceError: it is none, or it belongs to a uid outside `owners`.
    """
    found = GitDir(root=directory, own=directory, shared=directory)
    for path in (directory, found.objects):
        _check_owner(path, owners)
    return found


def head(git: GitDir) -> tuple[str, str | None]:
    """Return the object id that HEAD names, unverified, and the branch it is on (None when detached)."""
    content = _line(os.path.join(git.own, "HEAD"))
    first: bytes | None = None
    for _ in range(5):  # git's own limit for references to references (refs.c, SYMREF_MAXDEPTH)
        if not content.startswith(b"ref:"):
            break
        ref = content[4:].strip()
        first = first or ref
        content = _ref_content(git, ref)
    if not _OID.fullmatch(content):
        raise EvidenceError(
            f"`{shown(git.own)}`: HEAD is `{shown(content[:80])}`, expected an object id or a reference"
        )
    branch = None if first is None else shown(first.removeprefix(b"refs/heads/"))
    return content.decode(), branch


def config_text(git: GitDir) -> bytes:
    """Return the repository's own configuration as text; empty if there is none. It is never obeyed."""
    path = os.path.join(git.shared, "config")
    return read_small(path, MAX_CONFIG_BYTES) if os.path.lexists(path) else b""


def history_doors(git: GitDir) -> tuple[str, ...]:
    """Return by which means this repository could show another history than its commits tell, sorted.

    `shallow` (old commits are missing), `grafts` and `replace_refs` (others are shown instead), `alternates` (objects
    are borrowed from another repository), `partial` (objects are fetched when needed).
    """
    doors = {
        "shallow": _has_content(os.path.join(git.shared, "shallow")),
        "grafts": _has_content(os.path.join(git.shared, "info", "grafts")),
        "alternates": _has_content(os.path.join(git.objects, "info", "alternates")),
        "replace_refs": _has_replacements(git),
        "partial": b"partialclone" in config_text(git).lower() or b"promisor" in config_text(git).lower(),
    }
    return tuple(sorted(door for door, is_open in doors.items() if is_open))


def _pointed_to(dot_git: str) -> str:
    content = _line(dot_git)
    if not content.startswith(b"gitdir:"):
        raise EvidenceError(f"`{shown(dot_git)}`: found `{shown(content[:80])}`, expected `gitdir: PATH`")
    target = os.path.join(os.path.dirname(dot_git), os.fsdecode(content[7:].strip()))
    return os.path.realpath(target)


def _check_owner(path: str, owners: Collection[int]) -> None:
    try:
        uid = os.lstat(path).st_uid
    except (OSError, ValueError):
        raise EvidenceError(f"`{shown(path)}`: found nothing here, expected a part of a git repository") from None
    # INVARIANT I89: a repository whose owner is not the job's is not measured, its owner could change it afterwards.
    if uid not in owners:
        expected = " or ".join(f"uid {owner}" for owner in sorted(owners))
        raise EvidenceError(
            f"`{shown(path)}`: belongs to uid {uid}, expected {expected}",
            help="clone the repository as the user who runs the job; there is no safe.directory to switch this off",
        )


def ref_id(git: GitDir, ref: bytes) -> str | None:
    """Return the object id that this reference names, unverified; None if there is no such reference."""
    content = _found_ref(git, ref)
    if content is None:
        return None
    if not _OID.fullmatch(content):
        raise EvidenceError(f"`{shown(ref)}`: is `{shown(content[:80])}`, expected an object id")
    return content.decode()


def _ref_content(git: GitDir, ref: bytes) -> bytes:
    content = _found_ref(git, ref)
    if content is None:
        raise EvidenceError(
            f"`{shown(git.own)}`: the reference `{shown(ref)}` does not exist, expected a commit; a repository without "
            "commits, or with its references in a reftable, cannot be measured"
        )
    return content


def _found_ref(git: GitDir, ref: bytes) -> bytes | None:
    if not _REF.fullmatch(ref):
        raise EvidenceError(f"`{shown(git.own)}`: found the reference name `{shown(ref[:80])}`, expected `refs/...`")
    for folder in dict.fromkeys((git.own, git.shared)):
        path = os.path.join(folder, os.fsdecode(ref))
        if os.path.lexists(path) and not os.path.isdir(path):
            return _line(path)
    packed = os.path.join(git.shared, "packed-refs")
    if os.path.lexists(packed):
        for line in read_small(packed, MAX_PACKED_REFS_BYTES).splitlines():
            oid, _, name = line.partition(b" ")
            if name == ref:
                return oid
    return None


def _has_replacements(git: GitDir) -> bool:
    folder = os.path.join(git.shared, "refs", "replace")
    if any(files for _, _, files in os.walk(folder)):
        return True
    packed = os.path.join(git.shared, "packed-refs")
    return os.path.lexists(packed) and b" refs/replace/" in read_small(packed, MAX_PACKED_REFS_BYTES)


def _has_content(path: str) -> bool:
    return os.path.lexists(path) and bool(read_small(path, MAX_PACKED_REFS_BYTES).strip())


def _line(path: str) -> bytes:
    content = read_small(path, MAX_SMALL_FILE_BYTES).strip()
    if b"\0" in content:
        raise EvidenceError(f"`{shown(path)}`: found a NUL byte, expected a line of text")
    return content
