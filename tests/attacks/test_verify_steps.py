"""Each step of `verify` refuses its attack, and accepts the same thing one step away."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyguard.attest.dsse import BatchProof, Envelope, Signature, pae, sign
from policyguard.attest.note import NoteKey
from policyguard.attest.statement import PAYLOAD_TYPE
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.batch import BATCH_TYPE, sign_batch
from policyguard.audit.checkpoint import Checkpoint, sign_checkpoint
from policyguard.audit.log import Log
from policyguard.audit.merkle import leaf_hash
from policyguard.audit.receipt import Receipt, SignedDecision
from policyguard.audit.stores.memory import MemoryStore
from policyguard.audit.stores.used import UsedDecisions
from policyguard.errors import VerificationError
from policyguard.model.request import Request
from policyguard.values import FrozenMap
from policyguard.verify import verify, verify_origin
from tests.attest_lab import (
    AUDIENCE,
    BOUND,
    LIFETIME,
    LOG_KEY,
    NOW,
    ORIGIN,
    REQUEST,
    SECOND,
    SECOND_SIGNER,
    SIGNER,
    STRANGER,
    Lab,
    StubExplainer,
    decision_of,
    payload_of,
)


@dataclass
class Attempt:
    """What is handed to `verify`; the default is accepted."""

    lab: Lab = field(default_factory=Lab)
    signed: SignedDecision | bytes | None = None
    trust: Trust | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        arguments: dict[str, Any] = {"request": REQUEST, "audience": AUDIENCE, "now": NOW, "bound": BOUND}
        arguments.update(self.options)
        signed = self.lab.issue() if self.signed is None else self.signed
        verify(signed, self.trust or self.lab.trust(), **arguments)


def with_text(change: Callable[[bytes], bytes]) -> Attempt:
    lab = Lab()
    return Attempt(lab, change(lab.issue().to_json()))


def with_receipt(change: Callable[[Lab, SignedDecision], Receipt]) -> Attempt:
    lab = Lab()
    lab.log.append_many([b"one", b"two"])
    signed = lab.issue()
    return Attempt(lab, SignedDecision(signed.envelope, change(lab, signed)))


def forged_log(lab: Lab, signed: SignedDecision) -> Receipt:
    """A log that the attacker runs himself, under the trusted log's name."""
    return Log.open(MemoryStore(ORIGIN), STRANGER).append(signed.envelope.to_bytes())


def other_origin(lab: Lab, signed: SignedDecision) -> Receipt:
    """The trusted log's key under a checkpoint that names another log."""
    checkpoint = Checkpoint("other.example/log", 1, leaf_hash(signed.envelope.to_bytes()))
    return Receipt(sign_checkpoint(checkpoint, lab.log.verifier, LOG_KEY), 0, ())


def shifted(lab: Lab, signed: SignedDecision) -> Receipt:
    return Receipt(signed.receipt.checkpoint, signed.receipt.index - 1, signed.receipt.path)


def shortened(lab: Lab, signed: SignedDecision) -> Receipt:
    return Receipt(signed.receipt.checkpoint, signed.receipt.index, signed.receipt.path[:-1])


def negative(lab: Lab, signed: SignedDecision) -> Receipt:
    return Receipt(signed.receipt.checkpoint, -1, signed.receipt.path)


def unlogged() -> Attempt:
    """A validly signed envelope with the receipt of another."""
    lab = Lab()
    other = lab.issue()
    return Attempt(lab, SignedDecision(sign(payload_of(decision_id="d-2"), PAYLOAD_TYPE, (SIGNER,)), other.receipt))


def payload_swapped() -> Attempt:
    """The signature of one payload over another, logged as it is."""
    lab = Lab()
    good = sign(payload_of(decision_of(allowed=False)), PAYLOAD_TYPE, (SIGNER,))
    return Attempt(lab, lab.log_envelope(Envelope(payload_of(), PAYLOAD_TYPE, good.signatures)))


def two_of_two(*keys: Any, repeat: bool = False) -> Attempt:
    lab = Lab()
    trust = lab.trust(keys=(TrustedKey(key=SIGNER.public), TrustedKey(key=SECOND_SIGNER.public)), threshold=2)
    envelope = sign(payload_of(), PAYLOAD_TYPE, keys)
    if repeat:
        sig = envelope.signatures[0].sig
        names = (SIGNER.keyid, SECOND_SIGNER.keyid)
        envelope = Envelope(envelope.payload, PAYLOAD_TYPE, tuple(Signature(name, sig) for name in names))
    return Attempt(lab, lab.log_envelope(envelope), trust)


