"""V12: what was revoked stops verifying before it expires; the guard's own key can neither revoke nor unrevoke."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.revocation import (
    REVOCATION_TYPE,
    Revocation,
    RevocationList,
    open_list,
    revocation,
    sign_list,
)
from policyguard.attest.sshsig import SshKey
from policyguard.attest.statement import parse_statement
from policyguard.attest.trust import RevocationTrust, Trust, TrustedKey, parse_trust
from policyguard.audit.check import check_log
from policyguard.audit.continuity import rotate
from policyguard.audit.head import HeadLocation
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.revocation_lists import list_seen
from policyguard.audit.stores import Row
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.audit.stores.used import UsedDecisions
from policyguard.cli.verbs.audit_.entries import parse_entry
from policyguard.errors import AuditError, ConfigurationError, VerificationError
from policyguard.guard import Guard
from policyguard.keyfiles import write_private_key
from policyguard.model.facts import GRANTS, Approval, Assurance, Fact
from policyguard.revocation_file import read_revocations
from policyguard.values import FrozenMap, canonical, format_instant
from policyguard.verify import RevocationMemory, VerifiedDecision, current_revocations, verify, verify_origin
from tests.attest_lab import (
    AUDIENCE,
    BOUND,
    LOG_KEY,
    NOW,
    ORIGIN,
    POLICY_DIGEST,
    REQUEST,
    SECOND,
    SECOND_SIGNER,
    SIGNER,
    STRANGER,
    Lab,
    decision_of,
    facts_of,
    key_of,
    payload_of,
    trust_data,
)

REVOKER, OTHER_REVOKER = key_of("revoker"), key_of("other revoker")
INES = key_of("ines").public
FINGERPRINT = SshKey(INES.raw).fingerprint
DIGEST = "cd" * 32
HOUR = 3600
CHECKED = NOW + 60 * SECOND
PINNED = RevocationTrust(source="list.json", keys=(REVOKER.public, OTHER_REVOKER.public), max_age_s=HOUR)


def payload(*, key: str = FINGERPRINT, grants: object = ("g-1",), sensitive: bool = False) -> bytes:
    """A statement that rests on an approval by Ines' key and on one grant."""
    approval = Approval("user:ines", Assurance.ATTESTED, "sshsig", NOW, NOW + 900 * SECOND, DIGEST, key)
    facts = facts_of()
    value = tuple(FrozenMap(grant_id=name) for name in grants) if isinstance(grants, tuple) else grants
    entries = {**facts.entries, GRANTS: Fact(value, Assurance.ATTESTED, "grants", NOW)}  # type: ignore[arg-type]
    decision = msgspec.structs.replace(
        decision_of(), facts=msgspec.structs.replace(facts, entries=entries, approvals=(approval,))
    )
    return payload_of(decision, sensitive=frozenset({GRANTS}) if sensitive else frozenset())


@dataclass
class Worker:
    """A worker's check of one decision against a list."""

    lab: Lab = field(default_factory=Lab)
    payload: bytes = field(default_factory=payload)
    now: int = CHECKED
    used: UsedDecisions | None = None
    keys: tuple[PrivateKey, ...] = (SIGNER,)
    changes: dict[str, Any] = field(default_factory=dict)

    def check(self, data: bytes | None, *, pinned: RevocationTrust | None = PINNED) -> VerifiedDecision:
        trust = self.lab.trust(revocation=pinned, **self.changes)
        return self.against(data, trust, self.lab.issue(self.payload, keys=self.keys))

    def against(self, data: bytes | None, trust: Trust, signed: SignedDecision) -> VerifiedDecision:
        return verify(
            signed.to_json(),
            trust,
            REQUEST,
            audience=AUDIENCE,
            now=self.now,
            bound=BOUND,
            used=self.used,
            revocations=data,
        )


def list_of(*entries: Revocation, key: PrivateKey = REVOKER, sequence: int = 1, at: int = NOW) -> bytes:
    return sign_list(entries, sequence, at, key)


def entry(kind: str, identifier: str, *, since: int | None = None, why: str = "left") -> Revocation:
    return revocation(kind, identifier, reason=why, now=NOW, since=since)


