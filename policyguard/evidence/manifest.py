"""Signed manifests of checkpoints: what a producing run wrote, by digest, linked to the step before.

The statement is that of OpenSSF model signing, version 1.0 (in-toto Statement v1, predicate type
`https://model_signing/signature/v1.0`), in a plain DSSE envelope. That format lets verifiers ignore members of the
predicate they do not know; ours is `policyguard`: producer, run, step, time, and the digest of the previous statement.
What differs: model signing wraps the envelope in a sigstore bundle; the key here is pinned, so there is none.

Source: sigstore/model-transparency, `model_signing/_signing/signing.py`, class `Payload`.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from policyguard.attest.dsse import MAX_ENVELOPE_BYTES, Envelope, check_signatures, pae, parse, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.statement import PAYLOAD_TYPE, STATEMENT_TYPE
from policyguard.errors import EvidenceError, RequestError, VerificationError
from policyguard.evidence.checkpoint_report import CheckpointScan
from policyguard.model.request import parse_json
from policyguard.values import Instant, canonical, format_instant, parse_instant, sha256_digest

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MANIFEST_NAME = "checkpoint.dsse.json"
"""The name under which the manifest of a folder lies in it; the one file that it does not list."""

MAX_RESOURCES = 100_000

MAX_MANIFEST_BYTES = 32 * 2**20
"""More than any other envelope may have: it lists every shard. 100,000 files with names of 100 characters fit."""

_HEX = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"[a-z][a-z0-9_]{0,62}:\S{1,512}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Which files a checkpoint has and who made it.

    `resources` maps relative names to SHA-256, sorted by name. `previous` is the `digest` of the manifest of the step
    before, None for the first. `producer` is a subject (`service:trainer`), `run` and `step` are the producer's own.
    """

    name: str
    resources: tuple[tuple[str, str], ...]
    producer: str
    run: str
    step: int
    created_at: Instant
    previous: str | None = None

    @property
    def root_digest(self) -> str:
        """The digest over all files that model signing puts into the subject: SHA-256 over the digests, by name."""
        return hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in self.resources)).hexdigest()

    @property
    def digest(self) -> str:
        """The SHA-256 of the statement; the next step's `previous`."""
        return sha256_digest(self.to_statement())

    def to_statement(self) -> bytes:
        """Return the in-toto statement in its one spelling."""
        return canonical(
            {
                "_type": STATEMENT_TYPE,
                "predicateType": PREDICATE_TYPE,
                "subject": [{"name": self.name, "digest": {"sha256": self.root_digest}}],
                "predicate": {
                    "serialization": {
                        "method": "files", "hash_type": "sha256", "allow_symlinks": False,
                        "ignore_paths": [MANIFEST_NAME],
                    },
                    "resources": [
                        {"algorithm": "sha256", "digest": digest, "name": name} for name, digest in self.resources
                    ],
                    "policyguard": {
                        "producer": self.producer, "run": self.run, "step": self.step,
                        "created_at": format_instant(self.created_at), "previous": self.previous or "",
                    },
                },
            }
        )  # fmt: skip


def manifest_of(
    folder: str | os.PathLike[str],
    scans: Sequence[CheckpointScan],
    *,
    producer: str,
    run: str,
    step: int,
    now: Instant,
    previous: Manifest | None = None,
) -> Manifest:
    """Return the manifest of what was scanned in `folder` (or of the one file it names).

    Raises:
        EvidenceError: a file could not be read to its end, or there is none; what is hostile is not vouched for.
    """
    resources = tuple(sorted(measured(folder, scans).items()))
    for scan in scans:
        if scan.verdict == "hostile":
            raise EvidenceError(f"`{scan.path}`: {scan.reasons[0].text}, expected nothing hostile in a manifest")
    if not resources:
        raise EvidenceError(f"`{os.fspath(folder)}`: found no files, expected at least one")
    manifest = Manifest(
        name=Path(folder).resolve().name, resources=resources, producer=producer, run=run, step=step, created_at=now,
        previous=None if previous is None else previous.digest,
    )  # fmt: skip
    if previous is not None:
        check_follows(manifest, previous)
    return manifest


def measured(folder: str | os.PathLike[str], scans: Sequence[CheckpointScan]) -> Mapping[str, str]:
    """Return the digest of each scanned file by its name in `folder`, the manifest itself left out."""
    root = os.fsencode(folder).decode("utf-8", "backslashreplace").rstrip("/")
    found = {}
    for scan in scans:
        name = "." if scan.path == root else scan.path.removeprefix(root + "/")
        if name == MANIFEST_NAME:
            continue
        if not scan.sha256:
            reason = scan.reasons[0].text if scan.reasons else "no digest"
            raise EvidenceError(f"`{scan.path}`: {reason}, expected a file that can be read")
        found[name] = scan.sha256
    return found


def sign_manifest(manifest: Manifest, keys: Sequence[PrivateKey]) -> Envelope:
    """Return the manifest in a DSSE envelope, signed by each key.

    Raises:
        ValueError: a member is not of its kind, or the envelope would be too large to be read again.
    """
    _check_members(manifest)
    envelope = sign(manifest.to_statement(), PAYLOAD_TYPE, keys)
    size = len(envelope.to_bytes())
    if size > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"{len(manifest.resources)} files take {size} bytes, expected at most {MAX_MANIFEST_BYTES}; "
            "keep fewer files in one checkpoint, or in an archive"
        )
    return envelope


