"""The signed revocation list: decisions, keys, approvers, grants, approvals and policies that no longer count.

The list is signed as a whole, so no entry can be removed from it. It is signed by a *revocation key*, which trust pins
only for this purpose, so that a guard cannot undo the revocation of its own decisions. Pure; `revocation_file.py` opens
the file.

    payload = {"entries": [ENTRY...], "issued_at": TIME, "sequence": N, "version": 1}
    ENTRY   = {"id": TEXT, "kind": KIND, "reason": TEXT, "revoked_at": TIME, "since"?: TIME}

An entry applies to every decision issued at `since` or later; without `since`, to every decision. The time is that of
the decision, not of an approval, because an approval's signer, perhaps the thief of the key, chooses its time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import msgspec

from policyguard.attest.dsse import Envelope, check_signatures, pae, parse, reason, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.signers import parse_revoked
from policyguard.attest.sshsig import SshKey
from policyguard.attest.statement import Predicate
from policyguard.errors import ConfigurationError, VerificationError
from policyguard.model.ids import ref_problem
from policyguard.text import quoted, quoted_list
from policyguard.values import MAX_INTEGER, SHA256_HEX, Instant, LazyPattern, canonical, format_instant, parse_instant

REVOCATION_TYPE = "application/vnd.policyguard.revocations.v1+json"
MAX_REVOCATION_BYTES = 4_194_304
MAX_ENTRIES = 10_000

DECISION, KEY, APPROVER, GRANT, APPROVAL, POLICY = KINDS = (
    *("decision", "key", "approver", "grant", "approval", "policy"),
)

_DECISION_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
_ACCOUNT = re.compile(r"[a-z][a-z0-9_]{0,62}:[^\s\x00-\x1f\x7f]{1,512}")
_NAME = re.compile(r"[!-~]{1,256}", re.ASCII)
_IDS: dict[str, tuple[re.Pattern[str] | LazyPattern, str]] = {
    DECISION: (_NAME, "a decision id"),
    KEY: (_FINGERPRINT, "`SHA256:FINGERPRINT`, `ed25519:BASE64` or a public key line"),
    APPROVER: (_ACCOUNT, "an account such as `user:ines`"),
    GRANT: (_NAME, "a grant id"),
    APPROVAL: (SHA256_HEX, "the SHA-256 of the approval's statement, 64 hex digits"),
    POLICY: (SHA256_HEX, "a policy digest, 64 hex digits"),
}
MAX_REASON = 1000


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One entry of the list; the fields are in sorted order."""

    id: str
    kind: str
    reason: str
    revoked_at: str
    since: str | None = None

    def concerns(self, issued_at: Instant) -> bool:
        """Return True if the entry applies to a decision issued at this time."""
        return self.since is None or issued_at >= parse_instant(self.since)


