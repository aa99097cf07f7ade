"""Reads the references of a repository, from files or a reftable, without running git.

`References` parses each file of a repository once. Nothing read here is verified: `objects.py` hashes every object that
a reference names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import FileVersion, read_small, version_of
from policyguard.git.directory import MAX_PACKED_REFS_BYTES, GitDir, config_text, read_line
from policyguard.git.reftable import LIST, stacked_refs
from policyguard.text import printable_name
from policyguard.values import OBJECT_ID

MAX_REFS = 1_000_000

_REF = re.compile(rb"refs/(?!.*(?:\.\.|//|/\.|\.lock\Z|\.lock/))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_STORAGE = re.compile(rb'refstorage\s*=\s*"?([^\s";#]*)')

_Stamp = FileVersion | None


class References:
    """The references of one repository; a file is parsed again only after git replaced it.

    Git never changes `packed-refs` or the list of a reftable in place: it writes a new file and renames it. So a file
    with the same inode, size and times still says the same.

    Raises:
        EvidenceError: the storage of the references is unknown or ambiguous, see `in_reftable`.
    """

    def __init__(self, git: GitDir) -> None:
        self._git = git
        self._in_reftable = in_reftable(git)
        self._parsed: dict[str, tuple[_Stamp, Mapping[bytes, bytes]]] = {}

    def head(self) -> tuple[str, str | None]:
        """Return the unverified object id of HEAD, and its branch (None when detached).

        Raises:
            EvidenceError: HEAD is malformed.
        """
        content = self.head_content()
        first: bytes | None = None
        for _ in range(5):  # git's own limit for references to references (refs.c, SYMREF_MAXDEPTH)
            if not content.startswith(b"ref:"):
                break
            ref = content[4:].strip()
            first = first or ref
            content = self._existing(ref)
        if not OBJECT_ID.fullmatch(content.decode("latin-1")):
            raise EvidenceError(
                f"`{printable_name(self._git.own)}`: HEAD is `{printable_name(content[:80])}`, "
                "expected an object id or a reference"
            )
        branch = None if first is None else printable_name(first.removeprefix(b"refs/heads/"))
        return content.decode(), branch

    def head_content(self) -> bytes:
        """Return the content of HEAD: `ref: NAME` or an object id.

        Raises:
            EvidenceError: there is no HEAD.
        """
        if not self._in_reftable:
            return read_line(os.path.join(self._git.own, "HEAD"))
        content = self._stacked(os.path.join(self._git.own, "reftable")).get(b"HEAD")
        if content is None:
            raise EvidenceError(f"`{printable_name(self._git.own)}`: found no HEAD in the reftable, expected one")
        return content

    def id_of(self, ref: bytes) -> str | None:
        """Return the unverified object id of a reference; None if it does not exist.

        Raises:
            EvidenceError: no name of a reference, or the reference names no object id.
        """
        content = self._content(ref)
        if content is None:
            return None
        if not OBJECT_ID.fullmatch(content.decode("latin-1")):
            raise EvidenceError(f"`{printable_name(ref)}`: is `{printable_name(content[:80])}`, expected an object id")
        return content.decode()

    def all(self) -> dict[str, str]:
        """Read every reference below `refs/` by name: its content, or why it is unreadable.

        Raises:
            EvidenceError: packed references or a reftable that cannot be read, or more than `MAX_REFS`.
        """
        if self._in_reftable:
            stacked = self._stacked(_stack(self._git))
            contents = {name: value for name, value in stacked.items() if name.startswith(b"refs/")}
        else:
            contents = dict(self._packed())
            for name, value in _loose(self._git):
                contents[name] = value
                if len(contents) > MAX_REFS:
                    raise EvidenceError(f"`{printable_name(self._git.shared)}`: found more than {MAX_REFS} references")
        return {printable_name(name): printable_name(value) for name, value in sorted(contents.items())}

    def is_packed(self, ref: bytes, oid: str) -> bool:
        """Return True if `packed-refs` has this value; False for a reftable, and while git packs."""
        if self._in_reftable or os.path.lexists(os.path.join(self._git.shared, "packed-refs.lock")):
            return False
        return self._packed().get(ref) == oid.encode()

    def has_replacements(self) -> bool:
        """Return True if any object is replaced by another (`git replace`)."""
        if self._in_reftable:
            return any(name.startswith(b"refs/replace/") for name in self._stacked(_stack(self._git)))
        folder = os.path.join(self._git.shared, "refs", "replace")
        if any(files for _, _, files in os.walk(folder)):
            return True
        return any(name.startswith(b"refs/replace/") for name in self._packed())

    def _existing(self, ref: bytes) -> bytes:
        content = self._content(ref)
        if content is None:
            raise EvidenceError(
                f"`{printable_name(self._git.own)}`: the reference `{printable_name(ref)}` does not exist, "
                "expected a commit; a repository without commits cannot be measured"
            )
        return content

    def _content(self, ref: bytes) -> bytes | None:
        git = self._git
        if not _REF.fullmatch(ref):
            raise EvidenceError(
                f"`{printable_name(git.own)}`: found the reference name `{printable_name(ref[:80])}`, "
                "expected `refs/...`"
            )
        if self._in_reftable:
            own = {} if git.own == git.shared else self._stacked(os.path.join(git.own, "reftable"))
            return own.get(ref) or self._stacked(_stack(git)).get(ref)
        # The reference's own file first: git packs it before it deletes that file, so one of the two is always there.
        for folder in dict.fromkeys((git.own, git.shared)):
            path = os.path.join(folder, os.fsdecode(ref))
            if os.path.lexists(path) and not os.path.isdir(path):
                return read_line(path)
        return self._packed().get(ref)

    def _packed(self) -> Mapping[bytes, bytes]:
        path = os.path.join(self._git.shared, "packed-refs")
        return self._unless_changed(path, lambda: _packed(path))

    def _stacked(self, folder: str) -> Mapping[bytes, bytes]:
        return self._unless_changed(os.path.join(folder, LIST), lambda: stacked_refs(folder))

    def _unless_changed(self, path: str, parse: Callable[[], Mapping[bytes, bytes]]) -> Mapping[bytes, bytes]:
        # Before parsing: a file that is replaced meanwhile has another stamp, and is parsed again next time.
        stamp = _stamp(path)
        known = self._parsed.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        parsed = parse()
        self._parsed[path] = (stamp, parsed)
        return parsed


def is_ref_name(ref: bytes) -> bool:
    """Return True if git accepts this text as the full name of a reference."""
    return _REF.fullmatch(ref) is not None


def in_reftable(git: GitDir) -> bool:
    """Return True if the repository stores its references in a reftable.

    Raises:
        EvidenceError: configuration and files disagree, or the storage is not known here.
    """
    text = config_text(git).lower()
    named = set(_STORAGE.findall(text)) or {b"an unknown storage" if b"refstorage" in text else b"files"}
    is_there = os.path.lexists(_stack(git))
    # INVARIANT I16: references are read only from the one storage that configuration and files agree on.
    if named != {b"reftable" if is_there else b"files"}:
        configured = ", ".join(f"`{printable_name(value)}`" for value in sorted(named))
        raise EvidenceError(
            f"`{printable_name(git.shared)}`: extensions.refStorage is {configured} and there is "
            f"{'a' if is_there else 'no'} reftable, expected both to agree on `files` or `reftable`"
        )
    return is_there


def history_overrides(git: GitDir, references: References | None = None) -> tuple[str, ...]:
    """List the mechanisms that make this repository show another history than its commits, sorted.

    `shallow` (old commits are missing), `grafts` and `replace_refs` (others are shown instead), `alternates` (objects
    are borrowed from another repository), `partial` (objects are fetched when needed).
    """
    config = config_text(git).lower()
    overrides = {
        "shallow": _has_content(os.path.join(git.shared, "shallow")),
        "grafts": _has_content(os.path.join(git.shared, "info", "grafts")),
        "alternates": _has_content(os.path.join(git.objects, "info", "alternates")),
        "replace_refs": (references or References(git)).has_replacements(),
        "partial": b"partialclone" in config or b"promisor" in config,
    }
    return tuple(sorted(name for name, is_set in overrides.items() if is_set))


def _packed(path: str) -> dict[bytes, bytes]:
    """Parse `packed-refs` into object ids by name; a line `^OID` gives the object behind the tag above it."""
    if not os.path.lexists(path):
        return {}
    packed: dict[bytes, bytes] = {}
    for line in read_small(path, MAX_PACKED_REFS_BYTES).splitlines():
        oid, _, name = line.partition(b" ")
        if name.startswith(b"refs/") and packed.setdefault(name, oid) != oid:
            raise EvidenceError(
                f"`{printable_name(path)}`: found `{printable_name(name[:80])}` twice with different ids, expected once"
            )
    return packed


def _stamp(path: str) -> _Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return version_of(status)


def _loose(git: GitDir) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of every file below `refs/`, except git's lock files."""
    top = os.fsencode(git.shared)
    for folder, inner, files in os.walk(os.path.join(top, b"refs")):
        links = [name for name in inner if os.path.islink(os.path.join(folder, name))]
        for file in (*files, *links):
            path = os.path.join(folder, file)
            if file.endswith(b".lock"):
                continue
            try:
                yield os.path.relpath(path, top), read_line(os.fsdecode(path))
            except EvidenceError as problem:
                if os.path.lexists(path):  # else git packed it meanwhile
                    yield os.path.relpath(path, top), f"unreadable: {problem}".encode("utf-8", "surrogateescape")


def _stack(git: GitDir) -> str:
    return os.path.join(git.shared, "reftable")


def _has_content(path: str) -> bool:
    return os.path.lexists(path) and bool(read_small(path, MAX_PACKED_REFS_BYTES).strip())
