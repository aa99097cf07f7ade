"""`policyguard approve --list`: list the stored approvals and whether they count."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.attest.approval import ApprovalRejected, ApprovalTarget
from policyguard.attest.signers import Signers
from policyguard.audit.approval_use import used_approvals
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.output import say, say_json
from policyguard.errors import AuditError
from policyguard.evidence.approvals.collectors import ReviewFiles
from policyguard.evidence.approvals.verify import (
    ApprovalResults,
    RejectedApproval,
    SubmittedApproval,
    authenticate,
    examine,
)
from policyguard.exit_codes import FINDINGS, OK
from policyguard.model.facts import Approval
from policyguard.values import Instant


def list_approvals(
    files: ReviewFiles, signers: Signers, target: ApprovalTarget | None, log: Path | None = None, *, as_json: bool
) -> int:
    """Print each approval with its status; return 1 if any does not count, else 0.

    Args:
        target: the approvals must match it; None checks only the signatures.
        log: with the allows that may have consumed them; None if approvals are not consumed.
    """
    now = time.time_ns()
    rows = [_row(item, signers, target, now, log) for item in files.submitted()]
    _show(rows, as_json)
    return FINDINGS if any("message" in row for row in rows) else OK


def _row(
    item: SubmittedApproval | RejectedApproval,
    signers: Signers,
    target: ApprovalTarget | None,
    now: Instant,
    log: Path | None,
) -> dict[str, str]:
    row = {"source": item.source, "standing": "counts" if target else "signed"}
    try:
        if isinstance(item, RejectedApproval):
            raise ApprovalRejected(item.code.removeprefix("approval."), item.message)
        predicate = authenticate(item, signers, now).statement.predicate
        row |= {
            "approver": predicate.approver,
            "action": predicate.action,
            "resource": predicate.resource,
            "expires": predicate.expires,
            "reason": predicate.reason,
        }
        result = examine([item], signers, target, now) if target else ApprovalResults()
        if result.refused:
            raise ApprovalRejected(result.refused[0].code.removeprefix("approval."), result.refused[0].message)
        _check_unused(result.approvals, log)
    except ApprovalRejected as problem:
        row |= {"standing": problem.code, "message": str(problem)}
    return row


def _check_unused(approvals: Sequence[Approval], log: Path | None) -> None:
    if log is None or not log.exists():
        return
    try:
        with SqliteStore.open(log, read_only=True) as store:
            used = used_approvals(store, {item.approval_digest for item in approvals})
    except AuditError as problem:
        raise ApprovalRejected("unreadable", f"may be consumed, which cannot be checked: {problem}") from None
    for entry in used.values():
        raise ApprovalRejected("used", f"counts once, and counted for entry {entry} of the log")


def _show(rows: Sequence[Mapping[str, str]], as_json: bool) -> None:
    if as_json:
        say_json({"approvals": rows})
        return
    for row in rows:
        text = row.get("message") or f"{row['approver']}  {row['action']}  {row['resource']}  until {row['expires']}"
        say(f"{row['standing']:<24}  {row['source']}  {text}", fg="red" if "message" in row else None)
