"""Opens files and folders and scans each checkpoint: digest, format, imports, and who can write it.

Status, digest and scan use one descriptor, and the status is read again at the end, so that the report is about one
state of one file. Links, devices and pipes are reported and not opened. Never raises on data.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from policyguard.fs.safe_open import open_plain, reason_of, version_of
from policyguard.scan.content import scan_content
from policyguard.scan.digest_cache import DigestCache, sha256_of
from policyguard.scan.findings import (
    CODE_SUFFIXES,
    DEFAULT_LIMITS,
    CheckpointScan,
    Findings,
    Limits,
    Reason,
    Verdict,
)
from policyguard.scan.formats.registry import UNDECIDED, promised_format
from policyguard.scan.source import FileSource, Truncated

_CODES = {
    errno.ENOENT: "ckpt.missing",
    errno.ENOTDIR: "ckpt.missing",
    errno.ELOOP: "ckpt.symlink",
    errno.ENXIO: "ckpt.not_regular",
    errno.EISDIR: "ckpt.not_regular",
}
Progress = Callable[[str, int], None]
"""Called with a path and the number of further bytes hashed, from several threads."""


@dataclass(slots=True, kw_only=True)
class Options:
    """Scan options: limits, additional harmless classes, a digest cache, and a progress callback."""

    limits: Limits = DEFAULT_LIMITS
    extra_globals: frozenset[tuple[str, str]] = frozenset()
    cache: DigestCache | None = None
    progress: Progress | None = None
    jobs: int = 0
    digests: dict[tuple[int, ...], str] = field(default_factory=dict)
    """The digests of this run by file state: a hub cache names one file many times."""


def scan_paths(paths: Sequence[str | os.PathLike[str]], options: Options | None = None) -> tuple[CheckpointScan, ...]:
    """Scan each named file, and each file in each named folder, in sorted order, on all cores."""
    options = options or Options()
    files = [file for path in paths for file in _files(Path(path))]
    jobs = options.jobs or min(len(files), os.cpu_count() or 1) or 1
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="scan") as pool:
        scans = tuple(pool.map(lambda item: scan_file(item[0], options, links_within=item[1]), files))
    if options.cache:
        options.cache.save()
    return scans


def _files(path: Path) -> Iterator[tuple[Path, Path | None]]:
    # `os.path` answers for names no file can have; `Path` raises.
    if os.path.islink(path) or not os.path.isdir(path):
        yield path, None
        return
    within = _link_scope(path)
    pending = [path]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            yield folder, within
            continue
        folders = [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield from ((Path(entry), within) for entry in entries if not entry.is_dir(follow_symlinks=False))
        pending.extend(reversed(folders))


def _link_scope(folder: Path) -> Path:
    """Return the folder that links may point into: the scanned one, or the repository of a hub cache snapshot."""
    real = Path(os.path.realpath(folder))
    hub = real.parent.parent
    return hub if real.parent.name == "snapshots" and hub.name.startswith("models--") else real


def scan_file(
    path: str | os.PathLike[str], options: Options | None = None, *, links_within: Path | None = None
) -> CheckpointScan:
    """Scan one file; one that cannot be opened or read is `unknown`, with the reason.

    Args:
        links_within: a symbolic link is followed if its target lies in this folder, and refused otherwise.
    """
    options = options or Options()
    name = os.path.basename(os.fsencode(path).decode("utf-8", "backslashreplace"))
    findings = Findings(limits=options.limits, extra_globals=options.extra_globals, name=name)
    try:
        real = _target(Path(path), links_within)
        fd, status = open_plain(real)
    except OSError as problem:
        reason = reason_of(problem)
        other = "ckpt.not_regular" if reason.startswith("found ") else "ckpt.unreadable"
        findings.add(_CODES.get(problem.errno or 0, other), reason)
        return _report(path, findings, "unknown")
    try:
        return _scan_open(path, real, fd, status, options, findings)
    finally:
        os.close(fd)


def _target(path: Path, links_within: Path | None) -> Path:
    if not path.is_symlink():
        return path
    real = Path(os.path.realpath(path))
    # INVARIANT I16: a link is followed inside the scope only.
    if links_within is None or not real.is_relative_to(links_within):
        raise OSError(errno.ELOOP, "symbolic link")
    return real


def _scan_open(
    path: str | os.PathLike[str], real: Path, fd: int, before: os.stat_result, options: Options, findings: Findings
) -> CheckpointScan:
    sha256, kind = "", "unknown"
    try:
        sha256 = _digest(path, real, fd, before, options)
        kind = scan_content(FileSource(fd, before.st_size), findings)
    except OSError as problem:
        findings.add("ckpt.unreadable", reason_of(problem))
    except Truncated:
        findings.add("ckpt.changed", "shorter than it was")
    # INVARIANT I16: the digest, the scan and the status describe one state of the file, or the file is not clean.
    if version_of(os.fstat(fd)) != version_of(before):
        findings.add("ckpt.changed")
        sha256 = ""
    _check_name(Path(path), kind, findings)
    return _report(path, findings, kind, before, real, sha256)


def _digest(path: str | os.PathLike[str], real: Path, fd: int, status: os.stat_result, options: Options) -> str:
    key = version_of(status)
    known = options.digests.get(key) or (options.cache.find(status, real) if options.cache else None)
    if known:
        return known
    name, progress, began_ns = os.fspath(path), options.progress, time.time_ns()
    sha256 = sha256_of(fd, status.st_size, (lambda count: progress(name, count)) if progress else None)
    if version_of(os.fstat(fd)) == key:
        with _LOCK:
            options.digests[key] = sha256
        if options.cache:
            options.cache.remember(status, real, sha256, began_ns)
    return sha256


_LOCK = threading.Lock()


def _check_name(path: Path, kind: str, findings: Findings) -> None:
    suffix = path.suffix.lower()
    promised = promised_format(suffix)
    # INVARIANT I18: a name never makes a file better, only worse.
    if promised and kind != promised and kind not in UNDECIDED:
        findings.add("ckpt.format_spoof", f"named {suffix}, is {kind}")
    # A `.pth` of text is a path file that an interpreter runs, any other is torch's.
    if suffix in CODE_SUFFIXES or (suffix == ".pth" and kind == "text"):
        findings.add("ckpt.code_file", suffix)


def _report(
    path: str | os.PathLike[str],
    findings: Findings,
    kind: str,
    status: os.stat_result | None = None,
    real: Path | None = None,
    sha256: str = "",
) -> CheckpointScan:
    folder_mode = _folder_mode(real) if real is not None else 0
    return CheckpointScan(
        path=os.fsencode(path).decode("utf-8", "backslashreplace"),
        verdict=findings.verdict,
        format=kind,
        globals=tuple(sorted(findings.globals)),
        reasons=tuple(sorted(findings.reasons)),
        pickled=findings.pickled,
        templates=tuple(sorted(findings.templates)),
        configurations=tuple(sorted(findings.configurations)),
        sha256=sha256,
        size_bytes=status.st_size if status else 0,
        owner_uid=status.st_uid if status else -1,
        mode=stat.S_IMODE(status.st_mode) if status else 0,
        dir_group_writable=bool(folder_mode & 0o020),
        dir_world_writable=bool(folder_mode & 0o002),
    )


def _folder_mode(path: Path) -> int:
    try:
        return os.stat(path.parent).st_mode
    except OSError:
        return 0o022


__all__ = ["CheckpointScan", "Limits", "Options", "Reason", "Verdict", "scan_file", "scan_paths"]
