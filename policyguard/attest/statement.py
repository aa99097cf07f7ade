"""The in-toto statement about a decision, which a SignedDecision carries to the worker.

A statement has exactly one encoding, RFC 8785 JSON. The fields of every struct below are in sorted order, so encoding
needs no sorting; the parser encodes again and compares. Opens nothing and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache
from typing import Literal, NoReturn

import msgspec

from policyguard.attest.dsse import reason
from policyguard.errors import VerificationError
from policyguard.model.decision import Decision, UnmetQuorum
from policyguard.model.facts import GRANTS, Approval, Assurance, Fact
from policyguard.model.request import Request, request_digest
from policyguard.text import quoted
from policyguard.values import (
    MAX_INTEGER,
    NANOSECONDS_PER_S,
    Instant,
    Value,
    ValueProblem,
    canonical,
    format_instant,
    freeze,
    parse_instant,
    sha256_digest,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:policyguard:decision:v1"
"""A URN, because the project owns no domain whose URI it could use."""
ENGINE_VERSION = "0.1.0"

MAX_STATEMENT_BYTES = 524_288
MAX_INLINE_BYTES = 256
"""A statement holds a fact's value up to this many canonical bytes, and the digest of a longer one."""
MAX_BOUND_BYTES = 65_536
"""A statement holds the values of bound facts up to this many canonical bytes together, and the digests of others."""
GPUS = "resource.gpus"
"""Recorded whichever rules decided, like what is bound: how much ran."""
NOTHING: frozenset[str] = frozenset({"nothing"})
"""As `recorded_paths`: records no fact, whether it is bound or not."""


