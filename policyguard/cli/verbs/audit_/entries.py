"""Formats log entries as text for people and as data for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from policyguard.attest.approval import ApprovalRejected, ApprovalStatement, parse_approval
from policyguard.attest.dsse import Envelope, parse
from policyguard.attest.sshsig import SshSignatureError, parse_signature
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.approvals import approval_line
from policyguard.audit.entries import (
    APPROVAL_ENTRY,
    HANDOVER_ENTRY,
    JOB_END_ENTRY,
    LINK_ENTRY,
    RESERVATION_ENTRY,
    REVOCATIONS_ENTRY,
)
from policyguard.audit.handover import read_handover
from policyguard.audit.job_end import job_end
from policyguard.audit.links import parse_link
from policyguard.audit.reservation_events import reservation_event
from policyguard.audit.revocation_lists import list_seen
from policyguard.errors import AuditError, VerificationError
from policyguard.evidence.approvals.from_git_notes import presented_line
from policyguard.evidence.approvals.verify import RejectedApproval
from policyguard.text import counted
from policyguard.values import format_instant


@dataclass(frozen=True, slots=True)
class EntryText:
    """A log entry: `line` for people, `data` for `tail --json`, and the `statement` that `show` prints.

    `kind` is one word, `at` the time in RFC 3339, `subject` the account that asked or approved, if there is one.
    """

    line: str
    data: dict[str, Any]
    statement: dict[str, Any]
    kind: str
    at: str
    subject: str | None = None


def parse_entry(leaf: bytes, entry: int) -> EntryText:
    """Parse a log entry of any kind.

    Raises:
        AuditError: the entry is neither a decision nor a readable approval.
    """
    if APPROVAL_ENTRY.matches(leaf):
        return _approval(leaf, entry)
    if RESERVATION_ENTRY.matches(leaf):
        return _reservation(leaf, entry)
    if JOB_END_ENTRY.matches(leaf):
        return _job_end(leaf, entry)
    if LINK_ENTRY.matches(leaf):
        return _link(leaf, entry)
    if REVOCATIONS_ENTRY.matches(leaf):
        return _revocations(leaf, entry)
    try:
        if HANDOVER_ENTRY.matches(leaf):
            return _handover(leaf, entry)
        envelope = parse(leaf)
        return _decision(envelope, parse_statement(envelope.payload).predicate, entry)
    except VerificationError as problem:
        raise AuditError(f"entry {entry}: {problem.message}", entry=entry) from problem


def entry_or_problem(leaf: bytes, entry: int) -> EntryText | AuditError:
    """Parse a log entry; return the error of an unreadable one instead of raising it."""
    try:
        return parse_entry(leaf, entry)
    except AuditError as problem:
        return problem


def _link(leaf: bytes, entry: int) -> EntryText:
    link = parse_link(leaf, entry)
    old = link.old
    size = counted(old.size, "entry")
    line = f"{entry:>6}  {link.at:<30}  {link.event.upper():<5}  {size} of {old.origin}  {link.reason}"
    statement = msgspec.to_builtins(link)
    return EntryText(line, {"entry": entry, **statement}, statement, "link", link.at)


def _decision(envelope: Envelope, predicate: Predicate, entry: int) -> EntryText:
    line = (
        f"{entry:>6}  {predicate.issued_at:<30}  {predicate.decision.upper():<5}  {predicate.requester}  "
        f"{predicate.action}  {predicate.resource}  {','.join(predicate.reason_codes)}"
    )
    data = {
        "entry": entry,
        "decision": predicate.decision,
        "requester": predicate.requester,
        "action": predicate.action,
        "resource": predicate.resource,
        "issued_at": predicate.issued_at,
        "reason_codes": predicate.reason_codes,
        "decision_id": predicate.decision_id,
    }
    statement = json.loads(envelope.payload)
    return EntryText(line, data, statement, "decision", predicate.issued_at, predicate.requester)


def _handover(leaf: bytes, entry: int) -> EntryText:
    handover = read_handover(leaf)
    at = format_instant(handover.at)
    data = {"entry": entry, "handover": {"from": handover.old.text, "to": handover.new.text}, "at": at}
    line = f"{entry:>6}  {at:<30}  KEY    handed over to {handover.new.text}"
    return EntryText(line, data, json.loads(parse(leaf).payload), "handover", at)


def _approval(leaf: bytes, entry: int) -> EntryText:
    try:
        payload, signer = _signed(leaf, entry)
        statement = parse_approval(payload)
    except (ApprovalRejected, VerificationError, SshSignatureError) as problem:
        raise AuditError(f"entry {entry}: approval: {problem}", entry=entry) from problem
    data = _approval_data(statement, signer, entry)
    approver, at = statement.predicate.approver, statement.predicate.approved_at
    return EntryText(_approval_line(statement, entry), data, json.loads(payload), "approval", at, approver)


def _reservation(leaf: bytes, entry: int) -> EntryText:
    event = reservation_event(leaf, entry)
    promised = f"  {event.scope}  {event.amount}  until {event.expires}" if event.event == "reserve" else ""
    line = f"{entry:>6}  {event.at:<30}  {event.event.upper()}  {event.decision_id}{promised}"
    data = json.loads(parse(leaf).payload)
    return EntryText(line, {"entry": entry, "reservation": event.event, **data}, data, "reservation", event.at)


def _job_end(leaf: bytes, entry: int) -> EntryText:
    end = job_end(leaf, entry)
    how = f"{end.status} by {end.signal}" if end.signal else f"{end.status}"
    line = (
        f"{entry:>6}  {end.at:<30}  ENDED  {end.subject}  {end.resource}  status {how}  "
        f"after {end.duration_ms / 1000:.1f} s  {end.decision_id}"
    )
    statement = json.loads(parse(leaf).payload)
    return EntryText(line, {"entry": entry, **statement}, statement, "job-end", end.at, end.subject)


def _revocations(leaf: bytes, entry: int) -> EntryText:
    seen = list_seen(leaf, entry)
    line = f"{entry:>6}  {seen.at:<30}  LIST   revocation list with sequence {seen.sequence}"
    statement = msgspec.to_builtins(seen)
    data = {"entry": entry, "revocations": seen.sequence, **statement}
    return EntryText(line, data, statement, "revocations", seen.at)


def _signed(leaf: bytes, entry: int) -> tuple[bytes, str]:
    """Read the statement of an approval and its claimed signer; the signature is not verified here."""
    presented = presented_line(f"entry {entry}", approval_line(leaf, entry))
    if isinstance(presented, RejectedApproval):
        raise ApprovalRejected("malformed", presented.message)
    if presented.signature is not None:
        return presented.content, parse_signature(presented.signature).key.fingerprint
    envelope = parse(presented.content)
    return envelope.payload, envelope.signatures[0].keyid if envelope.signatures else ""


def _approval_line(statement: ApprovalStatement, entry: int) -> str:
    predicate = statement.predicate
    return (
        f"{entry:>6}  {predicate.approved_at:<30}  APPROVAL  {predicate.approver}  {predicate.action}  "
        f"{predicate.resource}  until {predicate.expires}"
    )


def _approval_data(statement: ApprovalStatement, signer: str, entry: int) -> dict[str, Any]:
    predicate = statement.predicate
    return {
        "entry": entry,
        "approver": predicate.approver,
        "action": predicate.action,
        "resource": predicate.resource,
        "approved_at": predicate.approved_at,
        "expires": predicate.expires,
        "reason": predicate.reason,
        "subjects": statement.named,
        "key": signer,
    }
