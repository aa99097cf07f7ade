"""Compares an installed environment with a signed baseline: what changed, and what runs by itself.

A baseline is the listing of a clean build, as canonical JSON in a DSSE envelope. `env baseline` makes one, `env verify`
and the collector compare with it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from msgspec import structs

from policyguard.attest.dsse import Envelope, check_signatures, pae, parse, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.environment.bytecode import BytecodeReport, Finding, check_bytecode
from policyguard.environment.cache import FileCache
from policyguard.environment.compilers import Progress
from policyguard.environment.listing import Listing, list_files
from policyguard.environment.owners import AUTORUN, Owners, owners_of
from policyguard.environment.startup import starting_code
from policyguard.errors import EvidenceError, VerificationError
from policyguard.fs.ownership import is_below
from policyguard.text import printable_name
from policyguard.values import canonical, format_instant, sha256_digest

PAYLOAD_TYPE = "application/vnd.policyguard.environment+json"
MAX_BASELINE_BYTES = 256 << 20


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a clean build, by name relative to the environment.

    `bytecode` is what the build found in `__pycache__`, equal to its source. Version 1 did not list it; then each is
    compared with its source where it is found.
    """

    files: dict[str, str]
    version: int = 1
    bytecode: dict[str, str] = {}


class EnvironmentReport(msgspec.Struct, frozen=True):
    """The differences between an environment and its baseline, each tuple sorted.

    `changed` and `added` and `removed` are relative to the baseline; `autorun` is what would run by itself and is not
    in it; `bytecode` is what Python would run in place of a source that is not like it, and what could not be compared.
    The others need no baseline: files that no distribution owns, that two own, or that differ from RECORD, and byte
    code that is never loaded. `unmeasured` is what the environment loads from a place that cannot be determined or
    measured, with the reason; it is never clean then. `starting` lists all that runs when the interpreter starts.
    `doubt` says why the cache was not believed. `digest` covers name and content of each file of the environment itself
    except byte code with a source.
    """

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    autorun: tuple[str, ...] = ()
    unowned: tuple[str, ...] = ()
    doubly_owned: tuple[str, ...] = ()
    unlike_record: tuple[str, ...] = ()
    bytecode: tuple[Finding, ...] = ()
    idle_bytecode: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    starting: tuple[str, ...] = ()
    read: int = 0
    compared: int = 0
    doubt: str = ""
    digest: str = ""

    @property
    def is_clean(self) -> bool:
        """True if the environment equals the baseline, apart from byte code compiled later."""
        return not (self.changed or self.added or self.removed or self.autorun or self.bytecode or self.unmeasured)


def make_baseline(listing: Listing, keys: Sequence[PrivateKey], bytecode: Mapping[str, str] | None = None) -> bytes:
    """Sign the listing of a clean build; return the envelope in bytes.

    Args:
        bytecode: byte code that needs no second comparison: it was equal to its source
            (`BytecodeReport.equal`), and what the build wants to have there without one.
    """
    data = {"bytecode": bytecode or {}, "files": listing.files, "version": 2}
    return sign(canonical(data), PAYLOAD_TYPE, keys).to_bytes()


