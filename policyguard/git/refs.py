"""References of a repository: HEAD, one by name, or all, from files or from a reftable, without running git.

Nothing read here is trusted to be true: `gitobjects` hashes every object again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.git.directory import MAX_PACKED_REFS_BYTES, GitDir, config_text, read_line
from policyguard.git.reftable import stacked_refs
from policyguard.text import printable_name, quoted_list

MAX_REFS = 1_000_000

_REF = re.compile(rb"refs/(?!.*(?:\.\.|//|/\.|\.lock\Z|\.lock/))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_OID = re.compile(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})")
_STORAGE = re.compile(rb'refstorage\s*=\s*"?([^\s";#]*)')


def head(git: GitDir) -> tuple[str, str | None]:
    """Return the object id that HEAD names, unverified, and the branch it is on (None when detached)."""
    content = head_content(git)
    first: bytes | None = None
    for _ in range(5):  # git's own limit for references to references (refs.c, SYMREF_MAXDEPTH)
        if not content.startswith(b"ref:"):
            break
        ref = content[4:].strip()
        first = first or ref
        content = _ref_content(git, ref)
    if not _OID.fullmatch(content):
        raise EvidenceError(
            f"`{printable_name(git.own)}`: HEAD is `{printable_name(content[:80])}`, "
            "expected an object id or a reference"
        )
    branch = None if first is None else printable_name(first.removeprefix(b"refs/heads/"))
    return content.decode(), branch


def head_content(git: GitDir) -> bytes:
    """Return what HEAD itself says, `ref: NAME` or an object id."""
    if not in_reftable(git):
        return read_line(os.path.join(git.own, "HEAD"))
    content = stacked_refs(os.path.join(git.own, "reftable")).get(b"HEAD")
    if content is None:
        raise EvidenceError(f"`{printable_name(git.own)}`: found no HEAD in the reftable, expected one")
    return content


def is_ref_name(ref: bytes) -> bool:
    """Return whether git would take this for the full name of a reference."""
    return _REF.fullmatch(ref) is not None


def ref_id(git: GitDir, ref: bytes) -> str | None:
    """Return the object id that this reference names, unverified; None if there is no such reference."""
    content = _found_ref(git, ref)
    if content is None:
        return None
    if not _OID.fullmatch(content):
        raise EvidenceError(f"`{printable_name(ref)}`: is `{printable_name(content[:80])}`, expected an object id")
    return content.decode()


def all_refs(git: GitDir) -> dict[str, str]:
    """Return every reference below `refs/` by name, as text: what its file or record says, or why it cannot be read.

    Raises:
        EvidenceError: packed references or a reftable that cannot be read, or more than `MAX_REFS`.
    """
    if in_reftable(git):
        found = {name: value for name, value in stacked_refs(_stack(git)).items() if name.startswith(b"refs/")}
    else:
        found = dict(_packed(git))
        for name, value in _loose(git):
            found[name] = value
            if len(found) > MAX_REFS:
                raise EvidenceError(f"`{printable_name(git.shared)}`: found more than {MAX_REFS} references")
    return {printable_name(name): printable_name(value) for name, value in sorted(found.items())}


def in_reftable(git: GitDir) -> bool:
    """Return whether git keeps this repository's references in a reftable.

    Raises:
        EvidenceError: configuration and files tell different stories, or it is a storage that is not known here.
    """
    text = config_text(git).lower()
    named = set(_STORAGE.findall(text)) or {b"an unknown storage" if b"refstorage" in text else b"files"}
    is_there = os.path.lexists(_stack(git))
    # INVARIANT I229: references are read only from the one storage that configuration and files agree on.
    if named != {b"reftable" if is_there else b"files"}:
        said = quoted_list(printable_name(value) for value in sorted(named))
        raise EvidenceError(
            f"`{printable_name(git.shared)}`: extensions.refStorage is {said} and there is {'a' if is_there else 'no'} "
            "reftable, expected both to agree on `files` or `reftable`"
        )
    return is_there


def history_overrides(git: GitDir) -> tuple[str, ...]:
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


def _ref_content(git: GitDir, ref: bytes) -> bytes:
    content = _found_ref(git, ref)
    if content is None:
        raise EvidenceError(
            f"`{printable_name(git.own)}`: the reference `{printable_name(ref)}` does not exist, "
            "expected a commit; a repository without commits cannot be measured"
        )
    return content


def _found_ref(git: GitDir, ref: bytes) -> bytes | None:
    if not _REF.fullmatch(ref):
        raise EvidenceError(
            f"`{printable_name(git.own)}`: found the reference name `{printable_name(ref[:80])}`, expected `refs/...`"
        )
    if in_reftable(git):
        own = {} if git.own == git.shared else stacked_refs(os.path.join(git.own, "reftable"))
        return own.get(ref) or stacked_refs(_stack(git)).get(ref)
    for folder in dict.fromkeys((git.own, git.shared)):
        path = os.path.join(folder, os.fsdecode(ref))
        if os.path.lexists(path) and not os.path.isdir(path):
            return read_line(path)
    return next((oid for name, oid in _packed(git) if name == ref), None)


def _packed(git: GitDir) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and object id of each packed reference; a line `^OID` says what the tag before it leads to."""
    path = os.path.join(git.shared, "packed-refs")
    if os.path.lexists(path):
        for line in read_small(path, MAX_PACKED_REFS_BYTES).splitlines():
            oid, _, name = line.partition(b" ")
            if name.startswith(b"refs/"):
                yield name, oid


def _loose(git: GitDir) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of every file below `refs/`; locks are git's own, and no references."""
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


def _has_replacements(git: GitDir) -> bool:
    if in_reftable(git):
        return any(name.startswith(b"refs/replace/") for name in stacked_refs(_stack(git)))
    folder = os.path.join(git.shared, "refs", "replace")
    if any(files for _, _, files in os.walk(folder)):
        return True
    packed = os.path.join(git.shared, "packed-refs")
    return os.path.lexists(packed) and b" refs/replace/" in read_small(packed, MAX_PACKED_REFS_BYTES)


def _stack(git: GitDir) -> str:
    return os.path.join(git.shared, "reftable")


def _has_content(path: str) -> bool:
    return os.path.lexists(path) and bool(read_small(path, MAX_PACKED_REFS_BYTES).strip())
