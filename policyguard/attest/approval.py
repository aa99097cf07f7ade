"""The approval statement: who approved what until when, and whether it covers a request.

An in-toto Statement v1, encoded by RFC 8785. It is signed by a DSSE envelope around it, or by a detached SSH signature
over its bytes in the namespace `policyguard-approval@v1`. Pure; `signers.py` determines who signed.

Each subject names one thing, and all of them must equal what is measured:

| name | digest | what |
|---|---|---|
| `request` | sha256 | `request_digest` of subject, action, resource, claimed properties and context |
| `tree` | gitTree | the tree that runs, or that the target of a push will hold once it is merged |
| `command` | sha256 | the command line, the folder it starts in below the repository's root, the files the job names |
| `checkpoint`, `policy`, `environment` | sha256 | a checkpoint, a policy bundle, an environment baseline |

The resource is an id, taken literally; it is a pattern only where the statement says `resource_is_pattern`.

With the subject `request`, the request must be exactly that one. Without it, `limits` must name every property that the
request claims about its resource: an integer may be at most the limit, any other value must equal it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from policyguard.attest.dsse import reason
from policyguard.attest.statement import PAYLOAD_TYPE, STATEMENT_TYPE, instant_text
from policyguard.model.ids import is_type_name, ref_problem
from policyguard.model.request import Request, request_digest
from policyguard.patterns.glob import glob
from policyguard.patterns.id_pattern import DOMAIN
from policyguard.patterns.overlap import pattern_problem
from policyguard.text import quoted
from policyguard.values import (
    EMPTY_MAP,
    NANOSECONDS_PER_S,
    OBJECT_ID,
    SHA256_HEX,
    FrozenMap,
    Instant,
    Value,
    canonical,
    digest,
    freeze,
    parse_instant,
)

NAMESPACE = "policyguard-approval@v1"
"""The namespace for `ssh-keygen -Y sign -n`."""

APPROVAL_TYPE = "urn:policyguard:approval:v1"
APPROVAL_PAYLOAD_TYPE = PAYLOAD_TYPE

MAX_APPROVAL_BYTES = 16_384
MAX_LIFETIME_S = 7 * 86_400
"""The longest lifetime of an approval: it is for something about to happen."""

_ACTION = re.compile(r"[a-z][a-z0-9_]{0,62}:[a-z][a-z0-9_-]{0,62}", re.ASCII)
_DIGESTS = {
    "request": "sha256",
    "command": "sha256",
    "tree": "gitTree",
    "checkpoint": "sha256",
    "policy": "sha256",
    "environment": "sha256",
}


class ApprovalRejected(Exception):
    """The approval does not count; `code` is the reason code, such as `approval.expired`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = f"approval.{code}"


class ApprovalSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: dict[str, str]
    name: str


class ApprovalPredicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who approves which action on which resource, for what reason and until when.

    The order of the fields is the order of the signed bytes.
    """

    action: str
    approved_at: str
    approver: str
    expires: str
    reason: str
    resource: str
    any_command: bool = False
    from_id: str = ""
    limits: dict[str, Any] = {}
    resource_is_pattern: bool = False
    target_id: str = ""
    target_ref: str = ""


class ApprovalStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"type_": "_type"}):
    """A complete statement; `payload` encodes it."""

    type_: str
    predicate: ApprovalPredicate
    predicateType: str
    subject: tuple[ApprovalSubject, ...]

    @property
    def approved_at(self) -> Instant:
        return parse_instant(self.predicate.approved_at)

    @property
    def expires(self) -> Instant:
        return parse_instant(self.predicate.expires)

    @property
    def named(self) -> dict[str, str]:
        """The approved subjects, as a map from name to digest."""
        return {part.name: part.digest[_DIGESTS[part.name]] for part in self.subject}

    @property
    def payload(self) -> bytes:
        """The bytes that are signed; `parse_approval(s.payload) == s`."""
        return canonical(msgspec.to_builtins(self))


class ApprovalTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The request that needs approval, with the measured digests of the artifacts it concerns.

    `measured_digests` maps subject names (`tree`, `command`, `checkpoint`) to digests. An approval must name every
    subject in `required_subjects` to count. `target_ref`, `from_id` and `target_id` are set for a push.
    """

    request: Request
    measured_digests: Mapping[str, str] = msgspec.field(default_factory=dict)
    required_subjects: tuple[str, ...] = ()
    target_ref: str = ""
    from_id: str = ""
    target_id: str = ""

    @property
    def request_digest(self) -> str:
        return request_digest(self.request)