class Digests(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    sha256: str


class Subject(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """in-toto ResourceDescriptor: the resource, and the digest of the request with its bound facts."""

    digest: Digests
    name: str


class ApprovalRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """An approval as recorded in a statement; `key` is the fingerprint of the key that signed it."""

    account: str
    approved_at: str
    assurance: str
    digest: str
    expires: str
    key: str | msgspec.UnsetType = msgspec.UNSET
    source: str


class FactRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A recorded fact: exactly one of `value`, `digest` (longer values) and `masked` (sensitive ones).

    With a digest, `count` is the number of items of a list or map, and `part` those that are short enough. `hidden`
    says that secrets or fields for `trace` were replaced before.
    """

    assurance: str
    count: int | msgspec.UnsetType = msgspec.UNSET
    digest: str | msgspec.UnsetType = msgspec.UNSET
    hidden: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    masked: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    observed_at: str
    part: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    source: str
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class GapRecord(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    because: tuple[str, ...]
    domain: str
    needed: int
    quorum: str
    roles: tuple[str, ...]
    rule: str


class PolicyRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """The policies that decided. `name` is that of their `Schema`; statements of 0.1.0 have none."""

    digest: str
    edited: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    """The log has seen another digest of the same epoch: the folder was edited without raising the epoch."""
    epoch: int
    name: str | msgspec.UnsetType = msgspec.UNSET
    signers: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Ids of the keys that signed the snapshot; only where the operator demands several persons."""


class Predicate(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """What a worker checks and an auditor reads about one decision. Times are RFC 3339 in UTC.

    `grants` are the ids of the grants that the decision may rest on; unset in statements of 0.1.0, and where the grants
    are sensitive. `keyed` says that values are hidden, so that the request digest and those of secrets need the key
    that travels with the signed decision.
    """

    action: str
    approvals: tuple[ApprovalRecord, ...]
    audience: str
    bound: tuple[str, ...]
    decision: Literal["allow", "deny"]
    decision_id: str
    determining: tuple[str, ...]
    engine_version: str
    errored: tuple[str, ...]
    expires: str
    facts: dict[str, FactRecord]
    gaps: tuple[GapRecord, ...]
    grants: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    issued_at: str
    keyed: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    missing: dict[str, str]
    mode: Literal["advisory", "enforcing"]
    not_before: str
    obligations: tuple[str, ...]
    policy: PolicyRecord
    reason_codes: tuple[str, ...]
    request_digest: str
    requester: str
    requiring: tuple[str, ...]
    resource: str

    @property
    def allowed(self) -> bool:
        return self.decision == "allow"

    def __bool__(self) -> NoReturn:
        raise TypeError("a Predicate is not a truth value, use `.allowed`")


class Statement(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, rename={"type": "_type"}):
    """in-toto Statement v1 with our predicate."""

    type: str
    predicate: Predicate
    predicate_type: str = msgspec.field(name="predicateType")
    subject: tuple[Subject]


_encode = msgspec.json.Encoder().encode
_SORTING = msgspec.json.Encoder(order="sorted")


@cache
def _decoder() -> msgspec.json.Decoder[Statement]:
    """Build the statement decoder at first use: a hook only writes statements and should not pay for it."""
    return msgspec.json.Decoder(Statement)


class _Head(msgspec.Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    predicate_type: str


def decision_statement(
    decision: Decision,
    request: Request,
    *,
    decision_id: str,
    audience: str,
    issued_at: Instant,
    not_before: Instant,
    expires: Instant,
    advisory: bool = False,
    recorded_paths: Collection[str] | None = None,
    approvals: tuple[Approval, ...] | None = None,
    sensitive: frozenset[str] = frozenset(),
    redactions: Mapping[str, Callable[[Value], Value]] | None = None,
    policies: str | None = None,
    policy_signers: tuple[str, ...] = (),
    edited: bool = False,
    digest_key: bytes = b"",
) -> bytes:
    """Encode the statement about this decision in canonical bytes.

    Args:
        recorded_paths: paths of the facts to record beside the bound ones and the number of GPUs; None records all
            that were collected, and `NOTHING` none at all.
        approvals: those that a quorum counted; None records all that were collected.
        sensitive: paths whose value is neither recorded nor hashed: few possible values make a hash a value.
        policies: the name of the policy set, `metadata.name` of its `Schema`.
        policy_signers: ids of the keys that signed the policies, where several persons must.
        edited: the log has seen other policies of this name and epoch.
        redactions: what takes the parts out of a value that only some may see, by path; the rest is recorded.
        digest_key: the key of the request digest, if values are hidden.
    """
    facts, redactors = decision.facts, redactions or {}
    entries, missing, bound = facts.entries, facts.missing, facts.bound
    counted = facts.approvals if approvals is None else approvals
    digest = request_digest(request, bound, key=digest_key)
    room = [MAX_BOUND_BYTES]
    resource = request.resource.ref
    predicate = Predicate(
        action=request.action,
        approvals=tuple([_approval(approval) for approval in counted]) if counted else (),
        audience=audience,
        bound=tuple(sorted(bound)) if bound else (),
        decision="allow" if decision.allowed else "deny",
        decision_id=decision_id,
        determining=decision.determining,
        engine_version=ENGINE_VERSION,
        errored=decision.errored,
        expires=instant_text(expires),
        facts={
            path: _fact(entries[path], path in sensitive, redactors.get(path), room)
            for path in sorted(_recorded(entries, recorded_paths))
        },
        gaps=tuple([_gap(gap) for gap in decision.unmet_approvals]) if decision.unmet_approvals else (),
        grants=_grants(entries[GRANTS], GRANTS in sensitive) if GRANTS in entries else (),
        issued_at=instant_text(issued_at),
        keyed=True if digest_key else msgspec.UNSET,
        missing=_missing(missing, sensitive, digest_key) if missing else {},
        mode="advisory" if advisory else "enforcing",
        not_before=instant_text(not_before),
        obligations=decision.obligations,
        policy=PolicyRecord(
            digest=decision.policy_digest,
            edited=True if edited else msgspec.UNSET,
            epoch=decision.epoch,
            name=policies or msgspec.UNSET,
            signers=policy_signers or msgspec.UNSET,
        ),
        reason_codes=decision.reason_codes,
        request_digest=digest,
        requester=request.subject.ref,
        requiring=decision.requiring,
        resource=resource,
    )
    subject = (Subject(Digests(digest), resource),)
    payload = _encode(Statement(STATEMENT_TYPE, predicate, PREDICATE_TYPE, subject))
    # Canonical order differs from code point order beyond ASCII; the slower encoder handles that.
    return payload if payload.isascii() else canonical(msgspec.json.decode(payload))


def parse_statement(payload: bytes) -> Statement:
    """Parse a statement.

    Raises:
        VerificationError: step V1, too large, not JSON, not in canonical form; step V5, another type of statement.
    """
    if len(payload) > MAX_STATEMENT_BYTES:
        raise VerificationError("V1", f"statement is {len(payload)} bytes, expected at most {MAX_STATEMENT_BYTES}")
    _check_types(payload)
    try:
        statement = _decoder().decode(payload)
        _check_values(statement.predicate)
        encoded = canonical(msgspec.json.decode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        raise VerificationError("V1", f"statement: {reason(problem)}") from None
    # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
    if encoded != payload:
        raise VerificationError("V1", "statement is not in its canonical form, expected RFC 8785 bytes")
    # INVARIANT I11: the digest and the resource that in-toto tools read are those that we check.
    subject, predicate = statement.subject[0], statement.predicate
    if (subject.digest.sha256, subject.name) != (predicate.request_digest, predicate.resource):
        raise VerificationError("V1", "statement subject differs from the predicate's resource and request digest")
    return statement


@lru_cache(maxsize=1024)
def instant_text(instant: Instant) -> str:
    """Format an instant as RFC 3339; cached, because the facts of a decision share few instants."""
    whole_s, nanoseconds = divmod(instant, NANOSECONDS_PER_S)
    if not nanoseconds:
        return _second_text(whole_s) + "Z"
    digits = f"{nanoseconds:09d}"
    while digits.endswith("000"):
        digits = digits[:-3]
    return f"{_second_text(whole_s)}.{digits}Z"


@lru_cache(maxsize=256)
def _second_text(whole_s: int) -> str:
    return format_instant(whole_s * NANOSECONDS_PER_S)[:-1]


_HIDDEN = "not supplied, why is hidden"
"""Replaces a collector's text about a sensitive fact, because that could quote the value."""

_ASSURANCE_WORDS = ("", *(assurance.word for assurance in Assurance))
_MAX_PLAIN_CHARS = 40
"""Text of up to this many characters never exceeds `MAX_INLINE_BYTES`, however it is escaped."""


def _recorded(entries: Mapping[str, Fact], chosen: Collection[str] | None) -> Collection[str]:
    if chosen is None:
        return entries
    if chosen is NOTHING:
        return ()
    return [path for path, fact in entries.items() if path in chosen or fact.bound or path == GPUS]


def _missing(reasons: Mapping[str, Value], sensitive: frozenset[str], digest_key: bytes) -> dict[str, str]:
    visible_text = {path: _HIDDEN if path in sensitive else str(reasons[path]) for path in sorted(reasons)}
    if digest_key:
        # A reason may quote the command, and only a command with secrets pays for loading the module.
        from policyguard.model.secret_arguments import hide_secrets, keyed_digests

        visible_text = {
            path: str(hide_secrets(reason, keyed_digests(digest_key))) for path, reason in visible_text.items()
        }
    return visible_text


def _fact(
    fact: Fact, is_sensitive: bool, redact: Callable[[Value], Value] | None = None, room: list[int] | None = None
) -> FactRecord:
    word, at, source, value = _ASSURANCE_WORDS[fact.assurance], instant_text(fact.observed_at), fact.source, fact.value
    # INVARIANT I14: a sensitive fact leaves neither its value nor its digest in a statement.
    if is_sensitive:
        return FactRecord(assurance=word, observed_at=at, source=source, masked=True)
    if redact is not None and (visible_text := redact(value)) != value:
        # Hidden values are marked, so that nobody takes the placeholder for the value.
        plain = _fact(msgspec.structs.replace(fact, value=visible_text), is_sensitive=False, room=room)
        return msgspec.structs.replace(plain, hidden=True)
    kind = type(value)
    if kind is bool or kind is int or (kind is str and len(value) <= _MAX_PLAIN_CHARS):  # type: ignore[arg-type]
        return FactRecord(assurance=word, observed_at=at, source=source, value=value)  # type: ignore[arg-type]
    encoded = _SORTING.encode(value)
    if not encoded.isascii():
        encoded = canonical(value)
    if len(encoded) <= MAX_INLINE_BYTES:
        return FactRecord(assurance=word, observed_at=at, source=source, value=msgspec.Raw(encoded))
    if fact.bound and room is not None:
        # Only a job with long facts pays for loading the module.
        from policyguard.attest.long_values import long_record

        return FactRecord(assurance=word, observed_at=at, source=source, **long_record(value, encoded, room))
    return FactRecord(assurance=word, observed_at=at, source=source, digest=sha256_digest(encoded))


def _gap(gap: UnmetQuorum) -> GapRecord:
    return GapRecord(gap.because, gap.domain, gap.needed, gap.quorum, gap.roles, gap.rule)


def _approval(approval: Approval) -> ApprovalRecord:
    return ApprovalRecord(
        account=approval.account,
        approved_at=instant_text(approval.approved_at),
        assurance=_ASSURANCE_WORDS[approval.assurance],
        digest=approval.approval_digest,
        expires=instant_text(approval.expires),
        key=approval.key or msgspec.UNSET,
        source=approval.source,
    )


def _grants(fact: Fact, is_sensitive: bool) -> tuple[str, ...] | msgspec.UnsetType:
    """List the ids of the grants in this fact; unset if they are hidden or the fact has none."""
    value = fact.value
    if is_sensitive or type(value) is not tuple:
        return msgspec.UNSET
    ids = [record.get("grant_id") for record in value if isinstance(record, Mapping)]
    if len(ids) != len(value) or not all(type(grant_id) is str for grant_id in ids):
        return msgspec.UNSET
    return tuple(sorted({str(grant_id) for grant_id in ids}))


def _check_types(payload: bytes) -> None:
    """Check that this is a Statement v1 with our predicate type, before the predicate is decoded."""
    try:
        head = msgspec.json.decode(payload, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise VerificationError("V1", f"statement: {reason(problem)}") from None
    types = (head.type, head.predicate_type)
    if types != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise VerificationError(
            "V5", f"statement is {quoted(types[0])} with predicate {quoted(types[1])}, expected `{PREDICATE_TYPE}`"
        )


def _check_values(predicate: Predicate) -> None:
    times = [predicate.issued_at, predicate.not_before, predicate.expires]
    times += [text for approval in predicate.approvals for text in (approval.approved_at, approval.expires)]
    times += [fact.observed_at for fact in predicate.facts.values()]
    for text in times:
        if instant_text(parse_instant(text)) != text:
            raise ValueError(f"found {quoted(text)}, expected a UTC time in its canonical form")
    if not predicate.decision_id:
        raise ValueError("decision_id: found empty text, expected an id")
    if not 0 <= predicate.policy.epoch <= MAX_INTEGER:
        raise ValueError(f"policy.epoch: found {predicate.policy.epoch}, expected 0 to 2^53 - 1")
    for path, fact in predicate.facts.items():
        _check_fact(fact, f"facts.{path}")


def _check_fact(fact: FactRecord, where: str) -> None:
    forms = [fact.value, fact.digest, fact.masked]
    if sum(form is not msgspec.UNSET for form in forms) != 1:
        raise ValueError(f"{where}: expected exactly one of `value`, `digest` and `masked`")
    if fact.digest is msgspec.UNSET and (fact.count, fact.part) != (msgspec.UNSET, msgspec.UNSET):
        raise ValueError(f"{where}: found `count` or `part`, expected them beside `digest` only")
    for raw in (fact.value, fact.part):
        if not isinstance(raw, msgspec.Raw):
            continue
        try:
            freeze(msgspec.json.decode(bytes(raw)), where)
        except ValueProblem as problem:
            raise ValueError(str(problem)) from None