def lying_keyid(key: Any) -> Attempt:
    lab = Lab()
    message = pae(PAYLOAD_TYPE, payload_of())
    envelope = Envelope(payload_of(), PAYLOAD_TYPE, (Signature("0" * 64, key.sign(message)),))
    if key is STRANGER:
        envelope = Envelope(payload_of(), PAYLOAD_TYPE, (Signature(SIGNER.keyid, key.sign(message)),))
    return Attempt(lab, lab.log_envelope(envelope))


def of_type(payload_type: str) -> Attempt:
    lab = Lab()
    return Attempt(lab, lab.log_envelope(sign(payload_of(), payload_type, (SIGNER,))))


def of_predicate(name: bytes) -> Attempt:
    lab = Lab()
    return Attempt(lab, lab.issue(payload_of().replace(b"urn:policyguard:decision:v1", name)))


def with_window(**window: Any) -> Attempt:
    lab = Lab()
    return Attempt(lab, lab.issue(), lab.trust(keys=(TrustedKey(key=SIGNER.public, **window),)))


def two_signers(*, at: int, **second: Any) -> Attempt:
    """Two keys of two signed, the second valid in this window only; checked at this time."""
    lab = Lab()
    keys = (TrustedKey(key=SIGNER.public), TrustedKey(key=SECOND_SIGNER.public, **second))
    signed = lab.issue(keys=(SIGNER, SECOND_SIGNER))
    return Attempt(lab, signed, lab.trust(keys=keys, threshold=2), {"now": at})


def two_windows(overlap_s: int) -> Attempt:
    """One key that ends, one that begins after the decision was issued; both sign. A minute passes until the check."""
    lab, minute = Lab(), 60 * SECOND
    keys = (
        TrustedKey(key=SIGNER.public, expires=NOW + minute + overlap_s * SECOND),
        TrustedKey(key=SECOND_SIGNER.public, not_before=NOW + 1),
    )
    signed = lab.issue(keys=(SIGNER, SECOND_SIGNER))
    return Attempt(lab, signed, lab.trust(keys=keys), {"now": NOW + minute})


def issued(**changes: Any) -> Attempt:
    lab = Lab()
    return Attempt(lab, lab.issue(payload_of(**changes)))


def under_policy(explainer: StubExplainer, **trust: Any) -> Attempt:
    lab = Lab()
    return Attempt(lab, lab.issue(payload_of(decision_of(explainer=explainer))), lab.trust(**trust) if trust else None)


def asking(*parts: str, **properties: Any) -> Attempt:
    return Attempt(options={"request": Request.of(*parts, **properties)})


def measured(**bound: Any) -> Attempt:
    return Attempt(options={"bound": FrozenMap({"resource.code": FrozenMap(bound)})})


def batched(
    change: Callable[[BatchProof], BatchProof] = lambda proof: proof, *, payload: bytes | None = None
) -> Attempt:
    """The third of five decisions under one signature."""
    lab = Lab()
    envelope = sign_batch([payload_of(decision_id=f"d-{n}") for n in range(5)], PAYLOAD_TYPE, (SIGNER,))[2]
    assert envelope.batch is not None
    envelope = msgspec.structs.replace(envelope, batch=change(envelope.batch), payload=payload or envelope.payload)
    return Attempt(lab, lab.log_envelope(envelope))


def root_signed_as_payload() -> Attempt:
    """The signed root of a batch, presented as if it were a signed payload of the batch's own type."""
    lab = Lab()
    member = sign_batch([payload_of()], PAYLOAD_TYPE, (SIGNER,))[0]
    root = leaf_hash(pae(PAYLOAD_TYPE, payload_of())) + (1).to_bytes(8, "big")
    return Attempt(lab, lab.log_envelope(Envelope(root, BATCH_TYPE, member.signatures)))


def shown_as(name: str) -> Attempt:
    """A signer that states another requester than the one in the digested request."""
    return Attempt(
        (lab := Lab()), lab.issue(payload_of().replace(b'"user:alice","requiring"', name.encode() + b',"requiring"'))
    )


A40 = "a" * 40
ASK = ("user:alice", "job:submit", "job:team/vision/run-17")

