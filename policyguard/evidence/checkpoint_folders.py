"""Searches folders to the end for what a loader could read: files named like checkpoints, and files that begin as one.

The search is bounded; a folder that is not searched to its end is reported as such, and never counts as harmless.
"""

from __future__ import annotations

import glob
import os
import stat
import time
from collections.abc import Collection, Sequence

import msgspec

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.job import installations, program_of
from policyguard.evidence.named_paths import NamedPath, named_paths
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import open_plain
from policyguard.program.follow import Program
from policyguard.scan.findings import Exhausted, Findings, Limits
from policyguard.scan.formats.registry import begins_as_model, is_named_as_checkpoint
from policyguard.scan.source import FileSource, Truncated

MAX_ENTRIES = 500_000
"""The maximum number of files and folders in the folders that one job names."""

MAX_OPENED = 50_000
"""The maximum number of files of other names that are opened, to see whether they begin as a checkpoint."""

MAX_PATHS = 1_000
MAX_FILES = 20_000
"""The maximum number of files that are scanned for one job; more are data."""

MAX_SEARCH_S = 8.0
"""Less than a collector may take; a folder on a slow file system is not searched to its end."""

_LIMITS = Limits(opcodes=1_000, time_s=0.2)


class Searched(msgspec.Struct, frozen=True):
    """The folders and files to scan, and whether the search came to its end."""

    roots: tuple[str, ...]
    is_complete: bool


class Loadable(msgspec.Struct, frozen=True):
    """What a job can load: paths to scan, and what was not searched to its end."""

    paths: tuple[str, ...]
    not_searched: tuple[str, ...]


def loadable(inputs: JobInputs) -> Loadable:
    """List what the job file, the command, its variables and its settings name, and a loader could read.

    Raises:
        EvidenceError: they name too many paths.
    """
    named, program = named_paths(inputs), _program(inputs)
    search = FolderSearch(
        _installed(program, named.paths), [os.path.join(inputs.directory, path) for path in inputs.data.values()]
    )
    # What the command starts, its program and the files on the way: other facts say what these are.
    code = frozenset(os.path.normpath(path) for path in (*program.started, program.path) if path)
    paths: dict[str, None] = {}
    not_searched = list(named.unread)
    for candidate in named.paths:
        path = candidate.path
        if os.path.isdir(path):
            searched = search.search(path)
            paths |= dict.fromkeys(searched.roots)
            not_searched += () if searched.is_complete else (path,)
        elif (candidate.is_argument and not _is_code(path, code) and not _is_device(path)) or holds_model(path):
            paths[path] = None
    if len(paths) > MAX_PATHS:
        raise EvidenceError(f"{len(paths)} paths are named, expected at most {MAX_PATHS}")
    return Loadable(tuple(paths), tuple(not_searched))


def _program(inputs: JobInputs) -> Program:
    try:
        return program_of(inputs)
    except EvidenceError as problem:
        return Program(kind="unknown", reason=str(problem))


def _is_code(path: str, code: frozenset[str]) -> bool:
    return path.endswith(".py") or os.path.normpath(path) in code


def _is_device(path: str) -> bool:
    """Return True for a device such as /dev/null or a terminal, which is no file that something was stored in."""
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except OSError:
        return False


def _installed(program: Program, named: Sequence[NamedPath]) -> tuple[str, ...]:
    """List the folders of the command's environment that are not searched on the way: programs, and Python's packages.

    They are searched like other folders if a folder in that environment, or the environment itself, is named.
    """
    prefixes = installations(program.interpreter) if program.interpreter else ()
    folders = [os.path.realpath(candidate.path) for candidate in named if os.path.isdir(candidate.path)]
    installed: list[str] = []
    for prefix in map(os.path.realpath, prefixes):
        # INVARIANT I17: what a command names is searched, whatever it is called: anybody can make an environment.
        if not any(is_below(folder, prefix) for folder in folders):
            installed += (os.path.join(prefix, name) for name in ("bin", "include", "conda-meta"))
            installed += glob.iglob(os.path.join(glob.escape(prefix), "lib*", "python*"))
    return tuple(installed)


class FolderSearch:
    """Searches the folders of one job; the bounds are for all of them.

    Args:
        skipped: folders that are not searched, with links resolved, such as the packages of the environment.
        data: folders that the job declares as data: files of other names are opened there only up to the bound.
    """

    def __init__(self, skipped: Collection[str] = (), data: Collection[str] = ()) -> None:
        self._skipped, self._data = frozenset(skipped), tuple(data)
        self._seen: set[str] = set()
        self._entries = self._opened = self._files = 0
        self._deadline = time.monotonic() + MAX_SEARCH_S

    def search(self, folder: str) -> Searched:
        """List the topmost folders below this one that hold something a loader could read, or the folder itself."""
        roots: list[str] = []
        pending, is_complete = [folder], True
        is_data = any(is_below(os.path.realpath(folder), path) for path in self._data)
        while pending:
            current = pending.pop()
            real = os.path.realpath(current)
            if real in self._skipped or real in self._seen:
                continue
            self._seen.add(real)
            try:
                entries = list(os.scandir(current))
            except OSError:
                # A folder that cannot be listed here can be listed by the job.
                is_complete = False
                continue
            self._entries += len(entries)
            if self._entries > MAX_ENTRIES or time.monotonic() > self._deadline:
                return Searched(tuple(roots), False)
            files = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
            if any(is_named_as_checkpoint(entry.name) for entry in files):
                self._files += _count_files(current, MAX_FILES)
                if self._files > MAX_FILES:
                    return Searched(tuple(roots), False)
                roots.append(current)
                continue
            begin = [entry.path for entry in files if self._begins_as_model(entry)]
            roots += begin
            is_complete = is_complete and (is_data or self._opened <= MAX_OPENED)
            pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            # A link to a folder is followed by loaders; it is searched where it leads.
            pending += [os.path.realpath(entry.path) for entry in files if entry.is_symlink() and entry.is_dir()]
        return Searched(tuple(roots), is_complete)

    def _begins_as_model(self, entry: os.DirEntry[str]) -> bool:
        self._opened += 1
        return self._opened <= MAX_OPENED and holds_model(entry.path)


def _count_files(folder: str, maximum: int) -> int:
    count = 0
    for _, _, files in os.walk(folder):
        count += len(files)
        if count > maximum:
            break
    return count


def holds_model(path: str) -> bool:
    """Return True for a file that is named like a checkpoint, or whose content begins as one."""
    if is_named_as_checkpoint(path):
        return True
    try:
        descriptor, status = open_plain(path, follow_links=True)
    except (OSError, ValueError):
        return False
    try:
        source = FileSource(descriptor, status.st_size)
        return begins_as_model(source, source.read(0, 512), Findings(limits=_LIMITS))
    except (OSError, Truncated, Exhausted):
        # What cannot be recognised quickly is scanned.
        return True
    finally:
        os.close(descriptor)