def command_digest(argv: tuple[str, ...], directory: str, files: tuple[str, ...] = ()) -> str:
    """Compute the digest of a command line, its working directory in the repository, and its files.

    Args:
        argv: the words of the command.
        directory: where it starts, relative to the repository.
        files: the digests of the files it names.
    """
    return digest(freeze({"argv": argv, "directory": directory, "files": files}))


def approval_statement(
    *,
    subjects: Mapping[str, str],
    action: str,
    resource: str,
    approver: str,
    reason: str,
    approved_at: Instant,
    expires: Instant,
    limits: Mapping[str, Value] = EMPTY_MAP,
    any_command: bool = False,
    resource_is_pattern: bool = False,
    target_ref: str = "",
    from_id: str = "",
    target_id: str = "",
) -> ApprovalStatement:
    """Build a statement that approves these subjects; it passes the same checks as a parsed one.

    Args:
        subjects: name to digest of what is approved.
        action, resource: `type:verb` and `type:id`; with `resource_is_pattern` a pattern.
        approver, reason: the account that approves, and why, for people.
        approved_at, expires: when it is signed, and until when it counts.
        limits: the largest approved values, by name.
        any_command: approves every command on these subjects.
        target_ref, from_id, target_id: for pushes, the reference that may move, its present object id and the new tree.

    Raises:
        ApprovalRejected: it would never count, such as one without a subject or of more than seven days.
    """
    at, until = instant_text(approved_at), instant_text(expires)
    target = target_id, target_ref
    predicate = ApprovalPredicate(
        action, at, approver, until, reason, resource, any_command, from_id, dict(limits), resource_is_pattern, *target
    )
    named = tuple(ApprovalSubject({_DIGESTS[name]: subjects[name]}, name) for name in sorted(subjects))
    return parse_approval(ApprovalStatement(STATEMENT_TYPE, predicate, APPROVAL_TYPE, named).payload)


def parse_approval(payload: bytes) -> ApprovalStatement:
    """Parse an approval statement.

    Raises:
        ApprovalRejected: `approval.malformed`; too large, no approval statement, or not in its canonical form.
    """
    if len(payload) > MAX_APPROVAL_BYTES:
        raise ApprovalRejected("malformed", f"statement is {len(payload)} bytes, expected at most {MAX_APPROVAL_BYTES}")
    try:
        statement = _DECODER.decode(payload)
        _check(statement)
        encoded = statement.payload
    except (RecursionError, ValueError, OverflowError) as problem:
        raise ApprovalRejected("malformed", f"statement: {reason(problem)}") from None
    # INVARIANT I5: an approval has one encoding, so that what was read is what was signed.
    if encoded != payload:
        raise ApprovalRejected("malformed", "statement is not in its canonical form, expected RFC 8785 bytes")
    return statement


def check_time(statement: ApprovalStatement, now: Instant) -> None:
    """Raise `ApprovalRejected` unless the approval is valid at this time.

    Raises:
        ApprovalRejected: it is not valid yet, or expired.
    """
    predicate = statement.predicate
    if now < statement.approved_at:
        raise ApprovalRejected("not_yet_valid", f"holds from {predicate.approved_at}")
    if now >= statement.expires:
        raise ApprovalRejected("expired", f"expired at {predicate.expires}")


def check_covers(statement: ApprovalStatement, target: ApprovalTarget) -> None:
    """Raise `ApprovalRejected` unless the statement approves exactly the measured target.

    Raises:
        ApprovalRejected: it covers something else; the code says what differs.
    """
    predicate, request = statement.predicate, target.request
    if predicate.action != request.action:
        raise ApprovalRejected("other_action", f"approves {quoted(predicate.action)}, not `{request.action}`")
    if not _covers_resource(predicate, request.resource.ref):
        raise ApprovalRejected("other_resource", f"approves {quoted(predicate.resource)}, not `{request.resource.ref}`")
    _check_digests(statement, target)
    _check_target(predicate, target)
    # INVARIANT I9: what an approval does not name, exactly or with a limit, it does not cover.
    if "request" not in statement.named:
        for name, value in request.resource.properties.items():
            _check_limit(predicate.limits, name, value)


def _check_digests(statement: ApprovalStatement, target: ApprovalTarget) -> None:
    measured = {"request": target.request_digest, **target.measured_digests}
    # INVARIANT I9: everything an approval names is what was measured, and it names all that must be bound.
    for name, approved in statement.named.items():
        if name not in measured:
            raise ApprovalRejected(f"no_{name}", f"approves the {name} `{approved[:12]}`, but none was measured here")
        if measured[name] != approved:
            raise ApprovalRejected(
                f"other_{name}", f"approves the {name} `{approved[:12]}`, this is `{measured[name][:12]}`"
            )
    for name in target.required_subjects:
        if name not in statement.named and not (name == "command" and statement.predicate.any_command):
            raise ApprovalRejected(f"no_{name}", f"does not say which {name} it approves")