def read_baseline(data: bytes, keys: Sequence[PublicKey], threshold: int = 1) -> Baseline:
    """Parse a baseline and verify its signatures.

    Args:
        data: the envelope.
        keys: the keys that may sign it.
        threshold: how many of the keys must have signed.

    Raises:
        EvidenceError: it is too large, not a baseline, or not signed by those who may.
    """
    try:
        envelope: Envelope = parse(data, limit=MAX_BASELINE_BYTES)
        check_signatures(envelope, pae(envelope.payload_type, envelope.payload), tuple(keys), threshold)
    except VerificationError as problem:
        raise EvidenceError(f"the environment's baseline: {problem.message}") from problem
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(f"the environment's baseline: found `{envelope.payload_type}`, expected `{PAYLOAD_TYPE}`")
    try:
        baseline = _DECODER.decode(envelope.payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise EvidenceError(f"the environment's baseline: {str(problem).lower()}") from None
    if baseline.version not in (1, 2) or not baseline.files:
        raise EvidenceError("the environment's baseline: found no files of version 1 or 2, expected at least one")
    return baseline


def verify_environment(
    prefix: str,
    baseline: Baseline | None,
    *,
    cache: FileCache | None = None,
    interpreter: str | None = None,
    progress: Progress | None = None,
    users: Sequence[str] = (),
) -> EnvironmentReport:
    """Compare the environment at `prefix` with the baseline and with its distributions' RECORD files.

    Args:
        cache: remembered digests of earlier runs; saved with those of this one.
        interpreter: a Python of the environment's version to compile with, outside of it; the running one if None.
        progress: called after each comparison of byte code with its source.
        users: user site folders, see `list_files`.

    Raises:
        EvidenceError: something cannot be measured.
    """
    # A build that listed a standard library elsewhere wants it compared, whatever account owns it.
    has_outside = baseline is not None and any(name.startswith("/") for name in baseline.files)
    listing = list_files(prefix, cache, users=users, owners=() if has_outside else None)
    known = (baseline.bytecode, baseline.files) if baseline is not None else ({}, {})
    bytecode = check_bytecode(listing, *known, cache=cache, interpreter=interpreter, progress=progress)
    report = compare(listing, owners_of(prefix, listing.files), baseline, bytecode)
    if cache is None:
        return report
    cache.save()
    return structs.replace(report, doubt=cache.doubt)


def compare(listing: Listing, owners: Owners, baseline: Baseline | None, bytecode: BytecodeReport) -> EnvironmentReport:
    """Build the report for a listing; without a baseline, list every unowned file that runs by itself.

    Args:
        listing: the installed files.
        owners: their distributions.
        baseline: the signed baseline, if any.
        bytecode: the result for byte code.
    """
    files, expected = listing.files, baseline.files if baseline is not None else {}
    unowned = [name for name in files if name not in owners.by_file and _should_be_owned(name)]
    both = baseline is not None
    added = [name for name in files if name not in expected] if both else []
    suspects = set(added) | {name for name in files if expected.get(name) != files[name]} if both else set(unowned)
    return EnvironmentReport(
        changed=_sorted(name for name, digest in files.items() if expected.get(name, digest) != digest),
        added=_sorted(_gathered(added, listing.outside, expected)),
        removed=_sorted(name for name in expected if name not in files),
        autorun=_sorted(
            [
                *(name for name in suspects if AUTORUN.search(name)),
                *(f"{name}: {point}" for name, point in owners.entry_points if name in suspects),
            ]
        ),
        unowned=_sorted(unowned),
        doubly_owned=_sorted(name for name, who in owners.by_file.items() if len(set(who)) > 1 and name in files),
        unlike_record=_sorted(name for name, digest in owners.digests.items() if files.get(name, digest) != digest),
        bytecode=bytecode.findings,
        idle_bytecode=bytecode.idle,
        unmeasured=_sorted(f"{name}: {reason}" for name, reason in listing.unmeasured.items()),
        starting=_sorted(starting_code(listing, owners)),
        read=listing.read,
        compared=bytecode.compared,
        # What lies elsewhere may be the job's own folder, where the job writes.
        digest=sha256_digest(canonical({name: value for name, value in files.items() if not name.startswith("/")})),
    )


def _gathered(added: list[str], outside: Sequence[str], expected: Mapping[str, str]) -> Iterator[str]:
    """Name a folder outside of the environment once if the baseline has nothing of it, and else each file."""
    unknown = tuple(
        f"{printable_name(folder).rstrip('/')}/"
        for folder in outside
        if not any(is_below(name, printable_name(folder)) for name in expected)
    )
    for name in added:
        yield next((folder for folder in unknown if name.startswith(folder)), name)


def who_changed(prefix: str, name: str) -> str:
    """Return a file's owner and modification time: `owned by alice, modified 2026-03-01T09:00:00Z`."""
    try:
        status = os.lstat(os.path.join(prefix, name))
    except (OSError, ValueError):
        return "gone"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"uid {status.st_uid}"
    return f"owned by {owner}, modified {format_instant(status.st_mtime_ns // 10**9 * 10**9)}"


_DECODER = msgspec.json.Decoder(Baseline)


def _should_be_owned(name: str) -> bool:
    """Return True if an installer would list this file: all files in a site folder except RECORD's companions."""
    return "/site-packages/" in f"/{name}" or "/dist-packages/" in f"/{name}"


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
