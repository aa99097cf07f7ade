"""The objects of a push: where git stores them before it is accepted, and which paths differ between trees.

Git checks a push in quarantine: new objects are in a separate folder, next to which git uses the repository's objects.
Git names both in the environment, which the pusher may control, so the quarantine must be a folder inside the
repository's object store. `git/objects.py` hashes every object again.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.git.directory import MAX_SMALL_FILE_BYTES, GitDir, bare_gitdir, find_gitdir
from policyguard.git.objects import ObjectReader
from policyguard.git.trees import MAX_DEPTH, TREE, Entry, parse_tree
from policyguard.text import printable_name

_CACHED_TREES = 256
"""The number of parsed trees kept; neighbouring commits share most trees."""


def find_store(directory: str, environment: Mapping[str, str], owners: Collection[int]) -> tuple[GitDir, str | None]:
    """Return the repository in a folder, bare or not, and the quarantine of the current push, if any.

    Args:
        directory: the folder of the repository.
        environment: the environment of the hook.
        owners: the user ids that may own the repository.

    Raises:
        EvidenceError: no repository, one of somebody else, or a quarantine that is not the repository's own.
    """
    real = os.path.realpath(directory)
    bare = all(os.path.lexists(os.path.join(real, part)) for part in ("HEAD", "objects", "refs"))
    git = bare_gitdir(real, owners) if bare else find_gitdir(real, owners)
    return git, _quarantine(git, real, environment)


def _quarantine(git: GitDir, directory: str, environment: Mapping[str, str]) -> str | None:
    path = environment.get("GIT_QUARANTINE_PATH")
    if not path:
        # Nothing of the environment reaches git then; other object folders in it are ignored.
        return None
    real = os.path.realpath(os.path.join(directory, path))
    # INVARIANT I16: objects are read from the repository and from git's own quarantine inside it, nowhere else.
    ours = os.path.dirname(real) == os.path.realpath(git.objects) and "incoming-" in os.path.basename(real)
    named = os.path.realpath(os.path.join(directory, environment.get("GIT_OBJECT_DIRECTORY", "")))
    if not ours or named != real or os.path.islink(real) or not os.path.isdir(real):
        raise EvidenceError(
            f"`{printable_name(path)}`: found a quarantine that is not in "
            f"`{printable_name(git.objects)}`, expected git's"
        )
    if ":" in git.objects or ":" in real:
        raise EvidenceError(f"`{printable_name(git.objects)}`: found `:` in the path, which git takes for two paths")
    _refuse_borrowing(real)
    return real


def _refuse_borrowing(quarantine: str) -> None:
    if os.path.lexists(os.path.join(quarantine, "info", "alternates")):
        raise EvidenceError(f"`{printable_name(quarantine)}`: found alternates in a quarantine, expected none")


def shallow_file(directory: str, environment: Mapping[str, str]) -> bool:
    """Return True if the push comes from a shallow clone: git then gives the hook a list of cut commits."""
    named = environment.get("GIT_SHALLOW_FILE", "")
    path = os.path.join(directory, named)
    return bool(named) and os.path.lexists(path) and bool(read_small(path, MAX_SMALL_FILE_BYTES).strip())


class Trees:
    """Compares trees, caching the last few; memory does not grow with the length of the history."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._parsed: OrderedDict[str, dict[bytes, Entry]] = OrderedDict()

    def changed(self, before: str | None, after: str | None) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
        """Yield path, old and new entry of every file that differs between two trees; None is the empty tree.

        Raises:
            EvidenceError: the folders are nested too deep.
        """
        waiting = [(b"", before, after, 0)]
        while waiting:
            prefix, old_tree, new_tree, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise EvidenceError(f"tree `{after}`: expected folders at most {MAX_DEPTH} deep")
            olds, news = self._entries(old_tree), self._entries(new_tree)
            for name in olds.keys() | news.keys():
                old, new = olds.get(name), news.get(name)
                if old == new:
                    continue
                path = prefix + name
                old_file, new_file = _file(old), _file(new)
                if old_file is not None or new_file is not None:
                    yield path, old_file, new_file
                if _folder(old) is not None or _folder(new) is not None:
                    waiting.append((path + b"/", _folder(old), _folder(new), depth + 1))

    def _entries(self, oid: str | None) -> dict[bytes, Entry]:
        if oid is None:
            return {}
        entries = self._parsed.get(oid)
        if entries is None:
            entries = dict(parse_tree(self._reader.read(oid, "tree"), len(oid) // 2))
            self._parsed[oid] = entries
            if len(self._parsed) > _CACHED_TREES:
                self._parsed.popitem(last=False)
        else:
            self._parsed.move_to_end(oid)
        return entries


def _file(entry: Entry | None) -> Entry | None:
    return entry if entry is not None and entry.mode != TREE else None


def _folder(entry: Entry | None) -> str | None:
    return entry.oid if entry is not None and entry.mode == TREE else None
