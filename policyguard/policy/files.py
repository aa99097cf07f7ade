"""Reads a policy folder: every `*.yaml` and `*.yml` file below it, all from one moment.

A file that has a policy's name or content but would not be read (`deny.YAML`, `deny.yaml~`, `.deny.yaml`, a policy in
`deny.json`) is an error, so that no deny rule is silently left out. Other files, such as the CSV files of
casbin adapters or a `README.md` that quotes policies, are allowed.

The folder is listed, read and listed again; a change in between is an error, so that half an update is never loaded.
Symbolic links may point to files in the folder (as Kubernetes mounts ConfigMaps). Hidden folders are skipped.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping

from policyguard.errors import ConfigurationError, PolicyError, PolicyErrors
from policyguard.fs.safe_open import kind_of, open_plain, reason_of, version_of
from policyguard.policy.reader import MAX_FILE_BYTES
from policyguard.text import printable, printable_name
from policyguard.values import Span

SUFFIXES = (".yaml", ".yml")
MAX_FILES = 1_000
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_FOLDER_DEPTH = 16

_LIKE_YAML = re.compile(r"\.(?:ya?ml(?![a-z])|yam$|ymal$|yalm$)")
_SWAP = re.compile(r"\.sw[a-z]$")
"""Swap files of editors."""

_PROSE = (".md", ".rst", ".html")
"""Suffixes of pages about policies, which quote them."""

_IS_POLICY = re.compile(rb"[\"']?apiVersion[\"']?[ \t]*:[ \t]*[\"']?policyguard/v")

_QUOTED = re.compile(rb"^ {0,3}(```|~~~).*?^ {0,3}\1|<pre.*?</pre>", re.MULTILINE | re.DOTALL)
"""A quotation of such a page; an indented line is one as well."""

_BEGINS_POLICY = re.compile(rb"(?:^|\A\s*\{[^{}]*)" + _IS_POLICY.pattern, re.MULTILINE)

_RETRY = "try again when nothing changes the folder"

Version = tuple[int, ...]
"""The mode of a file and its `FileVersion`."""
"""Identifies one state of a file: device, inode, mode, size, modification time and change time."""


def read_folder(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """Return the content of every policy file below a folder, by path, sorted.

    Raises:
        ConfigurationError: see `collect_folder`.
        PolicyErrors: files that are named or written like policies would not be read; all of them are included.
    """
    sources, unread = collect_folder(path)
    # INVARIANT I6: what is written as a policy counts, or the load stops.
    if unread:
        raise PolicyErrors(unread)
    return sources


def collect_folder(path: str | os.PathLike[str]) -> tuple[dict[str, bytes], list[PolicyError]]:
    """Return the content of every policy file below a folder, and an error for each file that would not be read.

    Raises:
        ConfigurationError: not a folder, empty, too large, a link that leads outside, not a regular file, unreadable,
            or changed while it was read.
    """
    folder = os.fspath(path)
    unread: list[PolicyError] = []
    try:
        before = _listing(folder, unread)
        sources = _read_all(folder, before)
        after = _listing(folder, None)
    except OSError as problem:
        at = problem.filename if isinstance(problem.filename, str) else folder
        raise ConfigurationError(f"{_name(at)}: {_reason(problem)}") from problem
    # INVARIANT I6: what is loaded was in the folder at one time; a changed listing is an error.
    if before != after:
        moved = sorted(set(before.items()) ^ set(after.items()))[0][0]
        raise ConfigurationError(f"{_name(moved)}: changed while the folder was read", help=_RETRY)
    if not sources and not unread:
        raise ConfigurationError(f"{_name(folder)}: found no policy file, expected `*.yaml` or `*.yml`")
    return sources, unread


def _listing(folder: str, unread: list[PolicyError] | None) -> dict[str, Version]:
    """Return every visible folder and policy file below this one, with its version; links to folders are skipped.

    `unread` gets an error for each file that would not be read; None for a listing that only compares.
    """
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        raise ConfigurationError(f"{_name(folder)}: found no folder, expected one with policy files")
    versions = {folder: _version(os.stat(folder))}
    for path in _walk(folder, MAX_FOLDER_DEPTH, unread):
        versions[path] = _version(os.stat(path))
        if len(versions) > 4 * MAX_FILES:
            raise ConfigurationError(f"{_name(folder)}: found more than {4 * MAX_FILES} files and folders")
    return versions


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _walk(folder: str, depth: int, unread: list[PolicyError] | None) -> Iterator[str]:
    for entry in _entries(folder):
        if entry.name.startswith("."):
            if unread is not None and entry.is_dir(follow_symlinks=False):
                unread += _unread_below(entry, depth)
            elif unread is not None and not entry.is_dir() and entry.is_file():
                unread += _unread_errors(entry)
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth == 0:
                raise ConfigurationError(f"{_name(entry.path)}: found folders deeper than {MAX_FOLDER_DEPTH}")
            yield entry.path
            yield from _walk(entry.path, depth - 1, unread)
        elif entry.name.endswith(SUFFIXES) or (entry.is_symlink() and entry.is_dir()):
            yield entry.path
        elif unread is not None:
            unread += _unread_errors(entry)


def _unread_errors(entry: os.DirEntry[str]) -> Iterator[PolicyError]:
    """Yield an error for a file that has a policy's name or content but would not be read."""
    name = entry.name.lower()
    if _SWAP.search(name) is not None:
        return
    if _LIKE_YAML.search(name) is None and not _holds_policy(entry):
        return
    stem = entry.name.strip(".#~").partition(".")[0] or "policies"
    yield PolicyError(
        "found a policy file that would not be read, expected `*.yaml` or `*.yml`",
        span=Span(_name(entry.path), 1, 1),
        help=f"rename it to `{printable(stem, 60)}.yaml`, or move it out of the folder",
    )


