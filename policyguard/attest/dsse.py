"""DSSE envelopes: a payload, its type, and signatures over both (secure-systems-lab/dsse v1).

Opens nothing. One envelope has one spelling as bytes: RFC 8785 JSON with canonical base64; the parser encodes again
and compares, so what was checked, what is logged and what is passed on are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from policyguard.attest.keys import SIGNATURE_BYTES, PrivateKey, PublicKey, decode_base64
from policyguard.errors import VerificationError

MAX_ENVELOPE_BYTES = 1_048_576
"""Larger envelopes are refused before they are parsed."""

MAX_SIGNATURES = 16
"""More signatures than this are refused: each costs the verifier a curve operation for every key it trusts."""

_MAX_TEXT = 256


class Signature(msgspec.Struct, frozen=True, gc=False):
    """One signature and the key id that the envelope claims for it; the id is only a hint."""

    keyid: str
    sig: bytes


class BatchProof(msgspec.Struct, frozen=True, gc=False):
    """The position of the payload in a Merkle tree whose root was signed instead of the payload."""

    index: int
    size: int
    path: tuple[bytes, ...]


class Envelope(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Payload bytes, their type and signatures; `batch` is set if the signatures cover a Merkle root.

    Except for `batch` the fields are in sorted order, so encoding needs no sorting.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]
    batch: BatchProof | None = None

    def to_bytes(self) -> bytes:
        """Encode the envelope; there is exactly one encoding, and `parse(envelope.to_bytes()) == envelope`."""
        if self.batch is None:
            return _encode(self)
        return _encode_sorted(_Batched(self.batch, self.payload, self.payload_type, self.signatures))


class _Batched(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """An envelope with a batch proof, its fields in sorted order."""

    batch: BatchProof
    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]


_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_encode = msgspec.json.Encoder().encode
"""Writes bytes as padded base64 and text with the shortest escapes, as RFC 8785 requires; a test compares."""


def pae(payload_type: str, payload: bytes) -> bytes:
    """Encode the bytes that are signed; both lengths count *bytes*.

    pae = "DSSEv1" SP len(type) SP type SP len(payload) SP payload

    Source: DSSE v1 protocol, "Signature Definition".
    """
    return b"%b %d %b" % (_pae_head(payload_type), len(payload), payload)


@lru_cache(maxsize=64)
def _pae_head(payload_type: str) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b" % (len(kind), kind)


def sign(payload: bytes, payload_type: str, keys: Sequence[PrivateKey]) -> Envelope:
    """Sign a payload with each key.

    Args:
        payload: the bytes to sign.
        payload_type: the media type of the payload.
        keys: the keys, at least one.

    Raises:
        ValueError: no key is given.
    """
    if not keys:
        raise ValueError("keys: none given, expected at least one")
    message = pae(payload_type, payload)
    return Envelope(payload, payload_type, tuple([Signature(key.keyid, key.sign(message)) for key in keys]))


def parse(data: bytes, *, limit: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """Parse an envelope from its JSON bytes.

    Args:
        limit: more bytes are refused before they are parsed.

    Raises:
        VerificationError: step V1; too large, not an envelope, or not its one spelling.
    """
    if len(data) > limit:
        raise VerificationError("V1", f"envelope is {len(data)} bytes, expected at most {limit}")
    try:
        wire = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise VerificationError("V1", f"not an envelope: {reason(problem)}") from None
    envelope = from_wire(wire)
    # INVARIANT I5: one value has one spelling: decode, encode again, compare.
    if envelope.to_bytes() != data:
        raise VerificationError("V1", "envelope is not in its one spelling, expected sorted fields and no spaces")
    return envelope


def check_signatures(
    envelope: Envelope, message: bytes, keys: Sequence[PublicKey], threshold: int
) -> tuple[PublicKey, ...]:
    """Verify that at least `threshold` trusted keys signed `message`, and return those keys.

    Key ids order the attempts and decide nothing: a signature counts for whichever trusted key made it.

    Args:
        message: `pae` of the envelope, or of the batch root that covers it.

    Raises:
        VerificationError: step V4; no keys, a threshold below one, or too few distinct keys.
    """
    # INVARIANT I10: no keys and no threshold never verify anything.
    if not keys or threshold < 1:
        raise VerificationError("V4", f"{len(keys)} trusted keys and threshold {threshold}, expected at least one each")
    # INVARIANT I10: a threshold counts distinct keys, not signatures and not key ids.
    signed: dict[bytes, PublicKey] = {}
    for signature in envelope.signatures:
        for key in sorted(keys, key=lambda key: key.keyid != signature.keyid):
            if key.raw not in signed and key.verify(signature.sig, message):
                signed[key.raw] = key
                break
    if len(signed) < threshold:
        raise VerificationError("V4", f"{len(signed)} of the trusted keys signed this, expected at least {threshold}")
    return tuple(signed.values())


class WireSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keyid: str
    sig: str


class WireBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    path: list[str]
    size: int


class WireEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The JSON shape of an envelope, for parsers of data that contains one."""

    payload: str
    payload_type: str
    signatures: list[WireSignature]
    batch: WireBatch | None = None


