"""The kinds of log entries other than decisions, recognised by payload type. Opens nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from policyguard.attest.dsse import parse, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.errors import AuditError, VerificationError


class _Leaf(msgspec.Struct, frozen=True, rename="camel"):
    payload_type: str


_LEAF = msgspec.json.Decoder(_Leaf)


class EntryType(msgspec.Struct, frozen=True):
    """A kind of entry: the payload type of its envelope, and the noun that messages use for it."""

    payload_type: str
    noun: str

    def matches(self, leaf: bytes) -> bool:
        """Return True if the leaf is an envelope of this payload type, not merely a text that contains it."""
        # A search of bytes first: most entries are of another kind, and need no parser.
        if f'"payloadType":"{self.payload_type}"'.encode() not in leaf:
            return False
        try:
            return _LEAF.decode(leaf).payload_type == self.payload_type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False

    def leaf(self, payload: bytes, keys: Sequence[PrivateKey]) -> bytes:
        """Sign this payload as a log entry."""
        return sign(payload, self.payload_type, keys).to_bytes()

    def payload(self, leaf: bytes, entry: int) -> bytes:
        """Return the payload of a log entry of this kind; its signature is not verified.

        Raises:
            AuditError: the entry is malformed, or of another kind.
        """
        try:
            envelope = parse(leaf)
        except VerificationError as problem:
            raise AuditError(f"entry {entry}: {self.noun}: {problem.message}", entry=entry) from problem
        # INVARIANT I9: one payload type for each kind, so that no entry passes for one of another kind.
        if envelope.payload_type != self.payload_type:
            raise AuditError(f"entry {entry} holds no {self.noun}", entry=entry)
        return envelope.payload


DECISION_ENTRY = EntryType(PAYLOAD_TYPE, "decision")
APPROVAL_ENTRY = EntryType("application/vnd.policyguard.approval.v1+json", "approval")
HANDOVER_ENTRY = EntryType("application/vnd.policyguard.key-handover.v1+json", "handover of the log")
LINK_ENTRY = EntryType("application/vnd.policyguard.log-link.v1+json", "link")
REVOCATIONS_ENTRY = EntryType("application/vnd.policyguard.revocations-seen.v1+json", "use of a revocation list")
JOB_END_ENTRY = EntryType("application/vnd.policyguard.job-end.v1+json", "end of a job")
RESERVATION_ENTRY = EntryType("application/vnd.policyguard.reservation.v1+json", "reservation")