REFUSED: dict[str, tuple[str, str, Callable[[], Attempt]]] = {
    "a byte is added after the text": ("V1", "not a signed decision", lambda: with_text(lambda t: t + b"x")),
    "a space stands where the one spelling has none": (
        "V1",
        "canonical form",
        lambda: with_text(lambda t: t.replace(b":0,", b": 0,")),
    ),
    "the text is larger than the limit": ("V1", "expected at most", lambda: with_text(lambda t: t + b" " * 1_200_000)),
    "a member is there twice": (
        "V1",
        "canonical form",
        lambda: with_text(lambda t: t.replace(b'"index":0', b'"index":1,"index":0')),
    ),
    "an unknown member is added": ("V1", "unknown field", lambda: with_text(lambda t: t[:-1] + b',"trust":{}}')),
    "nothing is there": ("V1", "not a signed decision", lambda: with_text(lambda t: b"")),
    "an attacker's own log of the trusted name": (
        "V2",
        "no signature of a trusted log",
        lambda: with_receipt(forged_log),
    ),
    "the log's signature is altered": (
        "V2",
        "does not verify",
        lambda: with_receipt(
            lambda lab, s: Receipt(s.receipt.checkpoint.replace(b"\n3\n", b"\n4\n"), s.receipt.index, s.receipt.path)
        ),
    ),
    "the log's key signs for another log": ("V2", "is of log `other.example/log`", lambda: with_receipt(other_origin)),
    "the index of another leaf": ("V3", "leads to root|path has", lambda: with_receipt(shifted)),
    "a path cut short": ("V3", "path has 0 hashes, expected 1", lambda: with_receipt(shortened)),
    "a negative index": ("V3", "index -1 is not in a tree of 3", lambda: with_receipt(negative)),
    "a signed decision that was never logged": ("V3", "leads to root", unlogged),
    "a payload exchanged under its signature": ("V4", "0 of the trusted keys", payload_swapped),
    "two signatures from one key count once": (
        "V4",
        "1 of the trusted keys signed this, expected at least 2",
        lambda: two_of_two(SIGNER, SIGNER),
    ),
    "one signature under two key ids counts once": (
        "V4",
        "1 of the trusted keys",
        lambda: two_of_two(SIGNER, repeat=True),
    ),
    "a stranger fills the second place": ("V4", "1 of the trusted keys", lambda: two_of_two(SIGNER, STRANGER)),
    "a stranger under the trusted key id": ("V4", "0 of the trusted keys", lambda: lying_keyid(STRANGER)),
    "a key that was not yet valid when it signed": (
        "V4",
        "0 of the signing keys were valid at the time it was issued",
        lambda: with_window(not_before=NOW + 1),
    ),
    "one of two keys had expired when it signed": (
        "V4",
        "1 of the signing keys were valid at the time it was issued, `2026-03-01T09:00:00Z`, expected at least 2",
        lambda: two_signers(at=NOW, expires=NOW),
    ),
    "one of two keys was not yet valid when it signed": (
        "V4",
        "1 of the signing keys were valid at the time it was issued, `2026-03-01T09:00:00Z`, expected at least 2",
        lambda: two_signers(at=NOW + 1, not_before=NOW + 1),
    ),
    "a batch proof moved": ("V4", "0 of the trusted keys", lambda: batched(lambda b: BatchProof(1, b.size, b.path))),
    "a batch of another size": (
        "V4",
        "0 of the trusted keys",
        lambda: batched(lambda b: BatchProof(b.index, 6, b.path)),
    ),
    "a batch path cut": (
        "V4",
        "batch proof: path has 2 hashes, expected 3",
        lambda: batched(lambda b: BatchProof(2, 5, b.path[1:])),
    ),
    "a payload that is not in the batch": (
        "V4",
        "0 of the trusted keys",
        lambda: batched(payload=payload_of(decision_id="d-9")),
    ),
    "a batch's root for a decision": (
        "V5",
        "payload type is `application/vnd.policyguard.batch.v1`",
        root_signed_as_payload,
    ),
    "another payload type": ("V5", "payload type is `application/json`", lambda: of_type("application/json")),
    "another predicate type": (
        "V5",
        "expected `urn:policyguard:decision:v1`",
        lambda: of_predicate(b"urn:policyguard:approval:v1"),
    ),
    "before it may be used": (
        "V6",
        "not valid before `2026-03-01T09:00:00Z`",
        lambda: Attempt(options={"now": NOW - 1}),
    ),
    "at the moment it expires": (
        "V6",
        "expired at `2026-03-01T09:15:00Z`",
        lambda: Attempt(options={"now": NOW + LIFETIME}),
    ),
    "a key that expired since": (
        "V6",
        "valid at the time of this check",
        lambda: Attempt(
            (lab := Lab()),
            lab.issue(),
            lab.trust(keys=(TrustedKey(key=SIGNER.public, expires=NOW + 5),)),
            {"now": NOW + 5},
        ),
    ),
    "one of two keys expired since": (
        "V6",
        "1 of the signing keys were valid at the time of this check, `2026-03-01T09:00:05Z`, expected at least 2",
        lambda: two_signers(at=NOW + 5 * SECOND, expires=NOW + 5 * SECOND),
    ),
    "a key that expired and one that was too new": (
        "V6",
        "0 of the signing keys were valid at the time of this check",
        lambda: two_windows(0),
    ),
    "another command: one GPU more": ("V7", "issued for another request", lambda: asking(*ASK, gpus=9)),
    "another subject": ("V7", "another request", lambda: asking("user:mallory", *ASK[1:], gpus=8)),
    "another job": ("V7", "another request", lambda: asking(*ASK[:2], "job:team/vision/run-18", gpus=8)),
    "the code changed since": ("V7", "another request", lambda: measured(commit="b" * 40, dirty=False)),
    "nothing was measured here": (
        "V7",
        "measured here nothing, expected `resource.code`",
        lambda: Attempt(options={"bound": FrozenMap()}),
    ),
    "another requester shown than digested": (
        "V7",
        "requester, action or resource differ",
        lambda: shown_as('"user:bob"'),
    ),
    "another audience": ("V8", "audience is `cluster-b`, expected `cluster-a`", lambda: issued(audience="cluster-b")),
    "an audience in other letters": ("V8", "audience is `Cluster-A`", lambda: issued(audience="Cluster-A")),
    "a worker the trust is not for": (
        "V8",
        "this worker is `cluster-c`",
        lambda: Attempt(options={"audience": "cluster-c"}),
    ),
    "a policy digest that is not accepted": (
        "V9",
        "policy digest is `cdcdcdcdcdcdcdcd`",
        lambda: under_policy(StubExplainer("cd" * 32)),
    ),
    "an epoch gone by": (
        "V9",
        "policy epoch is 7, expected at least 8",
        lambda: under_policy(StubExplainer(), min_epoch=8),
    ),
    "a denial": (
        "V10",
        "decision is deny (`needs_approval`)",
        lambda: Attempt((lab := Lab()), lab.issue(payload_of(decision_of(allowed=False)))),
    ),
    "an advisory decision": ("V10", "decision is advisory, expected enforcing", lambda: issued(advisory=True)),
}