class RevocationList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The complete list; `sequence` increases by one with each signature."""

    entries: tuple[Revocation, ...]
    issued_at: str
    sequence: int
    version: int = 1


EMPTY = RevocationList(entries=(), issued_at=format_instant(0), sequence=0)

_DECODER = msgspec.json.Decoder(RevocationList)


def revocation(kind: str, identifier: str, *, reason: str, now: Instant, since: Instant | None = None) -> Revocation:
    """Build an entry; a key can be given in any form that `revokedKeys` accepts.

    Args:
        kind: one of the kinds of entries.
        identifier: the id of that kind.
        reason: the reason, for people.
        now: when it is revoked.
        since: decisions issued from then on are concerned, None for all.

    Raises:
        ValueError: the kind is unknown, the id does not fit it, or the reason is too long.
    """
    if kind == KEY:
        identifier = fingerprint_of(identifier)
    entry = Revocation(
        id=identifier,
        kind=kind,
        reason=reason,
        revoked_at=format_instant(now),
        since=None if since is None else format_instant(since),
    )
    _check_entry(entry)
    return entry


def check_form(kind: str, identifier: str) -> None:
    """Check that an id has the form of its kind, before it is signed into a list.

    A list that is read may have other ids: earlier versions signed them, and no entry may be ignored.

    Raises:
        ValueError: it cannot be the id of anything, so that revoking it would stop nothing.
    """
    if kind == DECISION and not _DECISION_ID.fullmatch(identifier):
        raise ValueError(f"found decision {quoted(identifier)}, expected 32 hex digits, the decision's `decision_id`")
    if kind == GRANT and ("/" in identifier or identifier.endswith(".json")):
        raise ValueError(f"found grant {quoted(identifier)}, expected the grant's `grant_id`, not its file")
    # INVARIANT I5: ids are literal here, too: no account has a pattern or an encoded dot in its id.
    problem = ref_problem(identifier) if kind == APPROVER else None
    if problem is not None:
        raise ValueError(f"approver: {problem}")


def fingerprint_of(text: str) -> str:
    """Compute the fingerprint of a key given in any form that a file of revoked keys accepts.

    Raises:
        ValueError: it names no key, or several.
    """
    try:
        fingerprints = parse_revoked(text.encode())
    except ConfigurationError as problem:
        raise ValueError(problem.message.removeprefix("revoked keys: line 1: ")) from None
    if len(fingerprints) != 1:
        raise ValueError(f"found {quoted(text)}, expected one key")
    return next(iter(fingerprints))


def sign_list(entries: Collection[Revocation], sequence: int, now: Instant, key: PrivateKey) -> bytes:
    """Encode and sign the list.

    Args:
        entries: all entries, old and new.
        sequence: one more than that of the list before.
        now: when the list is signed.
        key: a revocation key.

    Raises:
        ValueError: there are too many entries.
    """
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"found {len(entries)} entries, expected at most {MAX_ENTRIES}; drop those that expired")
    content = RevocationList(entries=tuple(entries), issued_at=format_instant(now), sequence=sequence)
    return sign(canonical(msgspec.to_builtins(content)), REVOCATION_TYPE, (key,)).to_bytes()


def open_list(data: bytes, keys: Collection[PublicKey]) -> RevocationList:
    """Verify and parse a list.

    Args:
        data: the signed text.
        keys: the revocation keys; one of them must have signed it.

    Raises:
        VerificationError: step V12; it is malformed or not signed by one of these keys.
    """
    try:
        envelope = parse(data.removesuffix(b"\n"), limit=MAX_REVOCATION_BYTES)
        _check_signed(envelope, keys)
        content = _DECODER.decode(envelope.payload)
        for entry in content.entries:
            _check_entry(entry)
        _check_head(content)
    except (VerificationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        detail = problem.message if isinstance(problem, VerificationError) else str(problem)
        detail = detail if not isinstance(problem, msgspec.DecodeError) else reason(problem)
        raise VerificationError("V12", f"revocation list: {detail}") from None
    # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
    if canonical(msgspec.to_builtins(content)) != envelope.payload:
        raise VerificationError("V12", "revocation list is not in its canonical form")
    return content


def revoked_by(content: RevocationList, predicate: Predicate) -> Iterator[str]:
    """Yield a sentence for each revocation that applies to this decision.

    The keys that signed the decision are checked by the caller, with `is_key_revoked`.

    A decision that does not say which keys or grants it rests on is refused where one of those is revoked.
    """
    issued_at = parse_instant(predicate.issued_at)
    approvals = predicate.approvals
    names: dict[str, Collection[object]] = {
        DECISION: (predicate.decision_id,),
        APPROVER: {record.account for record in approvals},
        APPROVAL: {record.digest for record in approvals},
        KEY: {record.key for record in approvals},
        GRANT: predicate.grants if isinstance(predicate.grants, tuple) else (),
        POLICY: (predicate.policy.digest,),
    }
    unnamed = {
        KEY: any(record.key is msgspec.UNSET for record in approvals),
        GRANT: predicate.grants is msgspec.UNSET,
    }
    for entry in content.entries:
        if not entry.concerns(issued_at):
            continue
        if entry.id in names[entry.kind]:
            yield f"{entry.kind} {quoted(entry.id)} was revoked at `{entry.revoked_at}`{_reason_text(entry)}"
        elif unnamed.get(entry.kind):
            yield (
                f"the decision does not say which {entry.kind}s it rests on, and {entry.kind} {quoted(entry.id)} is "
                "revoked; decide again with this version"
            )


def revoked_ids(content: RevocationList, kind: str, issued_at: Instant) -> frozenset[str]:
    """Select the ids of a kind that no longer count for decisions of that time.

    Args:
        content: the verified list.
        kind: one of the kinds of entries.
        issued_at: when the decision is issued.
    """
    return frozenset(entry.id for entry in content.entries if entry.kind == kind and entry.concerns(issued_at))


def is_key_revoked(content: RevocationList, key: PublicKey, issued_at: Instant) -> bool:
    """Return True if the list revokes this key for decisions issued at that time.

    Args:
        content: the verified list.
        key: the key.
        issued_at: when the decision was issued.
    """
    return SshKey(key.raw).fingerprint in revoked_ids(content, KEY, issued_at)


def _reason_text(entry: Revocation) -> str:
    return f": {quoted(entry.reason)}" if entry.reason else ""


def _check_signed(envelope: Envelope, keys: Collection[PublicKey]) -> None:
    if envelope.payload_type != REVOCATION_TYPE or envelope.batch is not None:
        raise ValueError(f"payload type is {quoted(envelope.payload_type)}, expected `{REVOCATION_TYPE}`")
    # INVARIANT I10: only a key that is pinned for revoking revokes, and only such a key says that nothing is revoked.
    check_signatures(envelope, pae(envelope.payload_type, envelope.payload), tuple(keys), 1)


def _check_head(content: RevocationList) -> None:
    if content.version != 1:
        raise ValueError(f"version is {content.version}, expected 1")
    if not 1 <= content.sequence <= MAX_INTEGER:
        raise ValueError(f"sequence is {content.sequence}, expected at least 1")
    if len(content.entries) > MAX_ENTRIES:
        raise ValueError(f"found {len(content.entries)} entries, expected at most {MAX_ENTRIES}")
    parse_instant(content.issued_at)


def _check_entry(entry: Revocation) -> None:
    # INVARIANT I10: nothing written is ignored: an entry that is not understood refuses the list.
    if entry.kind not in KINDS:
        raise ValueError(f"found the kind {quoted(entry.kind)}, expected one of {quoted_list(KINDS)}")
    pattern, expected = _IDS[entry.kind]
    if not pattern.fullmatch(entry.id):
        raise ValueError(f"found {entry.kind} {quoted(entry.id)}, expected {expected}")
    if len(entry.reason) > MAX_REASON or not (entry.reason.isprintable() or not entry.reason):
        raise ValueError(f"reason: expected at most {MAX_REASON} printable characters on one line")
    for text in (entry.revoked_at, entry.since):
        if text is not None:
            parse_instant(text)
