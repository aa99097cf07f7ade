"""Signs many payloads with one signature over a Merkle root; each envelope carries its own proof.

A batched envelope contains its payload, its position in the batch and the signatures over the root. It can be verified
alone, with t of n keys. The signed message has its own DSSE payload type, so a batch cannot be mistaken for a decision:

    leaf    = pae(payload type, payload)
    message = pae("application/vnd.policyguard.batch.v1", root size-as-8-bytes)

Opens nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyguard.attest.dsse import BatchProof, Envelope, Signature, pae
from policyguard.attest.keys import PrivateKey
from policyguard.audit.merkle import ProofError, Range, Subtree, inclusion_paths, leaf_hash, root_from_inclusion
from policyguard.errors import VerificationError

BATCH_TYPE = "application/vnd.policyguard.batch.v1"


def sign_batch(payloads: Sequence[bytes], payload_type: str, keys: Sequence[PrivateKey]) -> tuple[Envelope, ...]:
    """Build one envelope for each payload, in order; each key signs once for all of them.

    Args:
        payloads: the bytes to sign.
        payload_type: the media type of all payloads.
        keys: the keys, at least one.

    Raises:
        ValueError: no key is given.
    """
    if not keys:
        raise ValueError("keys: none given, expected at least one")
    tree = Range()
    completed = [tree.append(leaf_hash(pae(payload_type, payload))) for payload in payloads]
    message = _message(tree.root(), tree.size)
    signatures = tuple([Signature(key.keyid, key.sign(message)) for key in keys])
    paths = inclusion_paths(0, tree.size, _subtree_of(completed))
    return tuple(
        [
            Envelope(payload, payload_type, signatures, BatchProof(index, tree.size, path))
            for index, (payload, path) in enumerate(zip(payloads, paths, strict=True))
        ]
    )


def signed_message(envelope: Envelope) -> bytes:
    """Rebuild the bytes that the envelope's signatures must cover: its payload, or the Merkle root.

    Raises:
        VerificationError: step V4; the proof does not lead to a root.
    """
    message = pae(envelope.payload_type, envelope.payload)
    batch = envelope.batch
    if batch is None:
        return message
    try:
        # INVARIANT I11: the size of a batch is signed with its root.
        return _message(root_from_inclusion(leaf_hash(message), batch.index, batch.size, batch.path), batch.size)
    except ProofError as problem:
        raise VerificationError("V4", f"batch proof: {problem}") from None


def _message(root: bytes, size: int) -> bytes:
    return pae(BATCH_TYPE, root + size.to_bytes(8, "big"))


def _subtree_of(completed: Sequence[Sequence[bytes]]) -> Subtree:
    return lambda level, index: completed[((index + 1) << level) - 1][level]
