"""Compares the byte code in `__pycache__` with its source.

Python runs byte code instead of the source if its 16-byte header fits, whatever follows the header. So each file is
compared with what an interpreter compiles from the source that was just hashed. Files that the build compared and put
into the signed baseline are not compared again while neither file has changed.

A file that Python would never load (of another interpreter, or older than its source) is only a remark. Every other
file is a difference unless it was compared and is equal.

Source: CPython, `Lib/importlib/_bootstrap_external.py`, `SourceLoader.get_code`, `cache_from_source`; PEP 3147, 552.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import msgspec

from policyguard.environment.cache import FileCache
from policyguard.environment.compiler import Compiler, Interpreter
from policyguard.environment.compiler_worker import DAMAGED, EQUAL, LOST, NESTED, UNCOMPILABLE, UNLIKE
from policyguard.environment.compilers import (
    HEADER_BYTES,
    UNREAD,
    Comparison,
    Progress,
    compare_all,
    source_digest,
)
from policyguard.environment.listing import Listing
from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import open_regular, read_small

BATCH = 500
"""The cache is saved after each batch, so that the next run continues after one that ran out of time."""

REASONS = {
    "unlike": "runs other code than its source",
    "stray": "has no source beside it",
    "damaged": "is not what a compiler writes",
    "nested": "is nested deeper than Python reads",
    "unread": "cannot be read",
    "uncompilable": "could not be compared: its source does not compile",
    "other_python": "could not be compared: made by a Python that was not named",
}
"""Why byte code counts as a difference; the codes are stable."""

_CODES = {
    UNLIKE: "unlike",
    DAMAGED: "damaged",
    NESTED: "nested",
    UNCOMPILABLE: "uncompilable",
    LOST: "uncompilable",
    UNREAD: "unread",
}
_MAX_SETTINGS_BYTES = 65_536
_HOME_OF_VERSION = re.compile(r"(?:^|/)lib(?:64)?/python(\d+)\.(\d+)t?/")
_TAG = re.compile(r".*\.(cpython-\d+)(?!\d)[^/]*\.pyc\Z", re.DOTALL)


class Finding(msgspec.Struct, frozen=True, order=True):
    """A byte code file that counts as a difference: its name, a code from `REASONS`, and details."""

    name: str
    code: str
    detail: str = ""


class BytecodeReport(msgspec.Struct, frozen=True):
    """The result: differences, files that are never loaded, and digests of files equal to their source."""

    findings: tuple[Finding, ...] = ()
    idle: tuple[str, ...] = ()
    equal: dict[str, str] = {}
    compared: int = 0


def check_bytecode(
    listing: Listing,
    known: Mapping[str, str],
    known_files: Mapping[str, str],
    *,
    cache: FileCache | None = None,
    interpreter: str | None = None,
    progress: Progress | None = None,
) -> BytecodeReport:
    """Compare the byte code in a listing with its sources.


    Args:
        known: digests of byte code that a signed baseline lists, `known_files` those of the sources it was made of.
        cache: remembers what was found equal; saved on the way, and again by the caller.
        interpreter: a Python of the environment's version, outside of the environment; the running one if None.
    """
    findings = [Finding(name, "unread", reason) for name, reason in listing.unread.items()]
    equal, unknown = _known(listing, known, known_files)
    if not unknown:
        return BytecodeReport(_sorted(findings), (), equal)
    with Compiler(interpreter) as compiler:
        sorter = _Sorter(listing, compiler.interpreter, cache)
    comparisons = [comparison for name in unknown if (comparison := sorter.comparison(name)) is not None]
    for begin in range(0, len(comparisons), BATCH):
        report = None if progress is None else _from(begin, len(comparisons), progress)
        for answer in compare_all(listing, comparisons[begin : begin + BATCH], interpreter, report):
            sorter.take(*answer)
        if cache is not None:
            cache.save()
    return BytecodeReport(
        _sorted([*findings, *sorter.findings]), tuple(sorted(sorter.idle)), {**equal, **sorter.equal}, len(comparisons)
    )


def _known(
    listing: Listing, known: Mapping[str, str], known_files: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Split the byte code into files that the baseline covers, with their digests, and the names of the others."""
    equal: dict[str, str] = {}
    unknown = []
    for name, digest in listing.bytecode.items():
        # INVARIANT I17: the baseline speaks for byte code only together with the source that it was compared with.
        if known.get(name) == digest and all(known_files.get(at) == listing.files.get(at) for at in sources_of(name)):
            equal[name] = digest
        else:
            unknown.append(name)
    return equal, unknown