def verify_manifest(data: bytes, producers: Mapping[str, Sequence[PublicKey]]) -> Manifest:
    """Return the manifest these bytes spell, signed by a key of the very producer it names.

    Args:
        producers: the pinned keys of each producer, by its `type:id`.

    Raises:
        VerificationError: V1 malformed; V5 another kind of statement; V4 not signed by its producer.
    """
    envelope = parse(data, limit=MAX_MANIFEST_BYTES)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationError("V5", f"payload type is `{envelope.payload_type}`, expected `{PAYLOAD_TYPE}`")
    signed = pae(PAYLOAD_TYPE, envelope.payload)
    if len(data) > MAX_ENVELOPE_BYTES:
        # INVARIANT I214: what is larger than other envelopes is taken apart only if a pinned producer signed it.
        check_signatures(envelope, signed, [key for keys in producers.values() for key in keys], 1)
    manifest = _parse_statement(envelope.payload)
    # INVARIANT I114: a producer is who signed, never who is named: the key must be one of the producer named.
    check_signatures(envelope, signed, producers.get(manifest.producer, ()), 1)
    return manifest


def check_files(manifest: Manifest, folder: str | os.PathLike[str], scans: Sequence[CheckpointScan]) -> None:
    """Return if the scanned files are those of the manifest, none missing, none more, else raise.

    Raises:
        VerificationError: V7, with the first name that differs.
    """
    try:
        found = measured(folder, scans)
    except EvidenceError as problem:
        raise VerificationError("V7", problem.message) from problem
    expected = dict(manifest.resources)
    # INVARIANT I115: a file that the manifest does not name is as wrong as one that changed.
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise VerificationError("V7", f"`{name}` is {_said(found.get(name))}, expected {_said(expected.get(name))}")


def _said(digest: str | None) -> str:
    return "not there" if digest is None else f"`{digest[:12]}...`"


def check_follows(manifest: Manifest, previous: Manifest) -> None:
    """Return if the manifest is the next one after `previous`, else raise.

    Raises:
        VerificationError: V7; linked to another statement, from another run or producer, or not a later step.
    """
    # INVARIANT I117: a step that was left out, repeated or taken from another run breaks the chain.
    if manifest.previous != previous.digest:
        raise VerificationError("V7", f"previous is {_said(manifest.previous)}, expected {_said(previous.digest)}")
    if (manifest.producer, manifest.run) != (previous.producer, previous.run):
        raise VerificationError("V7", f"run is `{manifest.run}` of `{manifest.producer}`, expected `{previous.run}`")
    if manifest.step <= previous.step or manifest.created_at < previous.created_at:
        raise VerificationError("V7", f"step {manifest.step} does not come after step {previous.step}")


def check_chain(manifests: Sequence[Manifest]) -> None:
    """Return if the manifests, oldest first, are one unbroken chain from a first step; none at all is no chain."""
    if not manifests:
        raise VerificationError("V7", "no manifests, expected at least one")
    if manifests[0].previous is not None:
        raise VerificationError("V7", f"the first manifest continues {_said(manifests[0].previous)}, which is not here")
    for previous, manifest in itertools.pairwise(manifests):
        check_follows(manifest, previous)


def _parse_statement(payload: bytes) -> Manifest:
    try:
        data: Any = parse_json(payload)
        if data["_type"] != STATEMENT_TYPE or data["predicateType"] != PREDICATE_TYPE:
            raise VerificationError("V5", f"predicate type is `{data['predicateType']}`, expected `{PREDICATE_TYPE}`")
        ours = data["predicate"]["policyguard"]
        manifest = Manifest(
            name=data["subject"][0]["name"],
            resources=tuple((item["name"], item["digest"]) for item in data["predicate"]["resources"]),
            producer=ours["producer"],
            run=ours["run"],
            step=ours["step"],
            created_at=parse_instant(ours["created_at"]),
            previous=ours["previous"] or None,
        )
        _check_members(manifest)
        same = manifest.to_statement() == payload
    except (RequestError, KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
        raise VerificationError("V1", f"not a manifest: {str(problem).splitlines()[0][:120].lower()}") from problem
    # INVARIANT I116: one manifest has one spelling; what was signed, read and compared are the same bytes.
    if not same:
        raise VerificationError("V1", "the manifest is not in its one spelling, or its root digest does not fit")
    return manifest


def _check_members(manifest: Manifest) -> None:
    """Raise `ValueError` unless every member is of its kind and the names are sorted, unique and inside the folder."""
    names = [name for name, _ in manifest.resources]
    texts = (manifest.name, manifest.run, *names)
    if not 1 <= len(names) <= MAX_RESOURCES or not all(type(text) is str and text for text in texts):
        raise ValueError("resources and names must be there")
    if names != sorted(set(names)) or any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise ValueError("resources must be sorted, named once and inside the folder")
    digests = [digest for _, digest in manifest.resources] + ([manifest.previous] if manifest.previous else [])
    if not all(type(digest) is str and _HEX.fullmatch(digest) for digest in digests):
        raise ValueError("digests must be 64 hexadecimal digits")
    if type(manifest.step) is not int or manifest.step < 0 or not _REF.fullmatch(manifest.producer):
        raise ValueError("step must be a count and producer a `type:id`")


__all__ = [
    "MANIFEST_NAME", "MAX_MANIFEST_BYTES", "PREDICATE_TYPE", "Manifest", "check_chain", "check_files", "check_follows",
    "manifest_of",
    "sign_manifest", "verify_manifest",
]  # fmt: skip
