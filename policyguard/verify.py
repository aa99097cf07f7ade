"""Verifies, where a job starts, that a signed decision covers exactly what is about to run. Pure: opens nothing.

The steps, with the same numbers in the design, in errors and in tests; each trusts only what the ones before it
checked:

    V1   parse within size limits, in canonical form
    V2   the log's checkpoint is signed by a trusted log key
    V3   the envelope is included in the log; size and root come from the checkpoint only
    V4   the envelope is signed by t of n trusted keys; the bytes checked are the bytes used
    V5   payload type and predicate type are ours
    V6   not_before <= now < expires, and the keys were valid when it was issued and are valid now
    V7   the request digest equals that of what this worker is about to run, computed by the worker
    V8   the audience is me
    V9   the policy's digest and epoch are accepted ones
    V10  the decision is allow and enforcing, and t of its keys are held in a form that trust accepts
    V11  not already used, where a single-use store is set
    V12  neither the decision nor its keys, approvers, approvals, grants or policy are revoked, where trust names a list

V12 is checked just before V11, so that a decision that is revoked, or a list that is stale, uses nothing up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Protocol

import msgspec

from policyguard.attest.dsse import Envelope, check_signatures
from policyguard.attest.keys import PublicKey
from policyguard.attest.note import NoteKey, open_note
from policyguard.attest.revocation import RevocationList, is_key_revoked, open_list, revoked_by
from policyguard.attest.statement import PAYLOAD_TYPE, Predicate, parse_statement
from policyguard.attest.trust import RevocationTrust, Trust
from policyguard.audit.batch import signed_message
from policyguard.audit.checkpoint import Checkpoint, open_checkpoint
from policyguard.audit.receipt import SignedDecision, check_inclusion, leaf_hash_of
from policyguard.errors import VerificationError
from policyguard.model.decision import MAX_LIFETIME_S
from policyguard.model.former_names import FORMER_FACTS
from policyguard.model.request import Request, request_digest
from policyguard.text import quoted, quoted_list
from policyguard.values import (
    ALWAYS,
    EMPTY_MAP,
    NANOSECONDS_PER_S,
    NEVER,
    Instant,
    Value,
    format_instant,
    parse_instant,
)


class UsedStore(Protocol):
    """Remembers used decisions; `audit/stores/used.py` implements it with SQLite."""

    def use(self, decision_id: str, expires: Instant) -> bool:
        """Record the use of a decision id durably; return True only at its first use."""


class RevocationMemory(Protocol):
    """Remembers the highest sequence of revocation lists; a `Guard` uses its log, `audit/stores/used.py` a table."""

    def remember_list(self, keys: Sequence[str], sequence: int) -> int:
        """Record durably that a list of these keys was used; return the highest recorded sequence."""


class VerifiedDecision(msgspec.Struct, frozen=True):
    """A verified decision: `predicate` was signed; `checkpoint` and `index` locate it in the log.

    `signers` are the trusted keys that signed it and were valid when it was issued; `log_key` signed the checkpoint.
    """

    predicate: Predicate
    checkpoint: Checkpoint
    index: int
    signers: tuple[PublicKey, ...]
    log_key: NoteKey

    @property
    def decision_id(self) -> str:
        return self.predicate.decision_id

    @property
    def obligations(self) -> tuple[str, ...]:
        return self.predicate.obligations


def verify(
    signed: SignedDecision | bytes,
    trust: Trust,
    request: Request,
    *,
    audience: str,
    now: Instant,
    bound: Mapping[str, Value] = EMPTY_MAP,
    used: UsedStore | None = None,
    revocations: bytes | None = None,
    memory: RevocationMemory | None = None,
) -> VerifiedDecision:
    """Verify that a signed decision allows exactly this request, here and now.

    Args:
        signed, trust: the decision, and whose decisions this worker accepts.
        request: what this worker is about to run, built by the worker, never taken from `signed`.
        audience, now: this worker's own name and time.
        bound: what this worker measured itself, by attribute path: the same paths as at the decision.
        used: with it, a decision starts one job only.
        revocations: the revocation list that `trust.revocation` names, as `revocation_file.read_revocations` reads it.
        memory: with it, no list older than one that was used before is accepted.

    Raises:
        VerificationError: `.step` is the first step that failed.
    """
    signed = _parsed(signed)
    # INVARIANT I11: trust, request, audience and time come from the caller, never from what is verified.
    verified = verify_origin(signed, trust)
    predicate = verified.predicate
    _check_now(verified, trust, now)
    _check_request(predicate, request, bound, signed.digest_key)
    _check_audience(predicate, trust, audience)
    _check_policy(predicate, trust)
    _check_allowed(predicate)
    _check_form(verified, trust, now)
    if trust.revocation is not None:
        _check_not_revoked(verified, trust, current_revocations(trust.revocation, revocations, now, memory))
    _check_unused(predicate, used)
    return verified


def verify_origin(signed: SignedDecision | bytes, trust: Trust) -> VerifiedDecision:
    """Verify that a decision, allow or deny, was signed and logged: steps V1 to V5, for auditors.

    Keys are judged at the time the decision was issued. A worker that starts a job calls `verify`.
    """
    signed = _parsed(signed)
    envelope, receipt = signed.envelope, signed.receipt
    # V2: the checkpoint is signed by a trusted log.
    checkpoint = open_checkpoint(receipt.checkpoint, trust.logs)
    _, log_key = open_note(receipt.checkpoint, trust.logs)
    # V3: exactly these bytes are a leaf of it.
    check_inclusion(leaf_hash_of(envelope), receipt, checkpoint)
    predicate, counting = verify_envelope(envelope, trust)
    return VerifiedDecision(predicate, checkpoint, receipt.index, counting, log_key)


def _parsed(signed: SignedDecision | bytes) -> SignedDecision:
    # V1: parse within size limits; a SignedDecision was parsed, or made here.
    return signed if isinstance(signed, SignedDecision) else SignedDecision.from_json(signed)


def verify_envelope(envelope: Envelope, trust: Trust) -> tuple[Predicate, tuple[PublicKey, ...]]:
    """Verify the signatures and type of an entry in a log that was already checked: steps V4 and V5.

    Raises:
        VerificationError: step V4 or V5.
    """
    # V4: t of n trusted keys signed the payload that is read below.
    signers = check_signatures(
        envelope, signed_message(envelope), tuple([trusted.key for trusted in trust.keys]), trust.threshold
    )
    # V5: payload type, then statement and predicate type.
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationError("V5", f"payload type is {quoted(envelope.payload_type)}, expected `{PAYLOAD_TYPE}`")
    predicate = parse_statement(envelope.payload).predicate
    return predicate, _valid_at(signers, trust, parse_instant(predicate.issued_at), "V4", "it was issued")


def _check_now(verified: VerifiedDecision, trust: Trust, now: Instant) -> None:
    if type(now) is not int or not ALWAYS <= now <= NEVER:
        raise VerificationError("V6", "the time of this check is out of range, expected nanoseconds since 1970")
    # V6: not_before <= now < expires, and the decision ends within 366 days of its issue.
    predicate = verified.predicate
    longest = parse_instant(predicate.issued_at) + MAX_LIFETIME_S * NANOSECONDS_PER_S
    if parse_instant(predicate.expires) > longest:
        raise VerificationError(
            "V6", f"issued at `{predicate.issued_at}` until `{predicate.expires}`, expected at most 366 days"
        )
    if now < parse_instant(predicate.not_before):
        raise VerificationError("V6", f"not valid before `{predicate.not_before}`, now is `{format_instant(now)}`")
    if now >= parse_instant(predicate.expires):
        raise VerificationError("V6", f"expired at `{predicate.expires}`, now is `{format_instant(now)}`")
    # INVARIANT I10: a key counts only if it was valid when the decision was issued and is valid now. The signers of a
    # verified decision are those that were valid then, so one expired and one too new do not add up to one valid.
    _valid_at(verified.signers, trust, now, "V6", "of this check")


def _valid_at(
    signers: tuple[PublicKey, ...], trust: Trust, instant: Instant, step: str, when: str
) -> tuple[PublicKey, ...]:
    """Return the signers that trust accepts at this instant; raise if fewer than `threshold` remain."""
    pinned = {trusted.key for trusted in trust.keys if trusted.is_valid(instant)}
    valid = tuple([signer for signer in signers if signer in pinned])
    if len(valid) < trust.threshold:
        raise VerificationError(
            step,
            f"{len(valid)} of the signing keys were valid at the time {when}, `{format_instant(instant)}`, "
            f"expected at least {trust.threshold}",
        )
    return valid


def _check_request(predicate: Predicate, request: Request, bound: Mapping[str, Value], key: bytes) -> None:
    # V7: the digest of what is about to run, computed here.
    # A decision of the release before names facts as that release did; their values are compared all the same.
    former = {present: name for name, present in FORMER_FACTS.items() if name in predicate.bound}
    bound = {former.get(path, path): value for path, value in bound.items()}
    paths = tuple(sorted(bound))
    if paths != predicate.bound:
        raise VerificationError(
            "V7",
            f"measured here {quoted_list(paths) or 'nothing'}, "
            f"expected {quoted_list(predicate.bound) or 'nothing'} as at the decision",
        )
    if (predicate.keyed is True) != bool(key):
        raise VerificationError("V7", _KEY_MISSING if predicate.keyed is True else _KEY_UNUSED)
    here = request_digest(request, bound, key=key)
    if not compare_digest(here, predicate.request_digest):
        raise VerificationError("V7", _difference(predicate, request, bound, key))
    # INVARIANT I11: the names shown to people are those of the request that was digested.
    named = (predicate.requester, predicate.action, predicate.resource)
    if named != (request.subject.ref, request.action, request.resource.ref):
        raise VerificationError("V7", "requester, action or resource differ from the request that was digested")


_KEY_MISSING = (
    "the decision hides values and its `digest_key` is missing, expected the signed decision as the guard issued it; "
    "`audit prove` cannot know the key"
)
_KEY_UNUSED = "found a `digest_key`, expected none: the decision hides no value"


def _difference(predicate: Predicate, request: Request, bound: Mapping[str, Value], key: bytes) -> str:
    """Name what differs from the decision, with both values where they are recorded."""
    # Only a job that is refused pays for loading the module.
    from policyguard.attest.differences import differences, uncompared

    lines = differences(predicate, request, bound, key)
    if not lines:
        hidden = quoted_list(uncompared(predicate), max_names=6)
        lines = [f"what differs is not recorded: a claimed property{f', or {hidden}' if hidden else ''}"]
    return "; ".join([*lines, "this decision was issued for another request"])


def _check_audience(predicate: Predicate, trust: Trust, audience: str) -> None:
    # V8: the audience is this worker, byte for byte, and the trust covers it.
    if audience not in trust.audiences:
        raise VerificationError(
            "V8", f"this worker is `{audience}`, expected one of {quoted_list(sorted(trust.audiences)) or 'nothing'}"
        )
    if predicate.audience != audience:
        raise VerificationError("V8", f"audience is {quoted(predicate.audience)}, expected `{audience}`")


def _check_policy(predicate: Predicate, trust: Trust) -> None:
    # V9: policy digest and epoch are accepted by the trust.
    policy = predicate.policy
    if trust.policy_digests and policy.digest not in trust.policy_digests:
        raise VerificationError(
            "V9", f"policy digest is {quoted(policy.digest[:16])}, expected one of the accepted ones"
        )
    if trust.min_epoch is not None and policy.epoch < trust.min_epoch:
        raise VerificationError("V9", f"policy epoch is {policy.epoch}, expected at least {trust.min_epoch}")
    demanded = trust.policy_signers
    if demanded is not None:
        persons = demanded.signed_by(policy.signers or ())
        if len(persons) < demanded.threshold:
            raise VerificationError(
                "V9",
                f"policies are signed by {quoted_list(persons) or 'nobody'}, "
                f"expected {demanded.threshold} of {quoted_list(demanded.persons)}",
            )


def _check_allowed(predicate: Predicate) -> None:
    # V10: the decision is an allow, and enforcing.
    if not predicate.allowed:
        codes = quoted_list(predicate.reason_codes)
        raise VerificationError("V10", f"decision is deny ({codes}), expected allow")
    if predicate.mode != "enforcing":
        raise VerificationError("V10", f"decision is {predicate.mode}, expected enforcing")


def _check_form(verified: VerifiedDecision, trust: Trust, now: Instant) -> None:
    # V10: who can read the guard's key can write any decision, so trust says how each key is held; the statement, which
    # that key signed, is not asked.
    accepted = {trusted.key for trusted in trust.keys if trusted.is_valid(now) and trust.accepts_form(trusted)}
    counting = [signer for signer in verified.signers if signer in accepted]
    if len(counting) < trust.threshold:
        raise VerificationError(
            "V10",
            f"{len(counting)} of the signing keys are `heldBy: service` in trust, expected at least {trust.threshold}; "
            "who can read a guard's key can sign anything: let a service decide, or, for a local lab, add "
            "`selfIssued: accept` to the trust file",
        )


def current_revocations(
    pinned: RevocationTrust, data: bytes | None, now: Instant, memory: RevocationMemory | None = None
) -> RevocationList:
    """Verify a revocation list and check that it is current. Step V12.

    Args:
        pinned: whose signature the list needs, and how old it may be.
        data: the signed list; None if there is none.
        now: the current time.
        memory: of the lists that were used before.

    Raises:
        VerificationError: step V12; the list is missing, not signed by a pinned key, or too old.
        AuditError: the memory cannot tell.
    """
    # V12: a list that is missing, old or not signed by a revocation key says nothing, so nothing passes.
    if data is None:
        raise VerificationError("V12", f"no revocation list was given, expected {quoted(pinned.source)}")
    content = open_list(data, pinned.keys)
    age_ns = now - parse_instant(content.issued_at)
    if not 0 <= age_ns <= pinned.max_age_s * NANOSECONDS_PER_S:
        raise VerificationError(
            "V12",
            f"revocation list is of `{content.issued_at}`, now is `{format_instant(now)}`, expected at most "
            f"{pinned.max_age_s} s before; `policyguard revoke refresh` signs it again",
        )
    # INVARIANT I13: an older list, however well signed, does not bring back what was revoked since.
    if content.sequence < pinned.min_sequence:
        raise VerificationError(
            "V12", f"revocation list has the sequence {content.sequence}, expected at least {pinned.min_sequence}"
        )
    highest = 0 if memory is None else memory.remember_list([key.keyid for key in pinned.keys], content.sequence)
    if content.sequence < highest:
        raise VerificationError(
            "V12",
            f"revocation list has the sequence {content.sequence}, expected at least {highest}, which was used here: "
            "an older list was put back; `policyguard revoke refresh` signs the newest one again",
        )
    return content


def _check_not_revoked(verified: VerifiedDecision, trust: Trust, content: RevocationList) -> None:
    predicate = verified.predicate
    issued_at = parse_instant(predicate.issued_at)
    signers = [key for key in verified.signers if not is_key_revoked(content, key, issued_at)]
    if len(signers) < trust.threshold:
        raise VerificationError(
            "V12", f"{len(signers)} of the signing keys are not revoked, expected at least {trust.threshold}"
        )
    if is_key_revoked(content, verified.log_key.public, issued_at):
        raise VerificationError("V12", f"the key of log {quoted(verified.log_key.name)} is revoked")
    for problem in revoked_by(content, predicate):
        raise VerificationError("V12", problem)


def _check_unused(predicate: Predicate, used: UsedStore | None) -> None:
    # V11: last, so that a decision refused for another reason is not consumed.
    if used is not None and not used.use(predicate.decision_id, parse_instant(predicate.expires)):
        raise VerificationError(
            "V11", f"decision {quoted(predicate.decision_id)} was used already, expected a fresh one"
        )
