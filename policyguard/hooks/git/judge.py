"""Judging a push: each update measured, decided, signed and logged; all of them or none.

P1  who pushes, from the transport
P2  measure every update from its objects
P3  the push certificate
P4  facts and approvals for each update
P5  decide, sign, log: one durable commit for the whole push
P6  all allowed, or nothing is
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from policyguard.attest.signers import Signers
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.collectors import ReviewFiles, load_keyring, load_signers
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.identity import account_name
from policyguard.evidence.push.certificate import MAX_CERTIFICATE_BYTES, Signed, read_certificate
from policyguard.evidence.push.collector import RECORDED, PushCollector
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import MeasuredUpdate, RefUpdate
from policyguard.guard import Guard
from policyguard.hooks.git.options import GitOptions, pusher_of
from policyguard.model.facts import Facts
from policyguard.model.policy import Person
from policyguard.model.request import Request
from policyguard.values import Instant

_ACTIONS = {"create": "repo:push", "update": "repo:push", "rewrite": "repo:rewrite", "delete": "repo:rewrite"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One update and the signed decision on it; `problem` is set where it could not be measured."""

    update: RefUpdate
    signed: SignedDecision
    problem: EvidenceError | None = None

    @property
    def allowed(self) -> bool:
        # INVARIANT I2: a push that could not be measured is refused, whatever was decided on what is left of it.
        return self.signed.decision.allowed and self.problem is None

    @property
    def predicate(self) -> Predicate:
        """What the signed statement says."""
        return parse_statement(self.signed.envelope.payload).predicate

    def lines(self) -> list[str]:
        """Return what the pusher is told."""
        found = [f"{'accepted' if self.allowed else 'REFUSED '}  {self.update.ref}", *self._explanation()]
        if self.problem is not None:
            found.append(f"cannot be judged: {self.problem}")
            found += [f"help     {self.problem.help}"] if self.problem.help else []
        return [*found, f"decision {self.predicate.decision_id}, entry {self.signed.receipt.index} of the log"]

    def _explanation(self) -> list[str]:
        return self.signed.decision.explain().splitlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One update as a request with its facts, before anything is decided."""

    update: RefUpdate
    facts: Facts
    problem: EvidenceError | None


def ask(
    options: GitOptions,
    session: PushSession,
    updates: tuple[RefUpdate, ...],
    environment: Mapping[str, str],
    people: tuple[Person, ...],
    *,
    assume_signed: bool = False,
    spend: Callable[[str], bool] | None = None,
    clock: Callable[[], Instant] = time.time_ns,
) -> tuple[Asked, ...]:
    """Return what is to be decided for each update, steps P1 to P4.

    `assume_signed` takes the pusher's signature for granted; for a look beforehand, never for a hook. `spend` remembers
    a good certificate, see `read_certificate`.

    Raises:
        EvidenceError: nobody can tell who pushes.
    """
    pusher, source = pusher_of(options.pusher, environment, account_name(os.getuid()))  # P1
    signers = signers_of(options, people)
    keyring = load_keyring(people, review_files_of(options))
    found: tuple[MeasuredUpdate | EvidenceError, ...]
    signed = Signed(status="none")
    try:
        found = session.measure(updates, signers, keyring)  # P2
        if assume_signed:
            signed = Signed(status="good", signer=signers.by_account.get(pusher))
        else:
            signed = read_certificate(  # P3
                environment,
                updates,
                lambda oid: session.read_blob(oid, MAX_CERTIFICATE_BYTES),
                signers,
                clock(),
                session.nonces(options.certificate_age),
                keyring,
                spend,
            )
    except EvidenceError as unseen:
        found = (unseen,) * len(updates)
    asked = []
    for number, update in enumerate(updates):
        seen = found[number]
        problem = seen if isinstance(seen, EvidenceError) else None
        action = action_of(seen) if isinstance(seen, MeasuredUpdate) else _ACTIONS["rewrite"]
        request = Request.of(pusher, action, options.resource)
        collector = PushCollector(seen, signed, signers, source, lambda: session.submitted)  # P4
        asked.append(Asked(update=update, facts=gather(request, [collector], JobInputs(), clock), problem=problem))
    return tuple(asked)


def judge(guard: Guard, asked: tuple[Asked, ...]) -> tuple[Judged, ...]:
    """Return one signed decision for each update, all durable in one commit. Steps P5 and P6.

    Raises:
        SigningError, AuditError: nothing was decided and nothing may move.
    """
    signed = guard.issue_many([each.facts for each in asked], recording=RECORDED)
    return tuple(
        Judged(update=each.update, signed=decision, problem=each.problem)
        for each, decision in zip(asked, signed, strict=True)
    )


def action_of(seen: MeasuredUpdate) -> str:
    """Return the action that this change is: whatever takes history away is a rewrite."""
    return _ACTIONS[seen.change]


def open_session(options: GitOptions, environment: Mapping[str, str]) -> PushSession:
    """Open what measures one push to this hook's repository."""
    owners = {os.geteuid(), 0, *options.owner}
    return PushSession(options.repo, environment, owners, files=review_files_of(options))


def signers_of(options: GitOptions, people: Sequence[Person]) -> Signers:
    """Return whose keys count for this hook."""
    return load_signers(people, review_files_of(options))


def review_files_of(options: GitOptions) -> ReviewFiles:
    """Return what this hook judges reviews by."""
    return ReviewFiles(
        approvals=_path(options.approvals),
        approval_log=_path(options.approval_log),
        allowed_signers=_path(options.allowed_signers),
        revoked_keys=_path(options.revoked_keys),
        gpg_keyring=_path(options.gpg_keyring),
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
