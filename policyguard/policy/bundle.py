"""A compiled snapshot in one signed file: a DSSE envelope over the compiled form's canonical bytes.

Reading it imports neither yaml, casbin nor a CEL library. The policy digest is computed from what was read, never taken
from the file. Opens nothing; the guard reads and writes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from policyguard.attest.dsse import Envelope, check_signatures, pae, parse, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.decide.compiled_form import FORMAT, encode
from policyguard.errors import ConfigurationError, VerificationError
from policyguard.values import canonical, name_of, sha256_digest

PAYLOAD_TYPE = "application/vnd.policyguard.compiled.v1+json"

_AGAIN = "compile the policies again"

MAX_BUNDLE_BYTES = 268_435_456
"""Larger files are refused before they are parsed; 10,000 rules take about 5 MB."""


def seal(compiled: dict[str, Any], keys: Sequence[PrivateKey]) -> bytes:
    """Sign a compiled form; return the content of the file."""
    return sign(canonical(compiled), PAYLOAD_TYPE, keys).to_bytes() + b"\n"


def cosign(data: bytes, compiled: dict[str, Any], key: PrivateKey) -> bytes:
    """Add a signature to a signed snapshot of the same policies; return the content of the file.

    Args:
        data: the bytes of the file.
        compiled: what this signer compiled from the policies.
        key: the key of this signer.

    Raises:
        ConfigurationError: the file is no snapshot, or one of other policies.
    """
    envelope = _envelope(data)
    payload = canonical(compiled)
    if envelope.payload != payload:
        raise ConfigurationError("compiled snapshot: holds other policies than those compiled here", help=_AGAIN)
    added = sign(payload, PAYLOAD_TYPE, [key]).signatures
    others = [signature for signature in envelope.signatures if signature.keyid != added[0].keyid]
    return msgspec.structs.replace(envelope, signatures=(*others, *added)).to_bytes() + b"\n"


def open_sealed(data: bytes, keys: Sequence[PublicKey], threshold: int = 1) -> tuple[dict[str, Any], str]:
    """Verify a signed snapshot; return its compiled form and policy digest.

    Args:
        data: the bytes of the file.
        keys: the trusted public keys.
        threshold: the number of keys that must have signed.

    Raises:
        ConfigurationError: not a compiled snapshot, of another version, or not signed by enough of these keys.
    """
    envelope = _envelope(data)
    _signers(envelope, keys, threshold)
    return _compiled(envelope.payload)


def signers_of(data: bytes, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    """Return those of these keys that signed a snapshot.

    Raises:
        ConfigurationError: not a compiled snapshot, or none of the keys signed it.
    """
    return _signers(_envelope(data), keys, 1)


def _envelope(data: bytes) -> Envelope:
    try:
        envelope = parse(data.removesuffix(b"\n"), limit=MAX_BUNDLE_BYTES)
        if envelope.batch is not None or envelope.payload_type != PAYLOAD_TYPE:
            raise VerificationError("V5", f"payload type is `{envelope.payload_type}`, expected `{PAYLOAD_TYPE}`")
    except VerificationError as problem:
        raise ConfigurationError(f"compiled snapshot: {problem.message}", help=_AGAIN) from problem
    return envelope


def _signers(envelope: Envelope, keys: Sequence[PublicKey], threshold: int) -> tuple[PublicKey, ...]:
    try:
        # INVARIANT I4: a compiled snapshot decides nothing before a pinned key has signed just these bytes.
        return check_signatures(envelope, pae(PAYLOAD_TYPE, envelope.payload), keys, threshold)
    except VerificationError as problem:
        raise ConfigurationError(f"compiled snapshot: {problem.message}", help=_AGAIN) from problem


def _compiled(payload: bytes) -> tuple[dict[str, Any], str]:
    try:
        compiled = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ConfigurationError("compiled snapshot: is not JSON", help=_AGAIN) from problem
    if not isinstance(compiled, dict) or compiled.get("format") != FORMAT:
        raise ConfigurationError(f"compiled snapshot: has another format, expected `{FORMAT}`", help=_AGAIN)
    policy = compiled.get("policy")
    if not isinstance(policy, dict):
        raise ConfigurationError(
            f"compiled snapshot: policy: found {name_of(policy)}, expected what `policyguard compile` writes",
            help=_AGAIN,
        )
    try:
        encoded = encode(policy)
        others = encode({name: value for name, value in compiled.items() if name != "policy"})
    except (ValueError, TypeError, OverflowError, RecursionError):
        encoded = others = b""
    # INVARIANT I5: one value has one canonical form: a member that is written twice, or is not plain data, shows here.
    # "policy" is the last of the members that `read_compiled` accepts.
    if payload != b'%b,"policy":%b}' % (others[:-1], encoded):
        raise ConfigurationError(
            "compiled snapshot: found another text than its canonical form, such as a member that is written twice",
            help=_AGAIN,
        )
    return compiled, sha256_digest(encoded)