REVOKED = {
    "the decision": ("decision", "d-1", "d-2"),
    "the approver's key (A38)": ("key", FINGERPRINT, SshKey(STRANGER.public.raw).fingerprint),
    "the approver's key as text": ("key", INES.text, STRANGER.public.text),
    "the approver's key as a line": ("key", f"{SshKey(INES.raw).text} ines@lab", SshKey(STRANGER.public.raw).text),
    "the guard's key": ("key", SIGNER.public.text, SECOND_SIGNER.public.text),
    "the log's key": ("key", LOG_KEY.public.text, STRANGER.public.text),
    "the approver": ("approver", "user:ines", "user:ine"),
    "the grant": ("grant", "g-1", "g-11"),
    "the approval": ("approval", DIGEST, "ce" * 32),
    "the policy": ("policy", POLICY_DIGEST, "ba" * 32),
}


@pytest.mark.parametrize(("kind", "identifier", "other"), REVOKED.values(), ids=REVOKED)
def test_a_decision_is_refused_once_it_or_what_it_rests_on_is_revoked(kind: str, identifier: str, other: str) -> None:
    """Before its expiry, by step V12; the twin revokes another of the same kind."""
    with pytest.raises(VerificationError, match="V12: ") as refusal:
        Worker().check(list_of(entry(kind, identifier)))
    assert refusal.value.step == "V12"
    assert Worker().check(list_of(entry(kind, other))).decision_id == "d-1"


@pytest.mark.parametrize(("kind", "identifier", "other"), REVOKED.values(), ids=REVOKED)
def test_a_revocation_since_a_time_concerns_decisions_from_then_on(kind: str, identifier: str, other: str) -> None:
    """The decision's own time counts, never the approval's, which its signer wrote."""
    for since in (NOW, NOW - SECOND):
        with pytest.raises(VerificationError, match="V12: "):
            Worker().check(list_of(entry(kind, identifier, since=since)))
    assert Worker().check(list_of(entry(kind, identifier, since=NOW + 1)))


def test_the_refusal_says_who_revoked_what_and_why() -> None:
    """One line, with time and reason."""
    with pytest.raises(VerificationError) as refusal:
        Worker().check(list_of(entry("approver", "user:ines")))
    assert str(refusal.value) == "V12: approver `user:ines` was revoked at `2026-03-01T09:00:00Z`: `left`"


def signed_as(payload_type: str = REVOCATION_TYPE, key: PrivateKey = REVOKER, **changes: Any) -> bytes:
    data: dict[str, Any] = {"entries": [], "issued_at": format_instant(NOW), "sequence": 1, "version": 1}
    return sign(canonical({**data, **changes}), payload_type, (key,)).to_bytes()


ENTRY = {"id": "d-2", "kind": "decision", "reason": "", "revoked_at": format_instant(NOW)}
BAD_LISTS: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "none": (lambda: None, "no revocation list was given"),
    "empty": (lambda: b"", "not an envelope"),
    "no JSON": (lambda: b"revoked: []", "not an envelope"),
    "signed by the guard": (lambda: list_of(key=SIGNER), "0 of the trusted keys signed this"),
    "signed by the log": (lambda: list_of(key=LOG_KEY), "0 of the trusted keys signed this"),
    "signed by a stranger": (lambda: list_of(key=STRANGER), "0 of the trusted keys signed this"),
    "altered": (lambda: list_of().replace(b'"sig":"', b'"sig":"AAAA', 1)[:-4], "revocation list"),
    "another payload type": (lambda: signed_as("application/json"), "payload type"),
    "too old": (lambda: list_of(at=CHECKED - HOUR * SECOND - 1_000_000), "revoke refresh"),
    "from the future": (lambda: list_of(at=CHECKED + 1_000_000), "revoke refresh"),
    "an unknown version": (lambda: signed_as(version=2), "version is 2"),
    "no sequence": (lambda: signed_as(sequence=0), "sequence is 0"),
    "an unknown member": (lambda: signed_as(more=1), "revocation list"),
    "an entry of an unknown kind": (lambda: signed_as(entries=[{**ENTRY, "kind": "team"}]), "found the kind `team`"),
    "an entry with an unknown member": (lambda: signed_as(entries=[{**ENTRY, "until": "x"}]), "revocation list"),
    "an entry without an id": (lambda: signed_as(entries=[{**ENTRY, "id": ""}]), "expected a decision id"),
    "an entry since no time": (lambda: signed_as(entries=[{**ENTRY, "since": "today"}]), "RFC 3339"),
    "a key by its key id": (lambda: signed_as(entries=[{**ENTRY, "kind": "key", "id": "ab" * 32}]), "SHA256:"),
}


