"""Receipts: the proof that an envelope is in the log, at which index and under which checkpoint.

A SignedDecision is an envelope and its receipt; one JSON text carries both:

    {"envelope":{...},"receipt":{"checkpoint":"...","index":0,"path":["..."]}}

Where the decision hides values, `"digest_key":"..."` comes first: 32 bytes in hex, which the log does not contain.
Opens nothing. One canonical form, RFC 8785 JSON; the parser encodes again and compares.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec

from policyguard.attest.dsse import MAX_ENVELOPE_BYTES, Envelope, check_bounds, check_hashes, reason
from policyguard.attest.keys import encode_base64
from policyguard.audit.checkpoint import Checkpoint
from policyguard.audit.merkle import ProofError, leaf_hash, root_from_inclusion
from policyguard.errors import VerificationError
from policyguard.model.decision import Decision
from policyguard.text import quoted
from policyguard.values import SHA256_HEX, canonical

MAX_SIGNED_BYTES = MAX_ENVELOPE_BYTES + 131_072
"""Larger signed decisions are refused before they are parsed: one envelope, one note, one path."""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A leaf's index, the sibling hashes up to the root, and the signed checkpoint note with that root."""

    checkpoint: bytes
    index: int
    path: tuple[bytes, ...]


class SignedDecision(msgspec.Struct, frozen=True, gc=False):
    """A signed envelope with its receipt, as it travels to the worker.

    `decision` is the Decision where it was made, and None once the text has travelled: then `verify` gives the
    answer. It has no truth value. `digest_key` is empty unless the decision hides values: see `predicate.keyed`.
    """

    envelope: Envelope
    receipt: Receipt
    made_here: Decision | None = None
    digest_key: bytes = b""

    @property
    def decision(self) -> Decision:
        """The decision object, only in the process that made it; elsewhere raises `ValueError`."""
        if self.made_here is None:
            raise ValueError("this signed decision was read from text; `policyguard.verify.verify` says what it holds")
        return self.made_here

    def __bool__(self) -> NoReturn:
        raise TypeError("a SignedDecision is not a truth value, use `.decision.allowed` or `verify`")

    def to_json(self) -> bytes:
        """Encode as JSON, in exactly one form; `from_json` restores everything except `decision`."""
        path = b",".join([b'"%b"' % encode_base64(node) for node in self.receipt.path])
        key = b'"digest_key":"%b",' % self.digest_key.hex().encode() if self.digest_key else b""
        return b'{%b"envelope":%b,"receipt":{"checkpoint":%b,"index":%d,"path":[%b]}}' % (
            key,
            self.envelope.to_bytes(),
            canonical(self.receipt.checkpoint.decode()),
            self.receipt.index,
            path,
        )

    @classmethod
    def from_json(cls, data: bytes) -> SignedDecision:
        """Parse a signed decision without verifying it.

        Raises:
            VerificationError: step V1; too large, not a signed decision, or not in its canonical form.
        """
        if len(data) > MAX_SIGNED_BYTES:
            raise VerificationError("V1", f"signed decision is {len(data)} bytes, expected at most {MAX_SIGNED_BYTES}")
        try:
            wire = msgspec.json.decode(data, type=_WireSigned)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise VerificationError("V1", f"not a signed decision: {reason(problem)}") from None
        receipt = wire.receipt
        check_bounds(wire.envelope)
        check_hashes(receipt.path, "receipt.path")
        key = _digest_key(wire.digest_key)
        signed = cls(wire.envelope, Receipt(receipt.checkpoint.encode(), receipt.index, receipt.path), digest_key=key)
        # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
        if signed.to_json() != data:
            raise VerificationError(
                "V1", "signed decision is not in its canonical form, expected sorted fields, no spaces"
            )
        return signed


def check_inclusion(hash_of_leaf: bytes, receipt: Receipt, checkpoint: Checkpoint) -> None:
    """Verify that the leaf is at the receipt's index in the tree of the checkpoint.

    The size and the root are taken from the checkpoint, never from the receipt: the receipt is unsigned.

    Args:
        checkpoint: already verified against the log's key.

    Raises:
        VerificationError: step V3; the path has the wrong length or leads to another root.

    Source: RFC 9162, section 2.1.3.2.
    """
    # INVARIANT I11: size and root come from the verified checkpoint only.
    try:
        root = root_from_inclusion(hash_of_leaf, receipt.index, checkpoint.size, receipt.path)
    except ProofError as problem:
        raise VerificationError("V3", f"inclusion proof: {problem}") from None
    if root != checkpoint.root:
        raise VerificationError(
            "V3", f"inclusion proof leads to root `{root.hex()[:16]}`, expected `{checkpoint.root.hex()[:16]}`"
        )


def leaf_hash_of(envelope: Envelope) -> bytes:
    """Hash the envelope as a leaf of the log."""
    return leaf_hash(envelope.to_bytes())


def _digest_key(text: str) -> bytes:
    if text and not SHA256_HEX.fullmatch(text):
        raise VerificationError("V1", f"digest_key: found {quoted(text)}, expected 64 lower-case hex digits")
    return bytes.fromhex(text)


class _WireReceipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checkpoint: str
    index: int
    path: tuple[bytes, ...]


class _WireSigned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    envelope: Envelope
    receipt: _WireReceipt
    digest_key: str = ""
