"""Denials that no rule made: of an account that acts for another subject, with who asked on record."""

from __future__ import annotations

import pytest

from policyguard.assembly.denials import REQUESTED, caller_denial
from policyguard.evidence.identity import ACCOUNT, Caller
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance
from policyguard.model.request import Request

NOW = 1_750_000_000 * 10**9
ALICE = Caller(uid=1000, login="alice", ref="user:alice")
SERVICE = Caller(uid=64, login="slurm", ref="service:slurm", may_speak=True)
UNMAPPED = Caller(uid=7, login=None, ref=None, problem="uid 7 has no account")


def denial(caller: Caller, subject: str, requested: str | None = None) -> Decision | None:
    request = Request.of(subject, "job:submit", "job:team/vision/run-17", gpus=8)
    return caller_denial(request, caller, requested, policy_digest="0" * 64, epoch=3, now=NOW)


@pytest.mark.parametrize(
    ("caller", "subject", "requested"),
    [
        (ALICE, "user:alice", None),
        (ALICE, "user:alice", "user:alice"),
        (SERVICE, "user:alice", "user:alice"),
        (SERVICE, "service:slurm", None),
    ],
)
def test_an_account_asks_for_itself_or_for_those_it_may_name(
    caller: Caller, subject: str, requested: str | None
) -> None:
    """The twin of all below: no denial."""
    assert denial(caller, subject, requested) is None


@pytest.mark.parametrize(
    ("caller", "subject", "requested", "reason", "remedy"),
    [
        (
            ALICE,
            "user:bob",
            None,
            "id.subject_mismatch",
            "remove `subject:` from the job file to submit as `user:alice`",
        ),
        (ALICE, "user:bob", "user:bob", "id.subject_not_allowed", ""),
        (SERVICE, "user:bob", None, "id.subject_mismatch", "give `--subject user:bob`"),
        (SERVICE, "user:bob", "user:alice", "id.subject_mismatch", "give `--subject user:bob`, or write"),
        (UNMAPPED, "user:alice", None, "id.unmapped_account", ""),
    ],
)
def test_the_denial_is_of_the_account_and_says_whose_name_was_used(
    caller: Caller, subject: str, requested: str | None, reason: str, remedy: str
) -> None:
    """Nobody gets an entry in the log that says they asked for what another account asked for."""
    decision = denial(caller, subject, requested)
    assert decision is not None
    assert (decision.allowed, decision.epoch, decision.policy_digest) == (False, 3, "0" * 64)
    facts = decision.facts
    assert facts.request.subject.ref == caller.name
    assert facts.entries[REQUESTED].value == (requested or subject)
    assert facts.entries[REQUESTED].assurance == Assurance.CLAIMED
    assert (ACCOUNT in facts.entries) == (caller.ref is not None)
    assert decision.reason_codes == (reason,)
    assert remedy in decision.explain()
