"""What an auditor is shown, one step from what adds up: heads, handovers, links and chains."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.audit.batch import sign_batch
from policyguard.audit.check import RotatedLogError, check_chain, check_log
from policyguard.audit.check_claims import check_claims
from policyguard.audit.entries import HANDOVER_ENTRY
from policyguard.audit.handover import _payload, handover_leaf, read_handover
from policyguard.audit.head import Head
from policyguard.audit.links import OldLog, link_leaf, old_log
from policyguard.audit.log import Log
from policyguard.audit.stores.claims import APPROVAL, Claim
from policyguard.audit.stores.memory import MemoryStore
from policyguard.errors import AuditError, VerificationError
from tests.attest_lab import LOG_KEY, NOW, ORIGIN, STRANGER

NEW = PrivateKey.generate(b"n" * 32)


def verifier(key: PrivateKey) -> NoteKey:
    return NoteKey(ORIGIN, key.public)


def log_of(*leaves: bytes) -> Log:
    log = Log.open(MemoryStore(ORIGIN), LOG_KEY)
    for leaf in leaves:
        log.append(leaf)
    return log


def note_of(log: Log) -> bytes:
    note = log.store.last()
    assert note is not None
    assert note.checkpoint is not None
    return note.checkpoint


def after(log: Log, *leaves: bytes, event: str = "rotated") -> Log:
    """A log that begins with a link to this one."""
    head = Head(note=note_of(log).decode(), log="old.db")
    return log_of(link_leaf(event, old_log(head, ORIGIN), LOG_KEY, reason="r", now=NOW), *leaves)  # type: ignore[arg-type]


def test_a_log_shorter_than_its_head_file_was_cut_off() -> None:
    """The entry that is missing is the first behind the end. The twin is a head in the log."""
    whole, cut = log_of(b"1", b"2", b"3"), log_of(b"1", b"2")
    assert check_log(whole.store, None, head=note_of(cut)).checkpoint.size == 3
    with pytest.raises(AuditError, match="log has 2 entries, the head file says 3: the end was cut off") as caught:
        check_log(cut.store, None, head=note_of(whole))
    assert caught.value.entry == 2


def test_only_a_rotation_asks_for_the_log_before_it() -> None:
    """After a reset a kept checkpoint that is not in the log is what it seems: another history."""
    before = log_of(b"1", b"2")
    with pytest.raises(RotatedLogError, match="this log was rotated: give --previous FILE"):
        check_log(after(before, b"x").store, None, [note_of(before)])
    with pytest.raises(AuditError, match="history was rewritten or shown differently") as caught:
        check_log(after(before, b"x", event="reset").store, None, [note_of(before)])
    assert type(caught.value) is AuditError


def test_a_chain_contains_every_stored_checkpoint() -> None:
    """In whichever of its logs; one that is in none of them is missed."""
    before = log_of(b"1", b"2")
    current = after(before, b"3", b"4")
    stores = [before.store, current.store]
    kept = [note_of(before), note_of(current)]
    assert check_chain(stores, None, kept).checkpoint.size == 3
    assert check_chain(stores, None, kept[:1]).checkpoint.size == 3
    other = log_of(b"1", b"x")
    with pytest.raises(AuditError, match="none of 2 logs contains the tree of 2 entries"):
        check_chain(stores, None, [*kept, note_of(other)])
    with pytest.raises(AuditError, match="none of 2 logs contains the tree of 4 entries"):
        check_chain(stores, None, [note_of(log_of(b"1", b"2", b"3", b"4")), *kept])
    with pytest.raises(AuditError, match="found no log, expected at least one"):
        check_chain([], None)


def test_a_chain_begins_with_the_head_of_the_log_before() -> None:
    """A link to a log of the same size and another root, and a first entry that is no link at all."""
    before = log_of(b"1", b"2")
    with pytest.raises(AuditError, match="entry 0 names a log of 2 entries with root"):
        check_chain([before.store, after(log_of(b"1", b"x")).store], None)
    with pytest.raises(AuditError, match="entry 0 is no link to an older log"):
        check_chain([before.store, log_of(b"1").store], None)


def test_a_key_that_is_not_trusted_appoints_no_successor() -> None:
    """Also where the auditor trusts the successor already: the entries before were never its own."""
    log = log_of()
    log.hand_over(NEW, NOW)
    assert check_log(log.store, (verifier(LOG_KEY),)).checkpoint.size == 1
    with pytest.raises(AuditError, match="which is no trusted key of it now") as caught:
        check_log(log.store, (verifier(NEW),))
    assert caught.value.entry == 0


def test_a_handover_in_the_middle_of_a_transaction_hands_nothing_over() -> None:
    """Its checkpoint would be that of a later entry, which the new key never signed."""
    log = log_of()
    log.append_many((handover_leaf(ORIGIN, LOG_KEY, NEW, NOW), b"2"))
    for logs in (None, (verifier(LOG_KEY),)):
        with pytest.raises(AuditError, match="entry 0: handover of the log carries no checkpoint"):
            check_log(log.store, logs)


def test_an_empty_log_adds_up_to_nothing() -> None:
    with pytest.raises(AuditError, match="log is empty, expected at least one entry"):
        check_log(log_of().store, None)


def test_a_batch_is_signed_by_somebody() -> None:
    """No key signs nothing, and nothing to sign is no batch."""
    with pytest.raises(ValueError, match="keys: none given, expected at least one"):
        sign_batch((b"{}",), PAYLOAD_TYPE, ())
    assert sign_batch((), PAYLOAD_TYPE, (LOG_KEY,)) == ()


@pytest.mark.parametrize(("entry", "is_there"), [(1, True), (2, False), (0, False)])
def test_a_claim_of_an_entry_that_comes_during_the_check_is_passed_over(
    entry: int, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard goes on while its log is checked. A claim of an entry that is not there, or made none, is still found."""
    log = log_of(b"1")
    store = log.store
    list_all = store.claims.list_all

    def append_first() -> list[tuple[str, Claim]]:
        log.append(b"2")
        store.claims.add(APPROVAL, Claim("d1", "", entry, ""))
        return list_all()

    monkeypatch.setattr(store.claims, "list_all", append_first)
    with nullcontext() if is_there else pytest.raises(AuditError, match=f"a claim says that entry {entry} takes"):
        check_claims([store], NOW)


