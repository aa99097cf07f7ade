"""Hands a log over to a new key: one entry, under one checkpoint, both signed by the old and the new key.

The log keeps its name and its tree. Before the entry, the old key signs checkpoints; after it, the new one. The
checkpoint of the entry itself has both signatures, as C2SP signed-note allows, so that readers with either key can
follow. An auditor who pins the old key learns the new key from the entry, and then accepts no other.

    payload = {"_type": in-toto Statement, "predicate": {"at": TIME, "from": VERIFIER, "to": VERIFIER},
               "predicateType": "urn:policyguard:key-handover:v1",
               "subject": [{"digest": {"sha256": HEX}, "name": ORIGIN}]}

`digest` is the SHA-256 of the new verifier key's text. Opens nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from policyguard.attest.dsse import check_signatures, pae, parse
from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.statement import STATEMENT_TYPE
from policyguard.audit.entries import HANDOVER_ENTRY
from policyguard.audit.stores.interface import Store
from policyguard.errors import AuditError, ConfigurationError, VerificationError
from policyguard.values import Instant, canonical, format_instant, parse_instant, sha256_digest

HANDOVER_TYPE = "urn:policyguard:key-handover:v1"


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """A verified handover: the old key, the new key, and when the new one takes over."""

    at: Instant
    old: NoteKey
    new: NoteKey


def handover_leaf(origin: str, old: PrivateKey, new: PrivateKey, now: Instant) -> bytes:
    """Build the entry that hands the log of this origin over to a new key.

    Args:
        origin: the log's name.
        old: the key that signs the log so far.
        new: the key that signs it from now on.
        now: the current time.

    Raises:
        ConfigurationError: both keys are the same.
    """
    if old.public == new.public:
        raise ConfigurationError("the new key is the old one, expected another; make it with `policyguard keys new`")
    payload = _payload(NoteKey(origin, old.public), NoteKey(origin, new.public), now)
    # INVARIANT I10: both keys sign: the old one appoints, and the new one shows that somebody holds it.
    return HANDOVER_ENTRY.leaf(payload, (old, new))


def read_handover(leaf: bytes) -> Handover:
    """Verify and parse a handover entry.

    Raises:
        VerificationError: it is malformed, not signed by both keys, or hands a log of one name to another.
    """
    envelope = parse(leaf)
    try:
        predicate: dict[str, Any] = msgspec.json.decode(envelope.payload)["predicate"]
        old, new = NoteKey.from_text(predicate["from"]), NoteKey.from_text(predicate["to"])
        at = parse_instant(predicate["at"])
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError, ValueError, ConfigurationError) as problem:
        raise VerificationError("V1", f"handover of the log: {problem}") from None
    # INVARIANT I5: one value has one canonical form: decode, encode again, compare.
    if envelope.payload_type != HANDOVER_ENTRY.payload_type or _payload(old, new, at) != envelope.payload:
        raise VerificationError("V1", "handover of the log is not in its canonical form")
    if old.name != new.name or old.public == new.public:
        raise VerificationError("V1", f"handover from `{old.text}` to `{new.text}`, expected another key of one log")
    check_signatures(envelope, pae(envelope.payload_type, envelope.payload), (old.public, new.public), 2)
    return Handover(at=at, old=old, new=new)


def check_not_handed_over(store: Store, entry: int, verifier: NoteKey) -> None:
    """Raise if this entry hands the log over from the key that is about to append.

    Args:
        store: the store of the log.
        entry: the last one.
        verifier: the key that is about to append.

    Raises:
        AuditError: it does, or is a handover that cannot be verified.
    """
    for row in store.read(entry, entry + 1):
        if not HANDOVER_ENTRY.matches(row.leaf):
            continue
        try:
            handover = read_handover(row.leaf)
        except VerificationError as problem:
            raise AuditError(f"entry {entry}: {problem.message}", entry=entry) from None
        if handover.old == verifier:
            raise handed_over(handover.new)


def handed_over(successor: NoteKey) -> AuditError:
    """Build the error for a key that tries to append after it has handed the log over."""
    return AuditError(f"log was handed over to `{successor.text}`, expected that key; configure it as `key:`")


def _payload(old: NoteKey, new: NoteKey, at: Instant) -> bytes:
    return canonical(
        {
            "_type": STATEMENT_TYPE,
            "predicate": {"at": format_instant(at), "from": old.text, "to": new.text},
            "predicateType": HANDOVER_TYPE,
            "subject": [{"digest": {"sha256": sha256_digest(new.text.encode())}, "name": old.name}],
        }
    )
