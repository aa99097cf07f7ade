"""Compares a working tree with a commit by hashing every file; index, times and filters are ignored.

The index, with its assume-unchanged and skip-worktree bits, is not read, so nothing in it can hide a change. Clean
filters do not run; a Git LFS pointer is compared with the SHA-256 of the file that it points to.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from policyguard.errors import EvidenceError
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import FOLDER_FLAGS, open_regular, read_all, reason_of
from policyguard.git.directory import GitDir, gitdir_of
from policyguard.git.objects import ObjectReader, new_hasher, object_id, open_objects
from policyguard.git.refs import References
from policyguard.git.trees import EXECUTABLE, GITLINK, MAX_DEPTH, MAX_ENTRIES, SYMLINK, Entry, files_of, tree_of
from policyguard.text import printable_name

MAX_SUBMODULE_DEPTH = 8
MAX_LFS_POINTER_BYTES = 1_024
"""Git LFS specification: a pointer file must be less than 1024 bytes."""

_CODE = re.compile(
    rb"\.(?:py|pyw|pyc|pyo|pyz|pth|egg|egg-link|so|so\.[0-9.]+|dylib|pyd|sh|bash|pl|rb|lua|cu|ptx|cubin)\Z",
    re.IGNORECASE,
)
LFS_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n"
)


@dataclass(slots=True)
class Findings:
    """The differences between a working tree and its commit; paths are bytes from the outermost repository's top."""

    changed: list[bytes] = field(default_factory=list)
    untracked: list[bytes] = field(default_factory=list)
    ignored_code: list[bytes] = field(default_factory=list)
    environments: list[bytes] = field(default_factory=list)
    outside_links: list[bytes] = field(default_factory=list)
    submodules: list[bytes] = field(default_factory=list)
    bytecode: list[bytes] = field(default_factory=list)
    """What is in `__pycache__` and not in the commit, in no other list; whether Python loads it is another question."""


def compare(git: GitDir, commit: str, owners: Collection[int], deadline: float) -> tuple[str, Findings]:
    """Compare the working tree, with submodules, with a commit; return the commit's tree id and the differences.

    Args:
        git: the repository.
        commit: the id of the commit.
        owners: the user ids that may own the repository.
        deadline: a time of `time.monotonic()` after which git is stopped.
    """
    findings = Findings()
    tree = _compare(git, commit, findings, b"", owners, deadline, MAX_SUBMODULE_DEPTH)
    return tree, findings


def _compare(
    git: GitDir, commit: str, into: Findings, prefix: bytes, owners: Collection[int], deadline: float, depth: int
) -> str:
    if depth == 0:
        raise EvidenceError(f"found submodules nested deeper than {MAX_SUBMODULE_DEPTH}")
    with open_objects(git, commit, deadline) as reader:
        tree = tree_of(reader, commit)
        walk = _Walk(reader, files_of(reader, tree), git.root, deadline)
        walk.run()
        walk.sort_out_ignored()
    for name in ("changed", "untracked", "ignored_code", "environments", "outside_links", "bytecode"):
        getattr(into, name).extend(prefix + path for path in getattr(walk.findings, name))
    for path, entry in walk.submodules:
        below = gitdir_of(os.path.join(git.root, os.fsdecode(path)), owners)
        found_commit, _ = References(below).head()
        if found_commit != entry.oid:
            into.changed.append(prefix + path)
        into.submodules.append(prefix + path)
        _compare(below, found_commit, into, prefix + path + b"/", owners, deadline, depth - 1)
    return tree


