"""A log changes its key by an entry that both keys sign; nothing else does, and the old key then signs no more."""

from __future__ import annotations

import pytest

from policyguard.attest.dsse import parse, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.audit.check import check_log
from policyguard.audit.checkpoint import open_checkpoint
from policyguard.audit.entries import HANDOVER_ENTRY
from policyguard.audit.handover import handover_leaf, read_handover
from policyguard.audit.log import Log
from policyguard.audit.stores.memory import MemoryStore
from policyguard.errors import AuditError, ConfigurationError, VerificationError
from policyguard.verify import verify
from tests.attest_lab import (
    AUDIENCE,
    BOUND,
    LOG_KEY,
    NOW,
    ORIGIN,
    REQUEST,
    SIGNER,
    STRANGER,
    Lab,
    key_of,
    payload_of,
)

NEW, NEWER = key_of("new"), key_of("newer")


def verifier(key: PrivateKey, origin: str = ORIGIN) -> NoteKey:
    return NoteKey(origin, key.public)


def rotated() -> MemoryStore:
    """A log with an entry under the old key, the handover, and an entry under the new one."""
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append(b"1")
    log.hand_over(NEW, NOW)
    Log.open(store, NEW).append(b"2")
    return store


def test_a_new_key_on_an_existing_log_is_refused_with_the_verb_that_helps() -> None:
    """The message names the verb; after the handover the new key goes on with the same tree."""
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    log.append(b"1")
    with pytest.raises(AuditError, match="a new key takes over a log by `policyguard keys rotate`"):
        Log.open(store, NEW)
    log.hand_over(NEW, NOW)
    assert Log.open(store, NEW).append(b"2").index == 2
    with pytest.raises(AuditError, match="no signature of a trusted log"):
        Log.open(store, STRANGER)


def test_the_old_key_appends_nothing_after_the_handover() -> None:
    """Neither the process that handed over, nor another that was open, nor a new one; before and after new entries."""
    store = MemoryStore(ORIGIN)
    handing, other = Log.open(store, LOG_KEY), Log.open(store, LOG_KEY)
    other.append(b"1")
    handing.hand_over(NEW, NOW)
    for log in (handing, other):
        with pytest.raises(AuditError, match="log was handed over to"):
            log.append(b"x")
    with pytest.raises(AuditError, match="log was handed over to"):
        Log.open(store, LOG_KEY)
    with pytest.raises(AuditError, match="log was handed over to"):
        handing.hand_over(NEWER, NOW)
    Log.open(store, NEW).append(b"2")
    for attempt in (lambda: Log.open(store, LOG_KEY), lambda: other.append(b"x")):
        with pytest.raises(AuditError):
            attempt()
    last = store.last()
    assert last is not None
    assert last.entry == 2


def test_a_reader_with_either_key_opens_the_checkpoint_of_the_handover() -> None:
    """C2SP signed-note: one text, two signatures; readers skip the line of the key that they do not know."""
    store = MemoryStore(ORIGIN)
    log = Log.open(store, LOG_KEY)
    note = log.hand_over(NEW, NOW).checkpoint
    assert open_checkpoint(note, (verifier(LOG_KEY),)) == open_checkpoint(note, (verifier(NEW),))
    with pytest.raises(VerificationError, match="V2"):
        open_checkpoint(note, (verifier(STRANGER),))


@pytest.mark.parametrize("logs", [(LOG_KEY,), (LOG_KEY, NEW), (NEW, LOG_KEY)])
def test_an_auditor_follows_the_chain_from_the_old_key(logs: tuple[PrivateKey, ...]) -> None:
    """The old key alone is enough; a chain of two handovers too."""
    store = rotated()
    Log.open(store, NEW).hand_over(NEWER, NOW)
    Log.open(store, NEWER).append(b"3")
    assert check_log(store, [verifier(key) for key in logs]).checkpoint.size == 5
    assert check_log(store, None).checkpoint.size == 5