def _unread_below(folder: os.DirEntry[str], depth: int) -> Iterator[PolicyError]:
    """Yield an error for each policy file below a hidden folder, which is not read.

    Left out are a repository's `.git`, and the folders `..data` and `..TIMESTAMP` of a mounted ConfigMap, to which its
    links lead.
    """
    if folder.name == ".git" or folder.name.startswith("..") or depth == 0:
        return
    for entry in _entries(folder.path):
        if entry.is_dir(follow_symlinks=False):
            yield from _unread_below(entry, depth - 1)
        elif entry.is_file() and _holds_policy(entry):
            yield PolicyError(
                "found a policy file in a hidden folder, which is not read",
                span=Span(_name(entry.path), 1, 1),
                help="move it into a folder whose name does not begin with a dot, or out of the policies",
            )


def _holds_policy(entry: os.DirEntry[str]) -> bool:
    if not entry.is_file():
        return False
    descriptor, _ = open_plain(os.path.realpath(entry.path))
    with open(descriptor, "rb") as file:
        data = file.read(MAX_FILE_BYTES)
    if entry.name.lower().endswith(_PROSE):
        # A page may quote policies; what is left outside of the quotations is not a page.
        data = _QUOTED.sub(b"", data)
        return _BEGINS_POLICY.search(data) is not None
    is_json = entry.name.lower().endswith(".json")
    return _IS_POLICY.search(data) is not None or (is_json and (b"policyguard/v" in data or b"apiVersion" in data))


def _read_all(folder: str, listing: Mapping[str, Version]) -> dict[str, bytes]:
    root = os.path.realpath(folder)
    sources: dict[str, bytes] = {}
    total = 0
    for path, version in sorted(listing.items()):
        if stat.S_ISDIR(version[0]) and not os.path.islink(path):
            continue
        _utf8(path)
        data = _read(path, root, version)
        total += len(data)
        if total > MAX_TOTAL_BYTES or len(sources) == MAX_FILES:
            limit = f"{MAX_FILES} files and {MAX_TOTAL_BYTES} bytes"
            raise ConfigurationError(f"{_name(folder)}: found more than {limit} of policies")
        sources[path] = data
    return sources


def _read(path: str, root: str, version: Version) -> bytes:
    """Read a regular file inside the root; raise if it changed since it was listed."""
    real = os.path.realpath(path)
    # INVARIANT I6: no link leads out of the policy folder.
    if os.path.commonpath([root, real]) != root:
        raise ConfigurationError(f"{_name(path)}: found a link to `{_name(real)}`, expected one within the folder")
    if stat.S_ISDIR(version[0]):
        raise ConfigurationError(f"{_name(path)}: found a link to a folder, expected a file")
    if not stat.S_ISREG(version[0]):
        raise ConfigurationError(f"{_name(path)}: found {kind_of(version[0])}, expected a plain file")
    if version[3] > MAX_FILE_BYTES:
        raise ConfigurationError(f"{_name(path)}: found {version[3]} bytes, expected at most {MAX_FILE_BYTES}")
    # A FIFO or a link put in its place is refused, and cannot block us.
    descriptor, _ = open_plain(real)
    with open(descriptor, "rb") as file:
        first = _version(os.fstat(file.fileno()))
        data = file.read(MAX_FILE_BYTES + 1) if first == version else b""
        if first != version or _version(os.fstat(file.fileno())) != version or len(data) != version[3]:
            raise ConfigurationError(f"{_name(path)}: changed while it was read", help=_RETRY)
    return data


def _version(status: os.stat_result) -> Version:
    return (status.st_mode, *version_of(status))


def _utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{_name(path)}: found a file name that is no UTF-8") from None


def _name(path: str) -> str:
    return printable(printable_name(path), 200)


def _reason(problem: OSError) -> str:
    reasons = {
        FileNotFoundError: "found nothing there, expected policy files",
        NotADirectoryError: "found no folder, expected one with policy files",
        PermissionError: "may not be read by this process",
    }
    return reasons.get(type(problem), reason_of(problem))