@pytest.mark.parametrize("attempt", REFUSED)
def test_attempt_is_refused_at_its_step(attempt: str) -> None:
    """The attack is refused, by the step that is there for it. Steps V1 to V10; invariants I5 and I10,
    I10 and I11."""
    step, wording, make = REFUSED[attempt]
    with pytest.raises(VerificationError) as caught:
        make().run()
    assert step == caught.value.step
    assert re.search(wording.replace("(", r"\(").replace(")", r"\)"), caught.value.message), caught.value.message


ACCEPTED: dict[str, Callable[[], Attempt]] = {
    "the decision as it was issued": Attempt,
    "as text": lambda: with_text(lambda text: text),
    "behind other entries": lambda: with_receipt(lambda lab, signed: signed.receipt),
    "under another, unknown signature line": lambda: with_receipt(
        lambda lab, signed: Receipt(
            signed.receipt.checkpoint
            + sign_checkpoint(Checkpoint(ORIGIN, 1, b"0" * 32), NoteKey("witness", STRANGER.public), STRANGER).split(
                b"\n\n"
            )[1],
            signed.receipt.index,
            signed.receipt.path,
        )
    ),
    "two keys of two": lambda: two_of_two(SECOND_SIGNER, SIGNER),
    "two keys and a stranger": lambda: two_of_two(SIGNER, STRANGER, SECOND_SIGNER),
    "a trusted key under a wrong key id": lambda: lying_keyid(SIGNER),
    "a key valid exactly then": lambda: with_window(not_before=NOW, expires=NOW + 1),
    "one of a batch": batched,
    "the requester that was digested": lambda: shown_as('"user:alice"'),
    "a key that is just still valid, and one that was too new": lambda: two_windows(1),
    "two of two keys, the second in its last moment": lambda: two_signers(
        at=NOW + 5 * SECOND - 1, expires=NOW + 5 * SECOND
    ),
    "two of two keys, the second in its first moment": lambda: two_signers(at=NOW, not_before=NOW),
    "our payload type": lambda: of_type(PAYLOAD_TYPE),
    "at the first moment": lambda: Attempt(options={"now": NOW}),
    "at the last moment": lambda: Attempt(options={"now": NOW + LIFETIME - 1}),
    "the same request, built anew": lambda: asking(*ASK, gpus=8),
    "the code as it was": lambda: measured(dirty=False, commit=A40),
    "our audience": lambda: issued(audience=AUDIENCE),
    "the epoch exactly": lambda: under_policy(StubExplainer(), min_epoch=7),
    "an enforcing allow": lambda: issued(advisory=False),
}


