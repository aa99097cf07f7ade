"""Signed manifests of checkpoints: the files a run wrote, by digest, linked to the previous step.

The statement is that of OpenSSF model signing, version 1.0 (in-toto Statement v1, predicate type
`https://model_signing/signature/v1.0`), in a plain DSSE envelope. That format lets verifiers ignore members of the
predicate they do not know; ours is `policyguard`: producer, run, step, time, and the digest of the previous statement.
What differs: model signing wraps the envelope in a sigstore bundle; the key here is pinned, so there is none.

Source: sigstore/model-transparency, `model_signing/_signing/signing.py`, class `Payload`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.attest.dsse import MAX_ENVELOPE_BYTES, Envelope, check_signatures, pae, parse, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.manifest_statement import (
    MANIFEST_NAME,
    PREDICATE_TYPE,
    Manifest,
    check_members,
    check_origin,
    parse_manifest,
)
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.errors import EvidenceError, VerificationError
from policyguard.scan.findings import CheckpointScan
from policyguard.values import Instant

MAX_MANIFEST_BYTES = 32 * 2**20
"""Larger than other envelopes, because it lists every shard: 100,000 files with names of 100 characters fit."""


def manifest_of(
    folder: str | os.PathLike[str],
    scans: Sequence[CheckpointScan],
    *,
    producer: str,
    run: str,
    step: int,
    now: Instant,
    previous: Manifest | None = None,
    data_class: str = "",
) -> Manifest:
    """Build the manifest of the scanned files in `folder` (or of the one file it names).

    Args:
        folder, scans: the checkpoint, and the scans of its files.
        producer, run, step, now: who wrote it, `type:id`; the name of the run; the training step; when.
        previous, data_class: the verified manifest of the step before; the class of data, empty for weights.

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
        name=_folder_name(Path(folder)),
        resources=resources,
        producer=producer,
        run=run,
        step=step,
        created_at=now,
        previous=None if previous is None else previous.digest,
        data_class=data_class,
    )
    if previous is not None:
        check_follows(manifest, previous)
    return manifest


def _folder_name(path: Path) -> str:
    return os.fsencode(path.resolve().name).decode("utf-8", "backslashreplace") or "/"


def measured(folder: str | os.PathLike[str], scans: Sequence[CheckpointScan]) -> Mapping[str, str]:
    """Map each scanned file, by its name in `folder`, to its digest; the manifest itself is left out.

    Raises:
        EvidenceError: a file could not be read, or two files have one printable name.
    """
    root = os.fsencode(folder).decode("utf-8", "backslashreplace").rstrip("/")
    digests = {}
    for scan in scans:
        name = "." if scan.path == root else scan.path.removeprefix(root + "/")
        if name == MANIFEST_NAME:
            continue
        if not scan.sha256:
            reason = scan.reasons[0].text if scan.reasons else "no digest"
            raise EvidenceError(f"`{scan.path}`: {reason}, expected a file that can be read")
        # INVARIANT I17: two files that are shown by one name are none: one of them would go unchecked.
        if name in digests:
            raise EvidenceError(f"`{scan.path}`: two files have this name when shown, expected one; rename one of them")
        digests[name] = scan.sha256
    return digests


def sign_manifest(manifest: Manifest, keys: Sequence[PrivateKey]) -> Envelope:
    """Sign the manifest with each key, in one DSSE envelope.

    Raises:
        ValueError: a member is not of its kind, or the envelope would be too large to be read again.
    """
    check_members(manifest)
    envelope = sign(manifest.to_statement(), PAYLOAD_TYPE, keys)
    size = len(envelope.to_bytes())
    if size > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"{len(manifest.resources)} files take {size} bytes, expected at most {MAX_MANIFEST_BYTES}; "
            "keep fewer files in one checkpoint, or in an archive"
        )
    return envelope


def verify_manifest(data: bytes, producers: Mapping[str, Sequence[PublicKey]]) -> Manifest:
    """Parse a manifest, and verify that a key of the named producer signed it.

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
        # INVARIANT I18: what is larger than other envelopes is taken apart only if a pinned producer signed it.
        check_signatures(envelope, signed, [key for keys in producers.values() for key in keys], 1)
    manifest = parse_manifest(envelope.payload)
    # INVARIANT I10: a producer is who signed, never who is named: the key must be one of the producer named.
    check_signatures(envelope, signed, producers.get(manifest.producer, ()), 1)
    return manifest


def check_files(manifest: Manifest, folder: str | os.PathLike[str], scans: Sequence[CheckpointScan]) -> None:
    """Verify that the scanned files are exactly those of the manifest.

    Args:
        manifest: the verified manifest.
        folder: the checkpoint.
        scans: the scans of its files.

    Raises:
        VerificationError: V7, with the first name that differs.
    """
    try:
        digests = measured(folder, scans)
    except EvidenceError as problem:
        raise VerificationError("V7", problem.message) from problem
    expected = dict(manifest.resources)
    # INVARIANT I17: a file that the manifest does not name is as wrong as one that changed.
    for name in sorted({*digests, *expected}):
        if digests.get(name) != expected.get(name):
            raise VerificationError(
                "V7", f"`{name}` is {_described(digests.get(name))}, expected {_described(expected.get(name))}"
            )


def _described(digest: str | None) -> str:
    return "not there" if digest is None else f"`{digest[:12]}...`"


def check_follows(manifest: Manifest, previous: Manifest) -> None:
    """Verify that the manifest directly follows `previous`.

    Raises:
        VerificationError: V7; linked to another statement, from another run or producer, or not a later step.
    """
    # INVARIANT I17: a step that was left out, repeated or taken from another run breaks the chain.
    if manifest.previous != previous.digest:
        raise VerificationError(
            "V7", f"previous is {_described(manifest.previous)}, expected {_described(previous.digest)}"
        )
    if (manifest.producer, manifest.run) != (previous.producer, previous.run):
        raise VerificationError(
            "V7",
            f"run is `{manifest.run}` of `{manifest.producer}`, expected `{previous.run}` of `{previous.producer}`",
        )
    if manifest.step <= previous.step or manifest.created_at < previous.created_at:
        raise VerificationError("V7", f"step {manifest.step} does not come after step {previous.step}")


def check_chain(manifests: Sequence[Manifest]) -> None:
    """Verify that the manifests, oldest first, form one unbroken chain from a first step; none is an error.

    Raises:
        VerificationError: step V7; the list is empty, or a manifest does not follow the one before.
    """
    if not manifests:
        raise VerificationError("V7", "no manifests, expected at least one")
    if manifests[0].previous is not None:
        raise VerificationError(
            "V7", f"the first manifest continues {_described(manifests[0].previous)}, which is not here"
        )
    for previous, manifest in itertools.pairwise(manifests):
        check_follows(manifest, previous)


__all__ = [
    "MANIFEST_NAME",
    "MAX_MANIFEST_BYTES",
    "PREDICATE_TYPE",
    "Manifest",
    "check_chain",
    "check_files",
    "check_follows",
    "check_origin",
    "manifest_of",
    "sign_manifest",
    "verify_manifest",
]
