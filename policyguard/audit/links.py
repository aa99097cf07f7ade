"""Link entries: the first entry of a log after a rotation, or an entry that records an accepted reset.

A leaf is an envelope of the log's own key. Its payload has origin, size and root of the old log, so that an auditor
with the old file can check that nothing is missing in between.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from policyguard.attest.keys import PrivateKey
from policyguard.audit.checkpoint import Checkpoint
from policyguard.audit.entries import LINK_ENTRY
from policyguard.audit.head import Head
from policyguard.audit.stores.interface import Store
from policyguard.errors import AuditError
from policyguard.values import Instant, format_instant


class OldLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head of the previous log; `size` is 0 and `root` is empty if no head was known."""

    checkpoint: str | None = None
    """The signed checkpoint note from the head file."""
    log: str
    origin: str
    root: str
    size: int


class LogLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a link entry. `witness` is the countersigned checkpoint that a reset required."""

    at: str
    event: Literal["reset", "rotated"]
    old: OldLog
    reason: str
    witness: str | None = None


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(LogLink)


def old_log(head: Head | None, origin: str) -> OldLog:
    """Describe a head as a link entry records it."""
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
    """Build a link entry, signed by the log's key.

    Args:
        event: what happened.
        old: the head of the log before.
        key: of the log.
        reason: why, in the words of the operator.
        now: the current time.
        witness: the checkpoint that the witness has countersigned.
    """
    link = LogLink(at=format_instant(now), event=event, old=old, reason=reason, witness=witness)
    return LINK_ENTRY.leaf(_ENCODER.encode(link), (key,))


def parse_link(leaf: bytes, entry: int) -> LogLink:
    """Parse a link entry; raises `AuditError` if the leaf is not one."""
    try:
        return _DECODER.decode(LINK_ENTRY.payload(leaf, entry))
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise AuditError(f"entry {entry}: link: {problem}", entry=entry) from problem


def is_rotated(store: Store) -> bool:
    """Return True if the first entry says that this log continues an older one."""
    first = next(iter(store.read(0, 1)), None)
    return first is not None and LINK_ENTRY.matches(first.leaf) and parse_link(first.leaf, 0).event == "rotated"


def check_link(first: bytes, old: Checkpoint) -> None:
    """Raise `AuditError` unless the first entry links to the old log with exactly this head."""
    if not LINK_ENTRY.matches(first):
        raise AuditError("entry 0 is no link to an older log, expected one after a rotation", entry=0)
    named = parse_link(first, 0).old
    if (named.origin, named.size, named.root) != (old.origin, old.size, old.root.hex()):
        raise AuditError(
            f"entry 0 names a log of {named.size} entries with root `{named.root[:16]}`, the older log has {old.size} "
            f"with root `{old.root.hex()[:16]}`",
            entry=0,
        )
