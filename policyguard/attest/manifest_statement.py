"""The signed statement in a manifest: the files of a checkpoint and who produced them.

It is that of OpenSSF model signing 1.0 (in-toto Statement v1, predicate type `https://model_signing/signature/v1.0`),
which lets verifiers ignore members of the predicate they do not know; ours is `policyguard`.

Source: sigstore/model-transparency, `model_signing/_signing/signing.py`, class `Payload`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from policyguard.attest.statement import STATEMENT_TYPE
from policyguard.errors import RequestError, VerificationError
from policyguard.model.ids import ref_problem
from policyguard.model.request import parse_json
from policyguard.values import SHA256_HEX, Instant, canonical, format_instant, name_of, parse_instant, sha256_digest

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MANIFEST_NAME = "checkpoint.dsse.json"
"""The file name of a folder's manifest; the manifest does not list itself."""

MAX_RESOURCES = 100_000

_CLASS = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def root_digest(digests: Iterable[str]) -> str:
    """Compute the SHA-256 over file digests, which the caller has ordered by file name."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a checkpoint and their producer.

    `resources` maps relative names to SHA-256, sorted by name. `previous` is the `digest` of the manifest of the step
    before, None for the first. `producer` is a subject (`service:trainer`), `run` and `step` are the producer's own.
    `data_class` is what the producer says of data, `internal`; empty where nothing is said.
    """

    name: str
    resources: tuple[tuple[str, str], ...]
    producer: str
    run: str
    step: int
    created_at: Instant
    previous: str | None = None
    data_class: str = ""

    @property
    def root_digest(self) -> str:
        """The digest over all files, as model signing computes it: SHA-256 over the digests by name."""
        return root_digest(digest for _, digest in self.resources)

    @property
    def digest(self) -> str:
        """The SHA-256 of the statement; the manifest of the next step names it as `previous`."""
        return sha256_digest(self.to_statement())

    def to_statement(self) -> bytes:
        """Encode the in-toto statement; there is exactly one encoding."""
        ours: dict[str, object] = {
            "producer": self.producer,
            "run": self.run,
            "step": self.step,
            "created_at": format_instant(self.created_at),
            "previous": self.previous or "",
        }
        if self.data_class:
            ours["class"] = self.data_class
        return canonical(
            {
                "_type": STATEMENT_TYPE,
                "predicateType": PREDICATE_TYPE,
                "subject": [{"name": self.name, "digest": {"sha256": self.root_digest}}],
                "predicate": {
                    "serialization": {
                        "method": "files",
                        "hash_type": "sha256",
                        "allow_symlinks": False,
                        "ignore_paths": [MANIFEST_NAME],
                    },
                    "resources": [
                        {"algorithm": "sha256", "digest": digest, "name": name} for name, digest in self.resources
                    ],
                    "policyguard": ours,
                },
            }
        )


def parse_manifest(payload: bytes) -> Manifest:
    """Parse a manifest.

    Raises:
        VerificationError: V1, it is malformed; V5, it is a statement of another kind.
    """
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
            data_class=ours.get("class", ""),
        )
        check_members(manifest)
        same = manifest.to_statement() == payload
    except (RequestError, KeyError, IndexError, TypeError, ValueError, AttributeError) as problem:
        raise VerificationError("V1", f"not a manifest: {str(problem).splitlines()[0][:120].lower()}") from problem
    # INVARIANT I5: one manifest has one encoding; what was signed, read and compared are the same bytes.
    if not same:
        raise VerificationError("V1", "the manifest is not in its canonical form, or its root digest does not fit")
    return manifest


def check_origin(producer: str, run: str, step: int, data_class: str = "") -> None:
    """Check producer, run, step and class before the files are hashed, which can take hours.

    Args:
        producer: the identity of the run, `type:id`.
        run: the name of the run.
        step: the training step.
        data_class: the class of data; empty for weights.

    Raises:
        ValueError: one cannot be written into a manifest.
    """
    problem = ref_problem(producer) if type(producer) is str else f"found {name_of(producer)}, expected `type:id`"
    if problem is not None:
        raise ValueError(f"producer: {problem}")
    if type(run) is not str or not run:
        raise ValueError("run: found no name, expected one")
    if type(step) is not int or step < 0:
        raise ValueError(f"step: found {step}, expected a count")
    if type(data_class) is not str or not _CLASS.fullmatch(data_class or "none"):
        raise ValueError(f"class: found `{data_class}`, expected a word such as `internal`")


def check_members(manifest: Manifest) -> None:
    """Check that each member has an allowed name and digest, and that names are sorted and unique.

    Raises:
        ValueError: the message names the member.
    """
    check_origin(manifest.producer, manifest.run, manifest.step, manifest.data_class)
    names = [name for name, _ in manifest.resources]
    texts = (manifest.name, *names)
    if not 1 <= len(names) <= MAX_RESOURCES or not all(type(text) is str and text for text in texts):
        raise ValueError("resources and names must be there")
    if names != sorted(set(names)) or any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise ValueError("resources must be sorted, named once and inside the folder")
    digests = [digest for _, digest in manifest.resources] + ([manifest.previous] if manifest.previous else [])
    if not all(type(digest) is str and SHA256_HEX.fullmatch(digest) for digest in digests):
        raise ValueError("digests must be 64 hexadecimal digits")


__all__ = [
    "MANIFEST_NAME",
    "PREDICATE_TYPE",
    "Manifest",
    "check_members",
    "check_origin",
    "parse_manifest",
    "root_digest",
]