def handover_of(old: NoteKey, new: NoteKey, payload_type: str = HANDOVER_ENTRY.payload_type) -> bytes:
    """A handover that its own maker would refuse, signed by both keys."""
    return sign(_payload(old, new, NOW), payload_type, (LOG_KEY, NEW)).to_bytes()


def test_a_handover_says_which_key_of_one_log_follows_which() -> None:
    """Another name, the same key, and another kind of entry hand nothing over, whoever signed."""
    old, new = verifier(LOG_KEY), verifier(NEW)
    assert read_handover(handover_of(old, new)).new == new
    with pytest.raises(VerificationError, match="expected another key of one log"):
        read_handover(handover_of(old, NoteKey("other.example/log", NEW.public)))
    with pytest.raises(VerificationError, match="expected another key of one log"):
        read_handover(handover_of(old, old))
    with pytest.raises(VerificationError, match="is not in its canonical form"):
        read_handover(handover_of(old, new, PAYLOAD_TYPE))
    spaced = sign(_payload(old, new, NOW) + b" ", HANDOVER_ENTRY.payload_type, (LOG_KEY, NEW)).to_bytes()
    with pytest.raises(VerificationError, match="is not in its canonical form"):
        read_handover(spaced)


@pytest.mark.parametrize("signers", [(LOG_KEY,), (NEW,), (NEW, NEW), (LOG_KEY, LOG_KEY), (STRANGER, NEW)])
def test_one_key_alone_hands_nothing_over(signers: tuple[PrivateKey, ...]) -> None:
    """The old key appoints, and the new one shows that somebody holds it: the entry itself says both."""
    payload = _payload(verifier(LOG_KEY), verifier(NEW), NOW)
    with pytest.raises(VerificationError, match="of the trusted keys signed this, expected at least 2"):
        read_handover(sign(payload, HANDOVER_ENTRY.payload_type, signers).to_bytes())


@pytest.mark.parametrize("head", [None, Head(log="old.db")], ids=["no head", "a head of nothing"])
def test_a_link_names_what_is_known_of_the_log_before(head: Head | None) -> None:
    """Where its head was lost, and where it had no entries; `after` above has the rest."""
    log = "" if head is None else "old.db"
    assert old_log(head, ORIGIN) == OldLog(checkpoint=None, log=log, origin=ORIGIN, root="", size=0)
