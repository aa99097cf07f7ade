"""Verifies submitted approvals and compares them with the measured target.

A folder contains `NAME.json`, a DSSE envelope, or `NAME.json` and `NAME.json.sig`: the statement, and the detached
signature by `ssh-keygen -Y sign -n policyguard-approval@v1`. Anybody may write to the folder: signature, signer, time
and target decide whether an approval counts. Every approval that does not count gets its own reason code; none raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from policyguard.attest.approval import (
    APPROVAL_PAYLOAD_TYPE,
    NAMESPACE,
    ApprovalRejected,
    ApprovalStatement,
    ApprovalTarget,
    check_covers,
    check_time,
    parse_approval,
)
from policyguard.attest.dsse import pae, parse
from policyguard.attest.signers import Signers, UnknownSigner
from policyguard.attest.sshsig import MAX_ARMOUR_BYTES, SshKey, SshSignatureError, parse_signature
from policyguard.errors import EvidenceError, VerificationError
from policyguard.fs.safe_open import read_small, reason_of
from policyguard.model.facts import Approval, Assurance
from policyguard.model.policy import Person
from policyguard.text import printable_name, quoted
from policyguard.values import Instant, sha256_digest

MAX_FILE_BYTES = 65_536
MAX_FILES = 2_000
"""The maximum number of approvals read from one folder; remove old ones."""

MAX_LINES_PER_CODE = 4
"""The maximum number of approvals listed for one reason."""

_ELSEWHERE = ("approval.other_action", "approval.other_resource")


class SubmittedApproval(msgspec.Struct, frozen=True):
    """One approval as submitted; `signature` is None if `content` is a DSSE envelope."""

    source: str
    content: bytes
    signature: bytes | None = None


class RejectedApproval(msgspec.Struct, frozen=True):
    """The reason why an approval does not count."""

    source: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: `{self.source}` {self.message}"


class ApprovalResults(msgspec.Struct, frozen=True):
    """The approvals that count, and the reasons why the others do not."""

    approvals: tuple[Approval, ...] = ()
    refused: tuple[RejectedApproval, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """List why approvals do not count: rare reasons first, a few lines for each.

        However many files somebody drops into the folder, no reason is crowded out by another.
        """
        by_code: dict[str, list[RejectedApproval]] = {}
        for rejected in self.refused:
            by_code.setdefault(rejected.code, []).append(rejected)
        lines: list[str] = []
        for code, refused in sorted(by_code.items(), key=lambda item: len(item[1])):
            listed = 0 if code in _ELSEWHERE else MAX_LINES_PER_CODE
            lines += [str(rejected) for rejected in refused[:listed]]
            if len(refused) > listed:
                lines.append(f"{code}: {len(refused) - listed} {'more' if listed else 'approvals'}")
        return tuple(lines)


class AuthenticatedApproval(msgspec.Struct, frozen=True):
    """A statement with a valid signature of one known person; its target is not checked yet."""

    statement: ApprovalStatement
    person: Person
    payload: bytes
    key: SshKey


def examine(
    submitted: Iterable[SubmittedApproval | RejectedApproval], signers: Signers, target: ApprovalTarget, now: Instant
) -> ApprovalResults:
    """Decide which approvals count for the target, and why the others do not; never raises on data.

    Args:
        submitted: the approvals, and those that could not be read.
        signers: the keys that count, and their persons.
        target: what needs approval, as measured.
        now: the current time.
    """
    approvals: list[Approval] = []
    refused: list[RejectedApproval] = []
    for approval in submitted:
        if isinstance(approval, RejectedApproval):
            refused.append(approval)
            continue
        try:
            approvals.append(_counted(approval, signers, target, now))
        except ApprovalRejected as problem:
            refused.append(RejectedApproval(approval.source, problem.code, str(problem)))
    return ApprovalResults(tuple(approvals), tuple(refused))


def authenticate(submitted: SubmittedApproval, signers: Signers, now: Instant) -> AuthenticatedApproval:
    """Verify an approval's signature and find the person who made it.

    Args:
        submitted: the approval.
        signers: the keys that count, and their persons.
        now: the current time.

    Raises:
        ApprovalRejected: malformed, forged, in another namespace, or signed with a key that is not the approver's.
    """
    payload, key = _signed(submitted, signers)
    statement = parse_approval(payload)
    try:
        person = signers.person_of(key, NAMESPACE, (statement.approved_at, now))
    except UnknownSigner as problem:
        raise ApprovalRejected(problem.code, str(problem)) from None
    # INVARIANT I8: an approval counts for the person whose key signed it, under an account of that person.
    if statement.predicate.approver not in person.accounts:
        raise ApprovalRejected(
            "not_the_signer", f"names {quoted(statement.predicate.approver)}, but the key is {person.id}'s"
        )
    # INVARIANT I10: what was revoked no longer counts, by any key and of any time.
    if statement.predicate.approver in signers.revoked_accounts:
        raise ApprovalRejected("revoked_approver", f"names {quoted(statement.predicate.approver)}, which is revoked")
    if sha256_digest(payload) in signers.revoked_approvals:
        raise ApprovalRejected("revoked_approval", f"is revoked: `{sha256_digest(payload)}`")
    return AuthenticatedApproval(statement, person, payload, key)


def folder_approvals(folder: str) -> Iterator[SubmittedApproval | RejectedApproval]:
    """Yield the approvals in a folder, by file name; an unreadable one becomes a rejection."""
    try:
        names = sorted(os.listdir(os.fsencode(folder)))
    except OSError as problem:
        yield RejectedApproval(printable_name(folder), "approval.unreadable", f"cannot be read: {reason_of(problem)}")
        return
    present = frozenset(names)
    wanted = [name for name in names if name.endswith(b".json") and not name.startswith(b".")]
    for name in wanted[:MAX_FILES]:
        yield _read(os.fsencode(folder), name, signed=name + b".sig" in present)
    if len(wanted) > MAX_FILES:
        yield RejectedApproval(
            printable_name(folder), "approval.too_many", f"holds {len(wanted)} approvals, expected at most {MAX_FILES}"
        )


def _read(folder: bytes, name: bytes, *, signed: bool) -> SubmittedApproval | RejectedApproval:
    path = os.fsdecode(os.path.join(folder, name))
    try:
        content = read_small(path, MAX_FILE_BYTES)
        signature = read_small(path + ".sig", MAX_ARMOUR_BYTES) if signed else None
    except (EvidenceError, OSError) as problem:
        return RejectedApproval(printable_name(name), "approval.unreadable", str(problem))
    return SubmittedApproval(printable_name(name), content, signature)


def _counted(submitted: SubmittedApproval, signers: Signers, target: ApprovalTarget, now: Instant) -> Approval:
    authenticated = authenticate(submitted, signers, now)
    check_covers(authenticated.statement, target)
    check_time(authenticated.statement, now)
    return Approval(
        authenticated.statement.predicate.approver,
        Assurance.ATTESTED,
        submitted.source,
        authenticated.statement.approved_at,
        authenticated.statement.expires,
        sha256_digest(authenticated.payload),
        authenticated.key.fingerprint,
    )


def _signed(submitted: SubmittedApproval, signers: Signers) -> tuple[bytes, SshKey]:
    """Verify the signature over the payload and return its key."""
    if submitted.signature is None:
        return _enveloped(submitted.content, signers)
    try:
        signature = parse_signature(submitted.signature)
    except SshSignatureError as problem:
        raise ApprovalRejected(problem.code, str(problem)) from None
    if signature.namespace != NAMESPACE:
        raise ApprovalRejected(
            "wrong_namespace", f"is signed for {quoted(signature.namespace)}, expected `{NAMESPACE}`"
        )
    if not signature.covers(submitted.content, NAMESPACE):
        raise ApprovalRejected("forged", f"is not what key {signature.key.fingerprint} signed")
    return submitted.content, signature.key


def _enveloped(content: bytes, signers: Signers) -> tuple[bytes, SshKey]:
    try:
        envelope = parse(content.removesuffix(b"\n"), limit=MAX_FILE_BYTES)
    except VerificationError as problem:
        raise ApprovalRejected("malformed", problem.message) from None
    if envelope.payload_type != APPROVAL_PAYLOAD_TYPE or envelope.batch is not None or len(envelope.signatures) != 1:
        raise ApprovalRejected("malformed", "expected an in-toto statement with one signature, not in a batch")
    signature = envelope.signatures[0]
    key = signers.by_keyid.get(signature.keyid)
    if key is None:
        raise ApprovalRejected("unknown_signer", f"key id {quoted(signature.keyid)} is of no key that we know")
    if not key.verify(signature.sig, pae(envelope.payload_type, envelope.payload)):
        raise ApprovalRejected("forged", f"is not what key {signature.keyid[:12]} signed")
    return envelope.payload, SshKey(key.raw)
