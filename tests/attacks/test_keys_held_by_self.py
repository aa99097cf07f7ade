"""Attacks with a guard's key that the submitter can read: trust says how each key is held; no statement does."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.trust import HeldBy, TrustedKey
from policyguard.errors import VerificationError
from policyguard.verify import verify_envelope
from tests.attacks.test_verify_steps import Attempt
from tests.attest_lab import NOW, SECOND, SECOND_SIGNER, SIGNER, STRANGER, Lab, decision_of, payload_of


def pinned(signer: PrivateKey, held_by: HeldBy | None, **window: Any) -> TrustedKey:
    return TrustedKey(key=signer.public, held_by=held_by, **window)


def attempt(*keys: TrustedKey, signers: tuple[PrivateKey, ...] = (SIGNER,), **changes: Any) -> Attempt:
    lab = Lab()
    return Attempt(lab, lab.issue(keys=signers), lab.trust(keys=keys, **changes))


REFUSED = {
    "a guard whose key the submitter can read": lambda: attempt(pinned(SIGNER, "self")),
    "a key of which trust does not say it, beside one of which it does": lambda: attempt(
        pinned(SIGNER, None), pinned(SECOND_SIGNER, "service")
    ),
    "a service's key that did not sign": lambda: attempt(pinned(SIGNER, "self"), pinned(SECOND_SIGNER, "service")),
    "a threshold of two filled up with a key of the submitter": lambda: attempt(
        pinned(SIGNER, "service"), pinned(SECOND_SIGNER, "self"), signers=(SIGNER, SECOND_SIGNER), threshold=2
    ),
    "a service's key beside the submitter's, where only the submitter's signed": lambda: attempt(
        pinned(SIGNER, "self"), pinned(SECOND_SIGNER, "service"), signers=(SIGNER, STRANGER)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_guard_whose_key_the_submitter_can_read_is_not_believed_where_trust_wants_a_service(name: str) -> None:
    with pytest.raises(VerificationError) as caught:
        REFUSED[name]().run()
    assert caught.value.step == "V10"
    assert "`heldBy: service`" in caught.value.message
    assert "`selfIssued: accept`" in caught.value.message


ACCEPTED = {
    "a service's key": lambda: attempt(pinned(SIGNER, "service")),
    "a key held by self, where trust accepts them": lambda: attempt(pinned(SIGNER, "self"), self_issued=True),
    "a key of which trust does not say it, where trust accepts such": lambda: attempt(
        pinned(SIGNER, None), pinned(SECOND_SIGNER, "service"), self_issued=True
    ),
    "two services of two": lambda: attempt(
        pinned(SIGNER, "service"), pinned(SECOND_SIGNER, "service"), signers=(SIGNER, SECOND_SIGNER), threshold=2
    ),
    "a service's key, also signed by the submitter's": lambda: attempt(
        pinned(SIGNER, "service"), pinned(SECOND_SIGNER, "self"), signers=(SIGNER, SECOND_SIGNER)
    ),
    "a trust file of 0.1.0, which says it of no key": lambda: attempt(pinned(SIGNER, None)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_one_step_away_it_is_believed(name: str) -> None:
    ACCEPTED[name]().run()


def test_a_service_key_that_is_not_valid_now_does_not_help_a_key_of_the_submitter() -> None:
    """Both signed, one counts by its holder and the other by its time: none counts by both."""
    ended = attempt(
        pinned(SIGNER, "self"), pinned(SECOND_SIGNER, "service", expires=NOW + SECOND), signers=(SIGNER, SECOND_SIGNER)
    )
    ended.options["now"] = NOW + 2 * SECOND
    with pytest.raises(VerificationError) as caught:
        ended.run()
    assert caught.value.step == "V10"
    ended.options["now"] = NOW
    ended.run()


def test_auditors_read_decisions_of_every_form() -> None:
    """A denial, or an allow of a self-held key, is history: steps V1 to V5 do not ask who held the key."""
    lab = Lab()
    signed = lab.issue(payload_of(decision_of(allowed=False)))
    predicate, _ = verify_envelope(signed.envelope, lab.trust(keys=(pinned(SIGNER, "self"),)))
    assert not predicate.allowed
