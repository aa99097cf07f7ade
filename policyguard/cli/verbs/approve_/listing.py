"""`policyguard approve --list`: what stands in the folder and the log of approvals, and whether it counts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from policyguard.attest.approval import ApprovalRejected, ApprovalTarget
from policyguard.attest.signers import Signers
from policyguard.audit.approval_use_scan import find_used_approvals
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
    """Print each approval with its standing; return 1 if one of them does not count, else 0.

    Args:
        target: what they are held against; None asks only who signed.
        log: where allows that use them up would stand; None where approvals last.
    """
    now = time.time_ns()
    rows = [_row(each, signers, target, now, log) for each in files.submitted()]
    _show(rows, as_json)
    return FINDINGS if any("message" in row for row in rows) else OK


def _row(
    each: SubmittedApproval | RejectedApproval,
    signers: Signers,
    target: ApprovalTarget | None,
    now: Instant,
    log: Path | None,
) -> dict[str, str]:
    row = {"source": each.source, "standing": "counts" if target else "signed"}
    try:
        if isinstance(each, RejectedApproval):
            raise ApprovalRejected(each.code.removeprefix("approval."), each.message)
        predicate = authenticate(each, signers, now).statement.predicate
        row |= {
            "approver": predicate.approver,
            "action": predicate.action,
            "resource": predicate.resource,
            "expires": predicate.expires,
            "reason": predicate.reason,
        }
        found = examine([each], signers, target, now) if target else ApprovalResults()
        if found.refused:
            raise ApprovalRejected(found.refused[0].code.removeprefix("approval."), found.refused[0].message)
        _check_unused(found.approvals, log)
    except ApprovalRejected as problem:
        row |= {"standing": problem.code, "message": str(problem)}
    return row


def _check_unused(approvals: Sequence[Approval], log: Path | None) -> None:
    if log is None or not log.exists():
        return
    asked = {each.approval_digest: each.approved_at for each in approvals}
    try:
        with SqliteStore.open(log, read_only=True) as store:
            last = store.last()
            used = find_used_approvals(store, 0, 0 if last is None else last.entry + 1, asked)
    except AuditError as problem:
        raise ApprovalRejected("unreadable", f"may be used up, which cannot be told: {problem}") from None
    for entry in used.values():
        raise ApprovalRejected("used", f"counts once, and counted for entry {entry} of the log")


def _show(rows: Sequence[Mapping[str, str]], as_json: bool) -> None:
    if as_json:
        say_json({"approvals": rows})
        return
    for row in rows:
        told = row.get("message") or f"{row['approver']}  {row['action']}  {row['resource']}  until {row['expires']}"
        say(f"{row['standing']:<24}  {row['source']}  {told}", fg="red" if "message" in row else None)
