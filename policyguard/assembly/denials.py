"""Denials that no rule made: alerts of the watch, refused starts, accounts that act for another subject."""

from __future__ import annotations

import msgspec

from policyguard.evidence.identity import ACCOUNT, MISMATCH, Caller
from policyguard.model.decision import Decision, denial_without_rules
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Entity, Request
from policyguard.model.static_explanation import StaticExplanation
from policyguard.text import printable_name
from policyguard.values import EMPTY_MAP, Instant

REQUESTED = "subject.requested"
"""The fact that records which subject a denied request named."""


def caller_denial(
    request: Request, caller: Caller, requested: str | None, *, policy_digest: str, epoch: int, now: Instant
) -> Decision | None:
    """Build the denial for an account that may not act for this subject; None if it may.

    The denial is of the account: its entry in the log says who asked, and whose name was used.

    Args:
        request: what is asked for.
        caller: the account that asks.
        requested: the subject that `--subject` names, if it is given.
        policy_digest, epoch: of the policies in force.
        now: the current time.
    """
    refusal = caller.refuse(request.subject.ref, requested)
    if refusal is None:
        return None
    code, reason = refusal
    facts = facts_about_caller(request, caller, requested, now)
    remedy = _remedy(request.subject.ref, caller, requested) if code == MISMATCH else ""
    return denial_without_rules(facts, (code,), now, StaticExplanation(policy_digest, epoch, (reason,), remedy))


def facts_about_caller(request: Request, caller: Caller | None, requested: str | None, now: Instant) -> Facts:
    """Build the facts about the caller: the observed account, and the subject that was named, as a claim.

    Args:
        request: what is asked for; a subject that the account may not use is replaced by that of the account.
        caller: the account that asks; None if nobody observed it.
        requested: the subject that `--subject` names, if it is given.
        now: the current time.
    """
    entries = {REQUESTED: Fact(requested or request.subject.ref, Assurance.CLAIMED, "job file", now)}
    # INVARIANT I1: a name that nobody has established is no requester.
    if caller is not None and caller.refuse(request.subject.ref, requested) is not None:
        type_, _, id_ = caller.name.partition(":")
        request = msgspec.structs.replace(request, subject=Entity(type_, id_, EMPTY_MAP))
    if caller is not None and caller.ref is not None:
        entries[ACCOUNT] = Fact(caller.ref, Assurance.OBSERVED, "identity", now)
    return Facts(request, entries)


def _remedy(subject: str, caller: Caller, requested: str | None) -> str:
    """Say which option or line of the job file to change so that both name the same subject."""
    named = printable_name(subject)
    if requested is not None:
        return f"give `--subject {named}`, or write `subject: {printable_name(requested)}` into the job file"
    remove = f"remove `subject:` from the job file to submit as `{caller.ref}`"
    if caller.may_speak:
        return f"give `--subject {named}`, or {remove}"
    return f"{remove}, or submit from the account of `{named}`; `--subject` needs the login under `speakFor:`"