class _Walk:
    """One pass over a working tree. Paths are removed from `expected` as they are seen; the rest was deleted."""

    def __init__(self, reader: ObjectReader, files: dict[bytes, Entry], root: str, deadline: float) -> None:
        self._reader, self._deadline = reader, deadline
        self._root = os.fsencode(root)
        self._all = files
        self._expected = dict(files)
        self._folders = {path[:i] for path in files for i in range(len(path)) if path[i] == 0x2F}
        self._met = 0
        self._unknown: dict[bytes, bool] = {}
        self.findings = Findings()
        self.submodules: list[tuple[bytes, Entry]] = []

    def run(self) -> None:
        top = os.open(self._root, FOLDER_FLAGS)
        try:
            self._visit(top, b"", 0)
        finally:
            os.close(top)
        self.findings.changed.extend(self._expected)

    def sort_out_ignored(self) -> None:
        """Classify what the commit does not contain: untracked, ignored code, or ignored.

        Code is ignored only on the word of a `.gitignore` that is itself in the commit and unchanged: an attacker who
        can drop a module can drop a `.gitignore` beside it.
        """
        ignored = self._reader.ignored_by(self._unknown)
        changed = set(self.findings.changed)
        for path, is_code in self._unknown.items():
            source = ignored.get(path)
            reviewed = source in self._all and source not in changed
            # INVARIANT I17: a file that can carry code and is not in the commit is always reported.
            if source is None or (is_code and not reviewed):
                self.findings.untracked.append(path)
            elif is_code:
                self.findings.ignored_code.append(path)

    def _visit(self, folder: int, prefix: bytes, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise EvidenceError(f"`{printable_name(prefix)}`: found folders nested deeper than {MAX_DEPTH}")
        if time.monotonic() > self._deadline:
            raise EvidenceError("comparing the working tree took too long")
        with os.scandir(folder) as listing:
            entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in listing]
        self._met += len(entries)
        if self._met > MAX_ENTRIES:
            raise EvidenceError(f"found more than {MAX_ENTRIES} files in the working tree")
        names = {name for name, _ in entries}
        if prefix and b"pyvenv.cfg" in names and b"__init__.py" not in names and prefix[:-1] not in self._folders:
            self.findings.environments.append(prefix[:-1])
            return
        for name, status in entries:
            if name != b".git":
                self._meet(folder, name, prefix + name, status, depth)

    def _meet(self, folder: int, name: bytes, path: bytes, status: os.stat_result, depth: int) -> None:
        entry = self._expected.pop(path, None)
        if stat.S_ISDIR(status.st_mode):
            self._enter(folder, name, path, entry, depth)
        elif entry is not None:
            if not self._same(folder, name, path, entry, status):
                self.findings.changed.append(path)
        elif name == b"__pycache__" or (name.endswith(b".pyc") and path.split(b"/")[-2:-1] == [b"__pycache__"]):
            self.findings.bytecode.append(path)
        else:
            runs = stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)
            self._unknown[path] = runs or stat.S_ISLNK(status.st_mode) or bool(_CODE.search(name))

    def _enter(self, folder: int, name: bytes, path: bytes, entry: Entry | None, depth: int) -> None:
        try:
            inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
        except OSError as problem:
            raise EvidenceError(f"`{printable_name(path)}`: {reason_of(problem)}") from problem
        try:
            if entry is not None and entry.mode == GITLINK:
                if ".git" in os.listdir(inner):
                    self.submodules.append((path, entry))
                    return
            elif entry is not None:
                self.findings.changed.append(path)
            self._visit(inner, path + b"/", depth + 1)
        finally:
            os.close(inner)

    def _same(self, folder: int, name: bytes, path: bytes, entry: Entry, status: os.stat_result) -> bool:
        if entry.mode == SYMLINK:
            if not stat.S_ISLNK(status.st_mode):
                return False
            target = os.fsencode(os.readlink(name, dir_fd=folder))
            self._note_outside_link(path, target)
            return object_id(self._reader.object_format, "blob", target) == entry.oid
        if not stat.S_ISREG(status.st_mode):
            return False
        fd, opened = open_regular(name, dir_fd=folder)
        try:
            if bool(opened.st_mode & 0o100) != (entry.mode == EXECUTABLE):
                return False
            hasher = new_hasher(self._reader.object_format, "blob", opened.st_size)
            read_all(fd, opened, path, hasher.update)
            return hasher.hexdigest() == entry.oid or self._is_pointed_to(fd, path, opened, entry)
        finally:
            os.close(fd)

    def _is_pointed_to(self, fd: int, path: bytes, status: os.stat_result, entry: Entry) -> bool:
        """Return True if the commit has a Git LFS pointer to this file."""
        pointer = LFS_POINTER.fullmatch(self._reader.read_small_blob(entry.oid, MAX_LFS_POINTER_BYTES) or b"")
        if pointer is None or int(pointer[2]) != status.st_size:
            return False
        os.lseek(fd, 0, os.SEEK_SET)
        hasher = hashlib.sha256()
        read_all(fd, status, path, hasher.update)
        return hasher.hexdigest().encode() == pointer[1]

    def _note_outside_link(self, path: bytes, target: bytes) -> None:
        resolved = os.path.realpath(os.path.join(self._root, os.path.dirname(path), target))
        if not is_below(resolved, self._root):
            self.findings.outside_links.append(path)
