"""DSSE envelopes: a payload, its type, and signatures over both (secure-systems-lab/dsse v1).

Opens nothing. An envelope has exactly one encoding, RFC 8785 JSON with canonical base64. The parser encodes again and
compares, so the bytes that were checked, logged and passed on are the same.
"""

# Annotations are values here: msgspec compiles each that is text when a process first decodes.

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from policyguard.attest.keys import SIGNATURE_BYTES, PrivateKey, PublicKey
from policyguard.errors import VerificationError

MAX_ENVELOPE_BYTES = 1_048_576
"""Larger envelopes are refused before they are parsed."""

MAX_SIGNATURES = 16
"""More signatures than this are refused: each costs the verifier a curve operation for every key it trusts."""

_MAX_TEXT = 256


class Signature(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One signature and the key id that the envelope claims for it; the id is only a hint."""

    keyid: str
    sig: bytes


class BatchProof(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The position of the payload in a Merkle tree whose root was signed instead of the payload."""

    index: int
    size: int
    path: tuple[bytes, ...]


class Envelope(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
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
_decode = msgspec.json.Decoder(Envelope).decode
"""Reads base64 that has padding, of loose bits too: `parse` encodes again and compares."""


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
        VerificationError: step V1; too large, not an envelope, or not in its canonical form.
    """
    if len(data) > limit:
        raise VerificationError("V1", f"envelope is {len(data)} bytes, expected at most {limit}")
    try:
        envelope = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise VerificationError("V1", f"not an envelope: {reason(problem)}") from None
    check_bounds(envelope)
    # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
    if envelope.to_bytes() != data:
        raise VerificationError("V1", "envelope is not in its canonical form, expected sorted fields and no spaces")
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


def check_bounds(envelope: Envelope) -> None:
    """Refuse a decoded envelope with sizes that no signer writes.

    Raises:
        VerificationError: step V1; the payload type, the number of signatures, a key id, a signature or the proof of a
            batch is out of range.
    """
    if not 1 <= len(envelope.signatures) <= MAX_SIGNATURES:
        raise VerificationError("V1", f"signatures: found {len(envelope.signatures)}, expected 1 to {MAX_SIGNATURES}")
    if len(envelope.payload_type) > _MAX_TEXT or not envelope.payload_type:
        raise VerificationError("V1", f"payloadType: found {len(envelope.payload_type)} characters, expected 1 to 256")
    for i, signature in enumerate(envelope.signatures):
        if len(signature.keyid) > _MAX_TEXT:
            size = len(signature.keyid)
            raise VerificationError("V1", f"signatures[{i}].keyid: found {size} characters, expected at most 256")
        _check_size(signature.sig, SIGNATURE_BYTES, f"signatures[{i}].sig")
    batch = envelope.batch
    if batch is not None:
        if not 0 <= batch.index < batch.size <= 2**32:
            raise VerificationError(
                "V1", f"batch: found index {batch.index} of {batch.size}, expected one within the batch"
            )
        check_hashes(batch.path, "batch.path")


def check_hashes(path: Sequence[bytes], where: str) -> None:
    """Refuse a decoded proof of more than 63 hashes, or with one that is not of 32 bytes.

    Raises:
        VerificationError: step V1.
    """
    if len(path) > 63:
        raise VerificationError("V1", f"{where}: found {len(path)} hashes, expected at most 63")
    for i, node in enumerate(path):
        _check_size(node, 32, f"{where}[{i}]")


def reason(problem: Exception) -> str:
    """Describe a decoder's error in one lower-case line."""
    if isinstance(problem, UnicodeDecodeError):
        return f"byte {problem.start} is not UTF-8 text"
    return (str(problem).splitlines() or [type(problem).__name__])[0].lower()


def _check_size(data: bytes, size: int, where: str) -> None:
    if len(data) != size:
        raise VerificationError("V1", f"{where}: found {len(data)} bytes, expected {size}")
