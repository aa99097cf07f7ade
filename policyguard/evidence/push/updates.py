"""The updates of a push as git passes them to a hook, and the measurements of one update.

`measure.py` measures, `session.py` opens the repository.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.verify import RejectedApproval, SubmittedApproval
from policyguard.text import printable_name

MAX_UPDATES = 1_000
MAX_REF_BYTES = 400

Change: TypeAlias = Literal["create", "update", "rewrite", "delete"]
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefUpdate:
    """One reference update: its old and new object id; None if the reference does not exist."""

    old: str | None
    new: str | None
    ref: str


@dataclass(slots=True, kw_only=True)
class MeasuredUpdate:
    """The measurements of one update; `tree` is None if the reference is deleted."""

    update: RefUpdate
    change: Change
    old_commit: str | None = None
    commit: str | None = None
    tree: str | None = None
    commits: int = 0
    paths: set[str] = field(default_factory=set)
    submodules: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    pointers: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    signers: set[str] = field(default_factory=set)
    unsigned: set[str] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)
    submitted: list[SubmittedApproval | RejectedApproval] = field(default_factory=list)


def parse_updates(text: bytes) -> tuple[RefUpdate, ...]:
    """Parse the updates on a hook's standard input: update = old SP new SP ref LF.

    Raises:
        EvidenceError: anything else, no line at all, a reference twice, or a name that is not one line of text.
    """
    updates = [parse_update(*line.split(b" ", 2)) for line in text.splitlines() if line.count(b" ") >= 2]
    if not updates or len(updates) != len(text.splitlines()) or len(updates) > MAX_UPDATES:
        raise EvidenceError(f"found {len(text.splitlines())} lines, expected 1 to {MAX_UPDATES} of `OLD NEW REF`")
    if len({update.ref for update in updates}) != len(updates):
        raise EvidenceError("found a reference twice in one push")
    return tuple(updates)


def parse_update(old: bytes, new: bytes, ref: bytes) -> RefUpdate:
    """Parse one update; an id of 40 or 64 zeros means that the reference does not exist.

    Args:
        old: the old object id.
        new: the new object id.
        ref: the full name of the reference.

    Raises:
        EvidenceError: two ids of different hashes, two ids of zeros, or no name below `refs/`.
    """
    ids = [_object_id(word) for word in (old, new)]
    if len(old) != len(new) or (ids[0] is None and ids[1] is None):
        raise EvidenceError(
            f"found the update `{printable_name(old[:80])} {printable_name(new[:80])}`, "
            "expected two object ids of one hash"
        )
    name = printable_name(ref)
    if not ref.startswith(b"refs/") or len(ref) > MAX_REF_BYTES:
        raise EvidenceError(f"found the reference `{name[:80]}`, expected `refs/...`")
    return RefUpdate(old=ids[0], new=ids[1], ref=name)


def _object_id(word: bytes) -> str | None:
    text = word.decode("ascii", "replace")
    if len(text) not in (40, 64) or not set(text) <= _HEX:
        raise EvidenceError(f"found `{printable_name(word[:80])}`, expected an object id of 40 or 64 hex digits")
    return text if text.strip("0") else None