class _Sorter:
    """Classifies byte code files: different, never loaded, equal to the source, or still to be compared."""

    def __init__(self, listing: Listing, python: Interpreter, cache: FileCache | None) -> None:
        self._listing, self._python, self._cache = listing, python, cache
        self._magic = bytes.fromhex(python.magic)
        self.findings: list[Finding] = []
        self.idle: list[str] = []
        self.equal: dict[str, str] = {}

    def comparison(self, name: str) -> Comparison | None:
        """Return the comparison that a file needs; None if it was classified without one."""
        try:
            outcome = self._sorted_out(name)
        except (EvidenceError, OSError) as problem:
            outcome = Finding(name, "unread", str(problem))
        if isinstance(outcome, Finding):
            self.findings.append(outcome)
        elif outcome is None:
            self.idle.append(name)
        elif self._cache is not None and self._cache.equal_to(name, self._digest(name)) == self._made_of(outcome):
            self.equal[name] = self._digest(name)
        else:
            return outcome
        return None

    def take(self, comparison: Comparison, code: int, detail: str) -> None:
        """Record the result of a comparison."""
        if code == EQUAL:
            digest = self.equal[comparison.name] = self._digest(comparison.name)
            if self._cache is not None:
                self._cache.remember_equal(comparison.name, digest, self._made_of(comparison))
        else:
            other = f"compiled with {self._python.version}, made for {self._version}" if self._is_other_version else ""
            self.findings.append(Finding(comparison.name, _CODES[code], detail or other))

    def _sorted_out(self, name: str) -> Comparison | Finding | None:
        """Return the comparison that a file needs, a finding, or None for a file that Python never loads."""
        comparison = _comparison(name, self._python.tag)
        head = head_of(self._listing.path(name))
        if comparison is None or head[:4] != self._magic:
            return self._of_another(name, head)
        if not source_digest(self._listing, comparison.source):
            return Finding(name, "stray")
        return comparison if is_loaded(head, self._listing.path(comparison.source)) else None

    def _of_another(self, name: str, head: bytes) -> Finding | None:
        """Return a finding for byte code of another interpreter or without a source; None if it is never loaded."""
        if head[:4] == self._magic:
            has_source = any(source_digest(self._listing, source) for source in sources_of(name))
            return None if has_source else Finding(name, "stray")
        tag = _TAG.match(name)
        if not self._other_tags or (tag is not None and tag[1] not in self._other_tags):
            return None
        return Finding(name, "other_python", f"expected {self._python.tag} {self._python.version}")

    @cached_property
    def _other_tags(self) -> set[str]:
        """The cache tags of other Pythons that have a library folder in this environment."""
        homes = (_HOME_OF_VERSION.search(name) for name in self._listing.files)
        tags = {f"cpython-{home[1]}{home[2]}" for home in homes if home is not None}
        return tags if self._is_other_version else tags - {self._python.tag}

    @property
    def _is_other_version(self) -> bool:
        """True if `pyvenv.cfg` names another patch release, whose compiler may emit different code."""
        return self._version not in ("", self._python.version)

    @cached_property
    def _version(self) -> str:
        """The Python version in `pyvenv.cfg`; empty if there is none."""
        try:
            text = read_small(self._listing.path("pyvenv.cfg"), _MAX_SETTINGS_BYTES).decode("utf-8", "replace")
        except EvidenceError:
            return ""
        match = re.search(r"^version(?:_info)?\s*=\s*(\d+\.\d+\.\d+)", text, re.MULTILINE)
        return match[1] if match is not None else ""

    def _digest(self, name: str) -> str:
        return self._listing.bytecode[name]

    def _made_of(self, comparison: Comparison) -> str:
        return f"{source_digest(self._listing, comparison.source)} {comparison.level} {self._python.name}"


def _comparison(name: str, tag: str) -> Comparison | None:
    """Parse a byte code file's name into source path and optimisation level; None for another interpreter's.

    name = folder "__pycache__/" module "." tag [ ".opt-" level ] ".pyc"          ; level = 1*DIGIT, not 0
    """
    folder, _, last = name.rpartition("__pycache__/")
    match = re.fullmatch(rf"(.+)\.{re.escape(tag)}(?:\.opt-([1-9][0-9]{{0,8}}))?\.pyc", last)
    if match is None:
        return None
    # The compiler knows two levels; `python -OOO` loads `opt-3`, and compiles as for two.
    return Comparison(name, f"{folder}{match[1]}.py", min(int(match[2] or 0), 2))


def sources_of(name: str) -> Iterator[str]:
    """Yield each source path that byte code of this name could belong to, for any interpreter."""
    folder, _, last = name.rpartition("__pycache__/")
    parts = last.split(".")
    for count in range(1, len(parts) - 1):
        yield f"{folder}{'.'.join(parts[:count])}.py"


def head_of(path: str) -> bytes:
    descriptor, _ = open_regular(path)
    try:
        return os.read(descriptor, HEADER_BYTES)
    finally:
        os.close(descriptor)


def is_loaded(head: bytes, source: str) -> bool:
    """Return True if Python loads this byte code for the current source instead of recompiling it.

    Byte code with a hash counts as loaded, right or wrong: unchecked hashes are never compared, and the others are not
    under `--check-hash-based-pycs never`.
    """
    flags = int.from_bytes(head[4:8], "little")
    if len(head) < HEADER_BYTES or flags > 3:
        return False
    if flags & 1:
        return True
    status = os.stat(source)
    stamps = (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    return stamps == (int.from_bytes(head[8:12], "little"), int.from_bytes(head[12:16], "little"))


def _from(begin: int, total: int, progress: Progress) -> Progress:
    return lambda done, _: progress(begin + done, total)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings))
