"""Decides about a push: each update is measured, decided, signed and logged; all of them move, or none.

P1  identify the pusher, from the transport
P2  measure every update from its objects
P3  the push certificate
P4  facts and approvals for each update
P5  decide, sign, log: one durable commit for the whole push
P6  if any update is denied, none moves
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from policyguard.attest.revocation import POLICY, RevocationList, is_key_revoked, revoked_ids
from policyguard.attest.signers import Signers
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import EvidenceError, VerificationError
from policyguard.evidence.approvals.collectors import ReviewFiles, load_keyring, load_signers
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.identity import account_name
from policyguard.evidence.push.certificate import MAX_CERTIFICATE_BYTES, Signed, read_certificate
from policyguard.evidence.push.collector import RECORDED, PushCollector
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import MeasuredUpdate, RefUpdate
from policyguard.git.gpg import Keyring
from policyguard.guard import Guard
from policyguard.hooks.git.options import GitOptions, pusher_of
from policyguard.model.facts import Facts
from policyguard.model.policy import Person
from policyguard.model.request import Request
from policyguard.revocation_file import read_list
from policyguard.values import Instant
from policyguard.verify import current_revocations

_ACTIONS = {"create": "repo:push", "update": "repo:push", "rewrite": "repo:rewrite", "delete": "repo:rewrite"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedUpdate:
    """One update with the signed decision about it; `problem` is set if it could not be measured."""

    update: RefUpdate
    signed: SignedDecision
    problem: EvidenceError | None = None

    @property
    def allowed(self) -> bool:
        # INVARIANT I2: a push that could not be measured is refused, whatever was decided on its other facts.
        return self.signed.decision.allowed and self.problem is None

    @property
    def predicate(self) -> Predicate:
        """The content of the signed statement."""
        return parse_statement(self.signed.envelope.payload).predicate

    def lines(self) -> list[str]:
        """List the lines to show to the pusher."""
        lines = [f"{'accepted' if self.allowed else 'REFUSED '}  {self.update.ref}", *self._explanation()]
        if self.problem is not None:
            lines.append(f"cannot be decided: {self.problem}")
            lines += [f"help     {self.problem.help}"] if self.problem.help else []
        return [*lines, f"decision {self.predicate.decision_id}, entry {self.signed.receipt.index} of the log"]

    def _explanation(self) -> list[str]:
        return self.signed.decision.explain().splitlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpdate:
    """One update as a request with its facts, before the decision."""

    update: RefUpdate
    facts: Facts
    problem: EvidenceError | None


def collect_facts(
    options: GitOptions,
    session: PushSession,
    updates: tuple[RefUpdate, ...],
    environment: Mapping[str, str],
    people: tuple[Person, ...],
    *,
    assume_signed: bool = False,
    mark_used: Callable[[str], bool] | None = None,
    guard: Guard | None = None,
    clock: Callable[[], Instant] = time.time_ns,
) -> tuple[PendingUpdate, ...]:
    """Measure each update and collect its facts, steps P1 to P4.

    Args:
        options, environment: of the hook; the environment names the pusher and the push certificate.
        session, updates: reads the repository and the objects of this push, which updates these references.
        people, guard: `Persons` of the policies in force; whose keys must not be revoked, None for a preview.
        assume_signed: take the pusher's signature for granted; for a preview, never for a hook.
        mark_used: remembers a good certificate, see `read_certificate`.

    Raises:
        EvidenceError: the pusher is unknown.
    """
    pusher, source = pusher_of(options.pusher, environment, account_name(os.getuid()))  # P1
    signers, keyring, unusable = _keys(options, people, guard, clock())

    def certificate() -> Signed:
        if assume_signed:
            return Signed(status="good", signer=signers.by_account.get(pusher))
        nonces = session.nonces(options.certificate_age)
        blob = partial(session.read_blob, max_bytes=MAX_CERTIFICATE_BYTES)
        return read_certificate(environment, updates, blob, signers, clock(), nonces, keyring, mark_used)

    measure = partial(session.measure, updates, signers, keyring)
    outcomes, signed = _measured(unusable, measure, certificate, len(updates))
    collectors = [PushCollector(outcome, signed, signers, source, lambda: session.submitted) for outcome in outcomes]
    return tuple(map(partial(_pending, options, pusher, clock), updates, outcomes, collectors))  # P4


def _pending(
    options: GitOptions,
    pusher: str,
    clock: Callable[[], Instant],
    update: RefUpdate,
    outcome: MeasuredUpdate | EvidenceError,
    collector: PushCollector,
) -> PendingUpdate:
    request = _request(pusher, outcome, options)
    problem = outcome if isinstance(outcome, EvidenceError) else None
    return PendingUpdate(update=update, facts=gather(request, [collector], JobInputs(), clock), problem=problem)


def _keys(
    options: GitOptions, people: Sequence[Person], guard: Guard | None, now: Instant
) -> tuple[Signers, Keyring | None, EvidenceError | None]:
    """Load the keys that count; if the revocation list prevents all decisions, say why."""
    revocations, problem = _revocations(options, guard, now)
    unusable = None if problem is None else EvidenceError(problem, help="see docs/keys.md, and push again")
    files = review_files_of(options)
    return load_signers(people, files, revocations, now), load_keyring(people, files), unusable


def _revocations(options: GitOptions, guard: Guard | None, now: Instant) -> tuple[RevocationList | None, str | None]:
    """Read the revocation list; say why no push can be decided if it is unusable or revokes this guard. Step V12."""
    pinned = options.revocation
    if pinned is None:
        return None, None
    try:
        content = current_revocations(pinned, read_list(pinned), now, guard)
    except VerificationError as problem:
        # INVARIANT I2: a list that is missing, old or not signed revokes everything.
        return None, str(problem)
    if guard is None:
        return content, None
    if guard.snapshot.policy_digest in revoked_ids(content, POLICY, now):
        return content, f"V12: the policies `{guard.snapshot.policy_digest[:16]}` are revoked, expected others"
    if any(is_key_revoked(content, key, now) for key in (guard.public_key, guard.log_key.public)):
        return content, "V12: the guard's key is revoked, expected another one"
    return content, None


def _measured(
    unusable: EvidenceError | None,
    measure: Callable[[], tuple[MeasuredUpdate, ...]],
    certificate: Callable[[], Signed],
    count: int,
) -> tuple[tuple[MeasuredUpdate | EvidenceError, ...], Signed]:
    """Measure the updates and read the certificate; if either fails, so does every update."""
    try:
        if unusable is not None:
            raise unusable
        measured = measure()  # P2
        return measured, certificate()  # P3
    except EvidenceError as problem:
        return (problem,) * count, Signed(status="none")


def _request(pusher: str, outcome: MeasuredUpdate | EvidenceError, options: GitOptions) -> Request:
    action = _ACTIONS["rewrite"] if isinstance(outcome, EvidenceError) else action_of(outcome)
    return Request.of(pusher, action, options.resource)


def decide_updates(guard: Guard, pending: tuple[PendingUpdate, ...]) -> tuple[DecidedUpdate, ...]:
    """Decide every update, then sign and log all decisions in one commit. Steps P5 and P6.

    Raises:
        SigningError, AuditError: nothing was decided and nothing may move.
    """
    signed = guard.issue_many([update.facts for update in pending], recording=RECORDED)
    return tuple(
        DecidedUpdate(update=update.update, signed=decision, problem=update.problem)
        for update, decision in zip(pending, signed, strict=True)
    )


def action_of(update: MeasuredUpdate) -> str:
    """Return the action of a change; an update that removes history is a rewrite."""
    return _ACTIONS[update.change]


def open_session(options: GitOptions, environment: Mapping[str, str]) -> PushSession:
    """Open the session that measures a push to this hook's repository."""
    owners = {os.geteuid(), 0, *options.owner}
    return PushSession(options.repo, environment, owners, files=review_files_of(options))


def review_files_of(options: GitOptions) -> ReviewFiles:
    """Collect the review files that this hook's options name."""
    return ReviewFiles(
        approvals=_path(options.approvals),
        approval_log=_path(options.approval_log),
        allowed_signers=_path(options.allowed_signers),
        revoked_keys=_path(options.revoked_keys),
        gpg_keyring=_path(options.gpg_keyring),
        signed_only=options.signed_commits is not None,
    )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