_DECODER = msgspec.json.Decoder(WireEnvelope)


def from_wire(wire: WireEnvelope) -> Envelope:
    """Convert the decoded JSON shape to an envelope.

    Raises:
        VerificationError: step V1; the payload type or the number of signatures is out of range, or a field is not
            base64.
    """
    if not 1 <= len(wire.signatures) <= MAX_SIGNATURES:
        raise VerificationError("V1", f"signatures: found {len(wire.signatures)}, expected 1 to {MAX_SIGNATURES}")
    if len(wire.payload_type) > _MAX_TEXT or not wire.payload_type:
        raise VerificationError("V1", f"payloadType: found {len(wire.payload_type)} characters, expected 1 to 256")
    return Envelope(
        _bytes_of(wire.payload, "payload", None),
        wire.payload_type,
        tuple([_signature_of(signature, f"signatures[{i}]") for i, signature in enumerate(wire.signatures)]),
        None if wire.batch is None else _batch_of(wire.batch),
    )


def hashes_of(path: Sequence[str], where: str) -> tuple[bytes, ...]:
    """Decode the base64 hashes of a proof; each must be 32 bytes.

    Raises:
        VerificationError: step V1; too many hashes, or one is not 32 bytes in base64.
    """
    if len(path) > 63:
        raise VerificationError("V1", f"{where}: found {len(path)} hashes, expected at most 63")
    return tuple([_bytes_of(text, f"{where}[{i}]", 32) for i, text in enumerate(path)])


def reason(problem: Exception) -> str:
    """Describe a decoder's error in one lower-case line."""
    return (str(problem).splitlines() or [type(problem).__name__])[0].lower()


def _signature_of(wire: WireSignature, where: str) -> Signature:
    if len(wire.keyid) > _MAX_TEXT:
        raise VerificationError("V1", f"{where}.keyid: found {len(wire.keyid)} characters, expected at most 256")
    return Signature(wire.keyid, _bytes_of(wire.sig, f"{where}.sig", SIGNATURE_BYTES))


def _batch_of(wire: WireBatch) -> BatchProof:
    if not 0 <= wire.index < wire.size <= 2**32:
        raise VerificationError("V1", f"batch: found index {wire.index} of {wire.size}, expected one within the batch")
    return BatchProof(wire.index, wire.size, hashes_of(wire.path, "batch.path"))


def _bytes_of(text: str, where: str, size: int | None) -> bytes:
    data = decode_base64(text.encode()) if text.isascii() else None
    if data is None:
        raise VerificationError("V1", f"{where}: expected canonical base64")
    if size is not None and len(data) != size:
        raise VerificationError("V1", f"{where}: found {len(data)} bytes, expected {size}")
    return data
