"""Verifies push certificates: git's report, and the signature again in this process.

Git verifies a signed push and reports the result in variables, which is not enough: an SSH key outside the allowed
signers still gets status G, with an empty signer; a nonce that this git did not issue means a replayed certificate; and
without a certificate git sets none of these variables, so they may come from the pusher. So the certificate itself is
read: it must name exactly the measured updates, its nonce must be one that this repository issued recently, and it
counts only once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from policyguard.attest.signers import Signers, UnknownSigner
from policyguard.attest.sshsig import SshSignatureError, parse_signature
from policyguard.evidence.contributors import GIT_NAMESPACE
from policyguard.evidence.push.nonce import Nonces
from policyguard.evidence.push.updates import RefUpdate
from policyguard.git.gpg import PGP_BEGIN, Keyring
from policyguard.model.policy import Person
from policyguard.text import printable_name
from policyguard.values import Instant, sha256_digest

MAX_CERTIFICATE_BYTES = 262_144

_NOT_PINNED = "the push certificate has no good GPG signature by a pinned key of somebody known"
_USED = "the push certificate was used before; a push repeated within one second has the same one"
_VARIABLE = "GIT_PUSH_CERT"
_ARMOURS = (b"-----BEGIN SSH SIGNATURE-----", PGP_BEGIN, b"-----BEGIN SIGNED MESSAGE-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The state of a certificate (`good`, `bad`, `none`), its signer, and the reason if it is not good."""

    status: str
    signer: Person | None = None
    reason: str = ""


def read_certificate(
    environment: Mapping[str, str],
    updates: tuple[RefUpdate, ...],
    read_blob: Callable[[str], bytes | None],
    signers: Signers,
    now: Instant,
    nonces: Nonces,
    keyring: Keyring | None = None,
    spend: Callable[[str], bool] | None = None,
) -> Signed:
    """Find the person who signed this push; git's report alone is not enough.

    Args:
        nonces: what the nonces of this repository are made from.
        spend: remembers the digest of what was signed, returns False if it did before; None remembers nothing.
    """
    oid = environment.get(_VARIABLE, "")
    if not oid:
        return Signed(status="none", reason="the push is not signed")
    content = read_blob(oid)
    payload, signature = _split(content or b"")
    if not signature:
        return Signed(status="bad", reason="the push certificate cannot be read")
    reported = {
        name: environment.get(f"{_VARIABLE}_{name}", "") for name in ("STATUS", "SIGNER", "NONCE", "NONCE_STATUS")
    }
    reason = _unfit(payload, reported, updates, nonces, now)
    if reason is not None:
        return Signed(status="bad", reason=reason)
    try:
        person = _signer(payload, signature, signers, now, keyring)
    except (UnknownSigner, SshSignatureError) as problem:
        return Signed(status="bad", reason=str(problem))
    # INVARIANT I19: what was signed is good for one push: after a deletion it does not bring the reference back.
    if spend is not None and not spend(sha256_digest(payload)):
        return Signed(status="bad", reason=_USED)
    return Signed(status="good", signer=person)


def _unfit(
    payload: bytes, reported: Mapping[str, str], updates: tuple[RefUpdate, ...], nonces: Nonces, now: Instant
) -> str | None:
    """Say why a certificate cannot count for this push, no matter which key signed it; None if it can."""
    nonce = os.fsencode(reported["NONCE"])
    # INVARIANT I19: a certificate counts only for exactly the updates it names, under the nonce git has given out.
    if _commands(payload) != {(update.old, update.new, update.ref) for update in updates}:
        return "the push certificate is for other updates"
    if reported["NONCE_STATUS"] != "OK" or not nonce or _header(payload, b"nonce") != nonce:
        return f"the nonce of the push certificate is {printable_name(reported['NONCE_STATUS']) or 'missing'}"
    problem = nonces.problem(nonce, now)
    if problem is not None:
        return f"the nonce of the push certificate {problem}"
    # INVARIANT I1: status G without a signer is not a signer.
    if reported["STATUS"] != "G" or not reported["SIGNER"].strip():
        return _not_good(reported["STATUS"])
    return None


def _signer(payload: bytes, signature: bytes, signers: Signers, now: Instant, keyring: Keyring | None) -> Person:
    """Verify the signature and return its person.

    Raises:
        UnknownSigner, SshSignatureError: it is not good, or of nobody known.
    """
    if signature.startswith(PGP_BEGIN) and keyring is not None:
        owner = keyring.person_of(payload, signature)
        if owner is None:
            raise UnknownSigner("unpinned", _NOT_PINNED)
        return owner
    if not signature.startswith(_ARMOURS[0]):
        raise SshSignatureError("unknown", "the push certificate is signed in a way that is not verified here")
    # INVARIANT I1: the hook verifies the signature itself and believes no variable: the pusher may have set it.
    parsed = parse_signature(signature)
    if not parsed.covers(payload, GIT_NAMESPACE):
        raise SshSignatureError("forged", "the signature does not fit the push certificate")
    return signers.person_of(parsed.key, GIT_NAMESPACE, (now,))


def _not_good(status: str) -> str:
    if status == "G":
        return "the push is signed with a key that no allowed signer has"
    return f"git says `{printable_name(status) or 'nothing'}` of the push certificate, expected `G`"


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Split a certificate into the signed text and the signature that follows."""
    starts = [start for armour in _ARMOURS if (start := content.find(b"\n" + armour)) >= 0]
    return (content[: min(starts) + 1], content[min(starts) + 1 :]) if starts else (content, b"")


def _header(payload: bytes, name: bytes) -> bytes:
    values = [
        line[len(name) + 1 :] for line in payload.partition(b"\n\n")[0].split(b"\n") if line.startswith(name + b" ")
    ]
    return values[0] if len(values) == 1 else b""


def _commands(payload: bytes) -> set[tuple[str | None, str | None, str]]:
    lines = [line.split(b" ", 2) for line in payload.partition(b"\n\n")[2].split(b"\n") if line]
    # A line that is not an update makes the certificate one for other updates.
    return {
        (_oid(fields[0]), _oid(fields[1]), printable_name(fields[2])) if len(fields) == 3 else _NO_UPDATE
        for fields in lines
    }


_NO_UPDATE = (None, None, "")


def _oid(word: bytes) -> str | None:
    text = printable_name(word)
    return text if text.strip("0") else None
