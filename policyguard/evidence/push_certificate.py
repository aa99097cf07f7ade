"""Whether a push certificate says who pushed: git's word for it, and our own look at the certificate.

Git verifies a signed push and tells the hook in variables. Three traps: an SSH key outside the allowed signers still
arrives with status G and only the signer is empty; a nonce that is not ours says that an old certificate is replayed;
and git sets these variables only if there is a certificate, so without one they may be the pusher's own. Hence the
certificate itself is read: it must name exactly the updates that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from policyguard.evidence.files import shown
from policyguard.evidence.push import CommitVerifier, RefUpdate
from policyguard.model.facts import Assurance

MAX_CERTIFICATE_BYTES = 262_144

_VARIABLE = "GIT_PUSH_CERT"
_ARMOURS = (b"-----BEGIN SSH SIGNATURE-----", b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN SIGNED MESSAGE-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """State of a certificate (`good`, `bad`, `none`), the signer's name (empty unless good), and why not good."""

    status: str
    signer: str = ""
    why: str = ""
    assurance: Assurance = Assurance.OBSERVED


def read_certificate(
    environment: Mapping[str, str],
    updates: tuple[RefUpdate, ...],
    read_blob: Callable[[str], bytes | None],
    verifier: CommitVerifier | None,
) -> Signed:
    """Return who signed this push.

    Args:
        verifier: checks the SSH signature again, in this process; with it the result is attested, and a certificate
            that it cannot check, one made with GPG say, counts as git's word only.
    """
    oid = environment.get(_VARIABLE, "")
    told = {name: environment.get(f"{_VARIABLE}_{name}", "") for name in ("STATUS", "SIGNER", "NONCE", "NONCE_STATUS")}
    if not oid:
        return Signed(status="none", why="the push is not signed")
    content = read_blob(oid)
    payload, signature = _split(content or b"")
    if content is None or not signature:
        return Signed(status="bad", why="the push certificate cannot be read")
    # INVARIANT I144: a certificate counts only for exactly the updates it names, under the nonce git has given out.
    if _commands(payload) != {(each.old, each.new, each.ref) for each in updates}:
        return Signed(status="bad", why="the push certificate is for other updates")
    if told["NONCE_STATUS"] != "OK" or _header(payload, b"nonce") != told["NONCE"].encode() or not told["NONCE"]:
        return Signed(status="bad", why=f"the nonce of the push certificate is {told['NONCE_STATUS'] or 'missing'}")
    # INVARIANT I145: status G without a signer is not a signer.
    if told["STATUS"] != "G" or not told["SIGNER"].strip():
        return Signed(status="bad", why=_not_good(told["STATUS"]))
    if verifier is not None and signature.startswith(_ARMOURS[0]):
        signer = verifier(payload, signature, 0)
        if signer is None:
            return Signed(status="bad", why="the push certificate's signature does not verify against allowed signers")
        return Signed(status="good", signer=signer, assurance=Assurance.ATTESTED)
    return Signed(status="good", signer=told["SIGNER"])


def _not_good(status: str) -> str:
    if status == "G":
        return "the push is signed with a key that no allowed signer has"
    return f"git says `{shown(status) or 'nothing'}` of the push certificate, expected `G`"


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Return what is signed and the signature after it."""
    starts = [start for armour in _ARMOURS if (start := content.find(b"\n" + armour)) >= 0]
    return (content[: min(starts) + 1], content[min(starts) + 1 :]) if starts else (content, b"")


def _header(payload: bytes, name: bytes) -> bytes:
    found = [
        line[len(name) + 1 :] for line in payload.partition(b"\n\n")[0].split(b"\n") if line.startswith(name + b" ")
    ]
    return found[0] if len(found) == 1 else b""


def _commands(payload: bytes) -> set[tuple[str | None, str | None, str]]:
    lines = [line.split(b" ", 2) for line in payload.partition(b"\n\n")[2].split(b"\n") if line]
    return {(_oid(words[0]), _oid(words[1]), shown(words[2])) for words in lines if len(words) == 3}


def _oid(word: bytes) -> str | None:
    text = shown(word)
    return text if text.strip("0") else None