@pytest.mark.parametrize("attempt", ACCEPTED)
def test_twin_is_accepted(attempt: str) -> None:
    """One step away from the attack, the decision holds."""
    ACCEPTED[attempt]().run()


def test_decision_is_used_once(tmp_path: Path) -> None:
    """V11: the second use is refused, also after the store was opened again. Invariant I12."""
    lab = Lab()
    signed = lab.issue()
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: NOW) as used:
        Attempt(lab, signed, options={"used": used}).run()
        with pytest.raises(VerificationError, match=r"decision `d-1` was used already, expected a fresh one") as caught:
            Attempt(lab, signed, options={"used": used}).run()
    assert caught.value.step == "V11"
    with (
        UsedDecisions.open(tmp_path / "used.db", clock=lambda: NOW) as used,
        pytest.raises(VerificationError, match="was used already"),
    ):
        Attempt(lab, signed, options={"used": used}).run()


def test_refused_decision_is_not_used_up(tmp_path: Path) -> None:
    """V11 is last: a decision that another step refuses can still be used where it holds."""
    lab = Lab()
    signed = lab.issue()
    with UsedDecisions.open(tmp_path / "used.db", clock=lambda: NOW) as used:
        with pytest.raises(VerificationError, match="not valid before"):
            Attempt(lab, signed, options={"used": used, "now": NOW - 1}).run()
        Attempt(lab, signed, options={"used": used}).run()


def test_denial_is_readable_by_an_auditor() -> None:
    """Steps V1 to V5 hold for a denial, long after it expired: an auditor reads what was decided."""
    lab = Lab()
    signed = lab.issue(payload_of(decision_of(allowed=False)))
    verified = verify_origin(signed.to_json(), lab.trust())
    assert verified.predicate.decision == "deny"
    assert verified.predicate.gaps[0].quorum == "two-leads"


def test_a_fact_that_was_renamed_since_the_decision_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker measures under the present name; the same value holds, and another one is refused."""
    monkeypatch.setattr("policyguard.verify.FORMER_FACTS", {"resource.code": "resource.sources"})
    (value,) = BOUND.values()
    Attempt(options={"bound": FrozenMap({"resource.sources": value})}).run()
    with pytest.raises(VerificationError, match=r"V7: resource\.code: decided"):
        Attempt(options={"bound": FrozenMap({"resource.sources": "other"})}).run()


def test_a_fact_under_its_present_name_needs_no_former_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of former names changes nothing for a decision that has the present name."""
    monkeypatch.setattr("policyguard.verify.FORMER_FACTS", {"resource.sources": "resource.code"})
    Attempt().run()
    with pytest.raises(VerificationError, match=r"V7: resource\.code: decided"):
        Attempt(options={"bound": FrozenMap({"resource.code": "other"})}).run()


@pytest.mark.parametrize("now", [10**40, -(10**40), 1.5, None])
def test_a_time_that_is_none_fails_in_words(now: object) -> None:
    """An OverflowError escaped; the twin of everything above is `NOW`."""
    with pytest.raises(VerificationError, match="the time of this check is out of range") as caught:
        Attempt(options={"now": now}).run()
    assert caught.value.step == "V6"
