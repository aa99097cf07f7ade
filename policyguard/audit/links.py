"""Entries that link a log to the one before it: after a rotation, or after a reset that somebody accepted.

A leaf is an envelope of the log's own key; its payload names origin, size and root of the old log, so that an auditor
who keeps the old file can see that nothing came between.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from policyguard.attest.dsse import parse, sign
from policyguard.attest.keys import PrivateKey
from policyguard.audit.checkpoint import Checkpoint
from policyguard.audit.head import Head
from policyguard.errors import AuditError, VerificationError
from policyguard.values import Instant, format_instant

LINK_ENTRY_TYPE = "application/vnd.policyguard.log-link.v1+json"
_MARK = f'"payloadType":"{LINK_ENTRY_TYPE}"'.encode()


class OldLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head of the log before; `size` is 0 and `root` empty where no head was known."""

    checkpoint: str | None = None
    """The signed note, as the head file had it."""
    log: str
    origin: str
    root: str
    size: int


class LogLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a link says. `witness` is the countersigned checkpoint that a reset needed."""

    at: str
    event: Literal["reset", "rotated"]
    old: OldLog
    reason: str
    witness: str | None = None


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(LogLink)


def old_log(head: Head | None, origin: str) -> OldLog:
    """The head of a log as a link names it."""
    checkpoint = head.checkpoint() if head is not None else None
    if head is None or checkpoint is None:
        return OldLog(log="" if head is None else head.log, origin=origin, root="", size=0)
    return OldLog(
        checkpoint=head.note, log=head.log, origin=checkpoint.origin, root=checkpoint.root.hex(), size=checkpoint.size
    )


def link_leaf(
    event: Literal["reset", "rotated"],
    old: OldLog,
    key: PrivateKey,
    *,
    reason: str,
    now: Instant,
    witness: str | None = None,
) -> bytes:
    """Make the leaf of a link, signed by the log's key.

    Args:
        event: what happened.
        old: the head of the log before.
        key: of the log.
        reason: why, in the words of the operator.
        now: the current time.
        witness: the checkpoint that the witness has countersigned.
    """
    link = LogLink(at=format_instant(now), event=event, old=old, reason=reason, witness=witness)
    return sign(_ENCODER.encode(link), LINK_ENTRY_TYPE, (key,)).to_bytes()


def is_link(leaf: bytes) -> bool:
    """Whether a leaf holds a link. Base64 has no quotes, so nothing else in an envelope can contain this text."""
    return _MARK in leaf


def parse_link(leaf: bytes, entry: int) -> LogLink:
    """Parse the link in the leaf of this entry, else raise `AuditError`."""
    try:
        return _DECODER.decode(parse(leaf).payload)
    except (VerificationError, msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise AuditError(f"entry {entry}: link: {problem}", entry=entry) from problem


def check_link(first: bytes, old: Checkpoint) -> None:
    """Raise `AuditError` unless this first leaf of a log names the old log by exactly this head."""
    if not is_link(first):
        raise AuditError("entry 0 is no link to an older log, expected one after a rotation", entry=0)
    named = parse_link(first, 0).old
    if (named.origin, named.size, named.root) != (old.origin, old.size, old.root.hex()):
        raise AuditError(
            f"entry 0 names a log of {named.size} entries with root `{named.root[:16]}`, the older log has {old.size} "
            f"with root `{old.root.hex()[:16]}`",
            entry=0,
        )