def _check_target(predicate: ApprovalPredicate, target: ApprovalTarget) -> None:
    pairs = (
        ("target ref", predicate.target_ref, target.target_ref),
        ("start", predicate.from_id, target.from_id),
        ("target", predicate.target_id, target.target_id),
    )
    for what, approved, there in pairs:
        if (approved or there) and approved != there:
            raise ApprovalRejected("other_target", f"approves the {what} {quoted(approved)}, this is {quoted(there)}")


def _check_limit(limits: Mapping[str, Any], name: str, value: Value) -> None:
    if name not in limits:
        raise ApprovalRejected("no_limit", f"says nothing about `{name}`, which the request sets")
    limit = limits[name]
    if type(value) is int and type(limit) is int:
        if not 0 <= value <= limit:
            raise ApprovalRejected("over_limit", f"approves `{name}` up to {limit}, this is {value}")
    elif type(value) is not type(limit) or value != limit:
        raise ApprovalRejected("other_value", f"approves another `{name}` than the request sets")


def _covers_resource(predicate: ApprovalPredicate, resource: str) -> bool:
    """Return True if the approved resource equals this one, or is a pattern of its type that matches it."""
    # INVARIANT I9: an approval of a resource that is named like a pattern is never one of others.
    if not predicate.resource_is_pattern:
        return predicate.resource == resource
    kind, _, pattern = predicate.resource.partition(":")
    type_, _, identifier = resource.partition(":")
    return kind == type_ and glob(identifier, pattern)


def _check_resource(predicate: ApprovalPredicate) -> None:
    problem = ref_problem(predicate.resource)
    if predicate.resource_is_pattern:
        kind, _, pattern = predicate.resource.partition(":")
        fault = pattern_problem(pattern)
        if not is_type_name(kind) or fault is not None or "*" not in pattern or DOMAIN in pattern:
            fault = fault or "is no pattern of one type with `*` or `**`"
            raise ValueError(
                f"resource: {quoted(predicate.resource)} {fault}, expected a pattern such as `job:team/vision/**`"
            )
    elif problem is not None:
        raise ValueError(f"resource: {problem}")


def _check(statement: ApprovalStatement) -> None:
    predicate = statement.predicate
    if (statement.type_, statement.predicateType) != (STATEMENT_TYPE, APPROVAL_TYPE):
        raise ValueError(f"found the predicate {quoted(statement.predicateType)}, expected `{APPROVAL_TYPE}`")
    _check_subjects(statement.subject)
    problem = ref_problem(predicate.approver)
    if problem is not None:
        raise ValueError(f"approver: {problem}")
    _check_resource(predicate)
    if not _ACTION.fullmatch(predicate.action):
        raise ValueError(f"action: found {quoted(predicate.action)}, expected `type:verb`")
    if not predicate.reason.strip() or len(predicate.reason) > 1000:
        raise ValueError("reason: expected 1 to 1000 characters")
    approved_at, expires = (_instant(text) for text in (predicate.approved_at, predicate.expires))
    if not 0 < expires - approved_at <= MAX_LIFETIME_S * NANOSECONDS_PER_S:
        raise ValueError(f"expires: expected at most {MAX_LIFETIME_S // 86400} days after `approved_at`")
    if not isinstance(freeze(predicate.limits, "limits"), FrozenMap):
        raise ValueError("limits: expected a map")


def _check_subjects(subjects: tuple[ApprovalSubject, ...]) -> None:
    names = [subject.name for subject in subjects]
    # INVARIANT I9: an approval of nothing in particular is none: it names a request or a tree, an artifact at least.
    if not set(names) - {"command"} or names != sorted(set(names)):
        raise ValueError("subject: expected at least a request or an artifact, each once, sorted by name")
    for subject in subjects:
        kind = _DIGESTS.get(subject.name)
        pattern = OBJECT_ID if kind == "gitTree" else SHA256_HEX
        if kind is None or list(subject.digest) != [kind] or not pattern.fullmatch(subject.digest[kind]):
            raise ValueError(
                f"subject: found {quoted(subject.name)}, expected one of {', '.join(_DIGESTS)} and its digest"
            )


def _instant(text: str) -> Instant:
    instant = parse_instant(text)
    if instant_text(instant) != text:
        raise ValueError(f"found {quoted(text)}, expected a UTC time in its canonical form")
    return instant


_DECODER = msgspec.json.Decoder(ApprovalStatement)
