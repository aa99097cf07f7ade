"""Reads approvals from a log; the log's operator is not trusted.

As in a folder, signature, signer, time and target decide whether an approval counts. In addition, the log shows if an
approval was removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from policyguard.audit.approvals import approval_leaves, approval_line
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError
from policyguard.evidence.approvals.from_git_notes import note_line, presented_line
from policyguard.evidence.approvals.verify import RejectedApproval, SubmittedApproval
from policyguard.text import printable_name


def logged_approvals(path: str | os.PathLike[str]) -> Iterator[SubmittedApproval | RejectedApproval]:
    """Yield the approvals in this log; an unreadable one becomes a rejection."""
    try:
        with SqliteStore.open(path, read_only=True) as store:
            for entry, leaf in approval_leaves(store):
                yield _presented(entry, leaf)
    except AuditError as problem:
        yield RejectedApproval(printable_name(os.fspath(path)), "approval.unreadable", str(problem))


def line_of(submitted: SubmittedApproval) -> bytes:
    """Encode an approval as one line for a log or a note."""
    if submitted.signature is None:
        return submitted.content.removesuffix(b"\n")
    return note_line(submitted.content, submitted.signature)


def _presented(entry: int, leaf: bytes) -> SubmittedApproval | RejectedApproval:
    try:
        line = approval_line(leaf, entry)
    except AuditError as problem:
        return RejectedApproval(f"log entry {entry}", "approval.malformed", str(problem))
    return presented_line(f"log entry {entry}", line)