@pytest.mark.parametrize("logs", [(NEW,), (STRANGER,), (NEWER,)])
def test_an_auditor_without_the_old_key_is_refused(logs: tuple[PrivateKey, ...]) -> None:
    """What came before the handover was signed by the old key, which an auditor of all of it must pin."""
    with pytest.raises(AuditError, match="entry 0: its checkpoint does not hold"):
        check_log(rotated(), [verifier(key) for key in logs])


def forged(leaf: bytes) -> MemoryStore:
    """A log that holds this entry like any other, as its key signed it, and goes on under another key."""
    store, other = MemoryStore(ORIGIN), MemoryStore(ORIGIN)
    Log.open(store, LOG_KEY).append(leaf)
    Log.open(other, NEW).append(leaf)
    Log.open(other, NEW).append(b"next")
    store.rows.append(other.rows[1])
    return store


def signed_handover(old: PrivateKey, new: PrivateKey, signers: tuple[PrivateKey, ...]) -> bytes:
    payload = parse(handover_leaf(ORIGIN, old, new, NOW)).payload
    return sign(payload, HANDOVER_ENTRY.payload_type, signers).to_bytes()


FORGED = {
    "signed by the old key alone": signed_handover(LOG_KEY, NEW, (LOG_KEY,)),
    "signed by the new key alone": signed_handover(LOG_KEY, NEW, (NEW,)),
    "signed twice by the new key": signed_handover(LOG_KEY, NEW, (NEW, NEW)),
    "by a key that is not the log's": handover_leaf(ORIGIN, STRANGER, NEW, NOW),
    "of another log": handover_leaf("other.example/log", LOG_KEY, NEW, NOW),
    "under a checkpoint of the old key alone": handover_leaf(ORIGIN, LOG_KEY, NEW, NOW),
}


@pytest.mark.parametrize("leaf", FORGED.values(), ids=FORGED)
def test_an_entry_that_both_keys_did_not_sign_hands_nothing_over(leaf: bytes) -> None:
    """The audit names the entry; the twin is `test_an_auditor_follows_the_chain_from_the_old_key`."""
    store = forged(leaf)
    with pytest.raises(AuditError, match="entry 0"):
        check_log(store, (verifier(LOG_KEY),))


def test_the_old_key_cannot_go_on_behind_the_new_one() -> None:
    """A stolen old key that signs a checkpoint after the handover: the audit names the entry."""
    store, other = rotated(), MemoryStore(ORIGIN)
    assert check_log(store, (verifier(LOG_KEY),)).checkpoint.size == 3
    Log.open(other, LOG_KEY).append_many([row.leaf for row in store.rows])
    store.rows[2] = other.rows[2]
    with pytest.raises(AuditError, match="entry 2: its checkpoint does not hold"):
        check_log(store, (verifier(LOG_KEY),))


def test_a_key_does_not_succeed_itself() -> None:
    """And an entry that says so is not read."""
    log = Log.open(MemoryStore(ORIGIN), LOG_KEY)
    with pytest.raises(ConfigurationError, match="the new key is the old one"):
        log.hand_over(LOG_KEY, NOW)
    log.append(b"still")
    with pytest.raises(VerificationError):
        read_handover(b"{}")


def test_decisions_of_both_keys_verify_while_trust_lists_both() -> None:
    """Overlap: a worker accepts what was logged before, at and after the handover, and later only the new key's."""
    store = MemoryStore(ORIGIN)
    lab = Lab(Log.open(store, LOG_KEY))
    before = lab.issue()
    lab.log.hand_over(NEW, NOW)
    after = Lab(Log.open(store, NEW)).issue(payload_of(decision_id="d-2"))
    both, new = ((verifier(LOG_KEY), verifier(NEW)), (verifier(NEW),))
    for signed, logs in ((before, both), (after, both), (after, new)):
        trust = lab.trust(logs=logs)
        assert verify(signed, trust, REQUEST, audience=AUDIENCE, now=NOW, bound=BOUND).signers == (SIGNER.public,)
    with pytest.raises(VerificationError, match="V2"):
        verify(before, lab.trust(logs=new), REQUEST, audience=AUDIENCE, now=NOW, bound=BOUND)
