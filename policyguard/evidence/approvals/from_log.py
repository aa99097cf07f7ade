"""Approvals in a decision log, or in a log of their own: read without trusting who keeps it.

What counts is decided by signature, signer, time and binding, as in a folder. The log adds that an approval which was
there cannot be taken away unseen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from policyguard.audit.approvals import approval_leaves, approval_line
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AuditError
from policyguard.evidence.approvals.from_git_notes import note_line, presented_line
from policyguard.evidence.approvals.verify import Presented, Refusal
from policyguard.fs.safe_open import shown


def logged_approvals(path: str | os.PathLike[str]) -> Iterator[Presented | Refusal]:
    """Yield the approvals in this log; what cannot be read is yielded as a refusal."""
    try:
        with SqliteStore.open(path, read_only=True) as store:
            for entry, leaf in approval_leaves(store):
                yield _presented(entry, leaf)
    except AuditError as problem:
        yield Refusal(shown(os.fspath(path)), "approval.unreadable", str(problem))


def line_of(presented: Presented) -> bytes:
    """Return the line that holds this approval in a log or a note."""
    if presented.signature is None:
        return presented.content.removesuffix(b"\n")
    return note_line(presented.content, presented.signature)


def _presented(entry: int, leaf: bytes) -> Presented | Refusal:
    try:
        line = approval_line(leaf, entry)
    except AuditError as problem:
        return Refusal(f"log entry {entry}", "approval.malformed", str(problem))
    return presented_line(f"log entry {entry}", line)