@pytest.mark.parametrize(("make", "words"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_list_that_is_not_believed_refuses_every_decision(make: Callable[[], bytes | None], words: str) -> None:
    """V12: no list, an old one, a foreign one, one that is not understood."""
    with pytest.raises(VerificationError, match="V12: ") as refusal:
        Worker().check(make())
    assert words in str(refusal.value)


def test_a_list_counts_up_to_its_age() -> None:
    """The twin, to the last moment, and by either revocation key."""
    for key in (REVOKER, OTHER_REVOKER):
        assert Worker().check(list_of(key=key, at=CHECKED - HOUR * SECOND))
        assert Worker().check(list_of(key=key, at=CHECKED))


def test_without_revocation_in_trust_the_step_is_skipped() -> None:
    """`doctor` says so; a list that nobody pinned revokes nothing."""
    assert Worker().check(None, pinned=None)
    assert Worker().check(list_of(entry("decision", "d-1")), pinned=None)


def test_an_older_list_is_refused_below_the_pinned_sequence() -> None:
    """A rollback within `maxAge` is refused from the sequence that trust pins on."""
    with pytest.raises(VerificationError, match="sequence 4, expected at least 5"):
        Worker().check(list_of(sequence=4), pinned=replace(PINNED, min_sequence=5))
    assert Worker().check(list_of(sequence=5), pinned=replace(PINNED, min_sequence=5))


def test_a_decision_that_does_not_name_its_keys_is_refused_where_a_key_is_revoked() -> None:
    """A statement of 0.1.0 names neither the keys of its approvals nor its grants: nobody can tell."""
    cases = (
        (payload(key=""), entry("key", STRANGER.public.text), entry("grant", "g-9")),
        (payload(sensitive=True), entry("grant", "g-9"), entry("key", STRANGER.public.text)),
        (payload(grants="none of our records"), entry("grant", "g-9"), entry("key", STRANGER.public.text)),
    )
    for data, unclear, other in cases:
        with pytest.raises(VerificationError, match="V12: the decision does not say which"):
            Worker(payload=data).check(list_of(unclear))
        assert Worker(payload=data).check(list_of(other))
        assert Worker(payload=data).check(list_of())


def test_sensitive_grants_leave_no_id() -> None:
    """I14: the ids of grants are as hidden as their fact."""
    assert b"g-1" not in payload(sensitive=True)
    assert parse_statement(payload()).predicate.grants == ("g-1",)
    assert parse_statement(payload(grants=())).predicate.grants == ()


def test_of_two_signers_a_revoked_one_does_not_count() -> None:
    """One of two remains where one is enough, and not where both are needed."""
    keys = (TrustedKey(key=SIGNER.public), TrustedKey(key=SECOND_SIGNER.public))
    data = list_of(entry("key", SECOND_SIGNER.public.text))
    for threshold in (1, 2):
        worker = Worker(keys=(SIGNER, SECOND_SIGNER), changes={"keys": keys, "threshold": threshold})
        if threshold == 1:
            assert worker.check(data)
            continue
        with pytest.raises(VerificationError, match="V12: 1 of the signing keys are not revoked, expected at least 2"):
            worker.check(data)


def test_a_revoked_or_unclear_decision_uses_nothing_up(tmp_path: Path) -> None:
    """V12 is checked before V11 writes: a stale list does not burn the decision; the next one starts it, once."""
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: NOW) as used:
        worker = Worker(used=used)
        signed = worker.lab.issue(worker.payload)
        trust = worker.lab.trust(revocation=PINNED)
        for data in (None, list_of(entry("decision", "d-1")), list_of(at=NOW - 2 * HOUR * SECOND)):
            with pytest.raises(VerificationError, match="V12: "):
                worker.against(data, trust, signed)
        assert worker.against(list_of(), trust, signed)
        with pytest.raises(VerificationError, match="V11: "):
            worker.against(list_of(), trust, signed)


def test_an_auditor_reads_what_was_revoked_since() -> None:
    """`verify_origin` says who signed and logged what; history does not change by a revocation."""
    worker = Worker()
    signed = worker.lab.issue(worker.payload)
    assert verify_origin(signed, worker.lab.trust(revocation=PINNED)).decision_id == "d-1"


@pytest.mark.parametrize("key", [SIGNER, LOG_KEY])
def test_a_key_that_signs_cannot_be_a_revocation_key(key: PrivateKey) -> None:
    """The guard could take back that it was revoked; the twin is a key for revoking alone."""
    lab = Lab()
    with pytest.raises(ConfigurationError, match=r"\$\.revocation\.keys: found a key that signs decisions or the log"):
        lab.trust(revocation=replace(PINNED, keys=(REVOKER.public, key.public)))
    trust = lab.trust(revocation=PINNED)
    assert parse_trust(trust_data(trust)) == trust


WRONG_TRUST: dict[str, tuple[dict[str, Any], str]] = {
    "no keys": ({"keys": []}, "$.revocation.keys"),
    "a key twice": ({"keys": [REVOKER.public.text] * 2}, "$.revocation.keys"),
    "a weak key": ({"keys": ["ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}, "small order"),
    "no age": ({"maxAge": "0s"}, "$.revocation.maxAge"),
    "an endless age": ({"maxAge": "367d"}, "$.revocation.maxAge"),
    "an age in words": ({"maxAge": "a day"}, "$.revocation.maxAge"),
    "no source": ({"source": ""}, "$.revocation.source"),
    "a sequence of nothing": ({"minSequence": 0}, "$.revocation.minSequence"),
    "an unknown member": ({"maxage": "1h"}, "unknown field"),
}


@pytest.mark.parametrize(("change", "words"), WRONG_TRUST.values(), ids=WRONG_TRUST)
def test_a_trust_file_that_revokes_wrongly_is_refused(change: dict[str, Any], words: str) -> None:
    """Each line names its place."""
    data = trust_data(Lab().trust(revocation=PINNED))
    assert parse_trust(data)
    with pytest.raises(ConfigurationError) as refusal:
        parse_trust({**data, "revocation": {**data["revocation"], **change}})
    assert words in str(refusal.value)


def test_a_list_that_cannot_be_read_refuses_every_decision(tmp_path: Path) -> None:
    """Missing, a folder, too large: V12, as a worker meets it; the twin is the file itself."""
    path = tmp_path / "list.json"
    trust = Lab().trust(revocation=replace(PINNED, source=str(path)))
    with pytest.raises(VerificationError, match="V12: revocation list: "):
        read_revocations(trust)
    path.write_bytes(list_of())
    assert open_list(read_revocations(trust) or b"", PINNED.keys).sequence == 1
    path.write_bytes(b" " * (1 << 23))
    with pytest.raises(VerificationError, match="V12: "):
        read_revocations(trust)


def test_an_entry_cannot_be_dropped_or_reordered_unseen() -> None:
    """The whole list is one signed text; every change of a byte refuses it."""
    data = list_of(entry("decision", "d-1"), entry("approver", "user:x"))
    content = json.loads(data)
    for other in (list_of(), list_of(entry("approver", "user:x"))):
        forged = canonical({**content, "payload": json.loads(other)["payload"]})
        with pytest.raises(VerificationError, match="V12: "):
            open_list(forged, PINNED.keys)
    assert isinstance(open_list(data, PINNED.keys), RevocationList)


def test_another_log_key_of_the_same_name_is_not_concerned() -> None:
    """The key that signed this very checkpoint is compared, not the name."""
    worker = Worker()
    logs = (worker.lab.log.verifier, NoteKey(worker.lab.log.verifier.name, STRANGER.public))
    worker.changes = {"logs": logs}
    assert worker.check(list_of(entry("key", STRANGER.public.text)))
    with pytest.raises(VerificationError, match="V12: the key of log"):
        worker.check(list_of(entry("key", LOG_KEY.public.text)))


# ---- an older list put back


def _remembering(memory: RevocationMemory, sequence: int, *, pinned: RevocationTrust = PINNED) -> None:
    """What a worker does at step V12 with a fresh, well signed list of this sequence."""
    current_revocations(pinned, list_of(sequence=sequence), CHECKED, memory)


def _memories(folder: Path) -> dict[str, Callable[[], AbstractContextManager[RevocationMemory]]]:
    write_private_key(folder / "guard.key", SIGNER)
    (folder / "policies").mkdir()
    schema = "apiVersion: policyguard/v1\nkind: Schema\nsubjects: {user: {}}\nresources: {job: {actions: [run]}}\n"
    rule = "{id: r, effect: deny, actions: ['job:run'], resources: {type: job}}"
    policy = f"---\napiVersion: policyguard/v1\nkind: Policy\nmetadata: {{name: p, owner: o}}\nrules: [{rule}]\n"
    (folder / "policies" / "p.yaml").write_text(schema + policy)
    return {
        "log": lambda: Guard.open(folder / "policies", key=folder / "guard.key", log=folder / "audit.db"),
        "store": lambda: UsedDecisions.open(folder / "used.db"),
    }


@pytest.mark.parametrize("kind", ["log", "store"])
def test_an_older_list_put_back_is_refused_where_a_newer_one_was_used(tmp_path: Path, kind: str) -> None:
    """Within `maxAge` and without `minSequence`, in any later process; the twins are the same list and a newer one."""
    opened = _memories(tmp_path)[kind]
    with opened() as memory:
        _remembering(memory, 4)
        _remembering(memory, 7)
    with opened() as memory:
        for older in (6, 1):
            with pytest.raises(VerificationError, match=f"V12: .* the sequence {older}, expected at least 7"):
                _remembering(memory, older)
        _remembering(memory, 7)
        _remembering(memory, 8)
        # A key that trust replaced one of the two by goes on; a list of other keys has a sequence of its own.
        both = replace(PINNED, keys=(REVOKER.public, STRANGER.public))
        with pytest.raises(VerificationError, match="expected at least 8"):
            _remembering(memory, 7, pinned=both)
        _remembering(memory, 8, pinned=both)
        assert memory.remember_list([SECOND_SIGNER.public.keyid], 1) == 1
        assert memory.remember_list([STRANGER.public.keyid], 2) == 8


@pytest.mark.parametrize("kind", ["log", "store"])
def test_a_list_that_is_refused_for_another_reason_is_not_remembered(tmp_path: Path, kind: str) -> None:
    """Who can write a file, and not sign one, cannot raise the sequence and so refuse the operator's own list."""
    with _memories(tmp_path)[kind]() as memory:
        for data in (list_of(sequence=99, key=STRANGER), list_of(sequence=99, at=CHECKED - (HOUR + 1) * SECOND)):
            with pytest.raises(VerificationError, match="V12: "):
                current_revocations(PINNED, data, CHECKED, memory)
        _remembering(memory, 1)


def test_the_log_remembers_lists_in_entries_of_its_own(tmp_path: Path) -> None:
    """One for each newer list; an auditor reads it, the log adds up, and a rotated log forgets nothing."""
    opened = _memories(tmp_path)["log"]
    log, location = tmp_path / "audit.db", HeadLocation.of(tmp_path / "audit.db")
    with opened() as memory:
        for sequence in (2, 2, 3):
            _remembering(memory, sequence)
    with SqliteStore.open(log, read_only=True) as store:
        leaves = [row.leaf for row in store.read(0, 9)]
        assert check_log(store, (NoteKey(store.origin, SIGNER.public),)).checkpoint.size == 2
    assert [parse_entry(leaf, number).data["revocations"] for number, leaf in enumerate(leaves)] == [2, 3]
    assert "sequence 3" in parse_entry(leaves[1], 1).line
    with pytest.raises(AuditError, match="holds no use of a revocation list"):
        list_seen(Lab().issue().envelope.to_bytes(), 5)
    rotate(str(log), SIGNER, location, archive=None, reason="full", now=NOW)
    with opened() as memory, pytest.raises(VerificationError, match="expected at least 3"):
        _remembering(memory, 2)


def test_the_used_ids_never_push_a_list_out(tmp_path: Path) -> None:
    """The store forgets old ids, and no id of a decision can be that of a list."""
    with UsedDecisions.open(tmp_path / "used.db", min_remembered=2) as store:
        _remembering(store, 5)
        for number in range(50):
            store.use(f"{number:032x}", 86_400 * SECOND + number)
        with pytest.raises(VerificationError, match="expected at least 5"):
            _remembering(store, 4)
        with pytest.raises(AuditError, match="the name of a revocation list"):
            store.use(f"\nrevocation list of {REVOKER.public.keyid}", NOW)


class _FullOnce(MemoryStore):
    """A store that has no space for the first entry."""

    is_full = True

    def append(self, grow: Callable[[Row | None], Sequence[Row]]) -> None:
        rows = grow(self.last())
        if self.is_full:
            self.is_full = False
            raise AuditError("no space left")
        super().append(lambda _: rows)


def test_a_list_that_could_not_be_logged_is_logged_at_the_next_use() -> None:
    """Only what is durable is remembered: a full disk does not let the log forget the list for ever."""
    store = _FullOnce(ORIGIN)
    log = Log.open(store, SIGNER)
    with pytest.raises(AuditError, match="no space left"):
        log.remember_list(["key"], 7, NOW)
    assert log.revocations == {}
    assert log.remember_list(["key"], 7, NOW) == 7
    assert [list_seen(row.leaf, row.entry).sequence for row in store.read(0, 9)] == [7]
    assert log.revocations == {"key": 7}
