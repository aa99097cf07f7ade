"""Signs and logs refusals that no rule made, wherever key and log can be used.

Two kinds: a job that was allowed but not started, because it changed after the decision; and a request about which
nothing could be decided, because the policies or another file of the guard cannot be used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from policyguard.assembly.denials import facts_about_caller
from policyguard.attest.dsse import sign
from policyguard.attest.statement import PAYLOAD_TYPE, decision_statement, parse_statement
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import AuditError, EvidenceError, PolicyGuardError, RequestError, VerificationError
from policyguard.evidence.identity import Caller
from policyguard.fs.open_databases import BUSY_TIMEOUT_S
from policyguard.guard import Guard
from policyguard.keyfiles import read_private_key
from policyguard.model.decision import Decision, denial_without_rules
from policyguard.model.facts import Assurance, Fact, Facts, claims
from policyguard.model.request import Entity, Request
from policyguard.model.static_explanation import NO_POLICIES, StaticExplanation
from policyguard.text import printable
from policyguard.values import FrozenMap, Instant

NOT_STARTED, NOT_DECIDED = "start.refused", "guard.unusable"

_MAX_REASON_CHARS = 300


@contextmanager
def refusals_logged(
    guard: Guard, signed: SignedDecision, clock: Callable[[], Instant] = time.time_ns
) -> Iterator[None]:
    """Log a denial after the allow if the block fails to verify or start the job.

    Args:
        guard: decides, signs and logs.
        signed: the signed allow.
        clock: supplies the current time.
    """
    try:
        yield
    except (VerificationError, EvidenceError) as problem:
        # INVARIANT I12: a refusal is signed and logged wherever key and log can be used.
        with suppress(PolicyGuardError):
            guard.issue_denial(_not_started(signed, problem, clock()))
        raise


@contextmanager
def unstarted_logged(guard: Guard, request: Request, clock: Callable[[], Instant] = time.time_ns) -> Iterator[None]:
    """Log a denial if the block, before the decision, finds out that the job cannot be started as it is asked for.

    Args:
        guard: decides, signs and logs.
        request: what is asked.
        clock: supplies the current time.
    """
    try:
        yield
    except (EvidenceError, RequestError) as problem:
        now, snapshot = clock(), guard.snapshot
        facts = Facts(request, claims(request, now))
        # INVARIANT I12: a refusal is signed and logged wherever key and log can be used.
        with suppress(PolicyGuardError):
            guard.issue_denial(_refused(facts, problem, now, snapshot.policy_digest, snapshot.epoch))
        raise


def log_undecided(
    request: Request,
    problem: PolicyGuardError,
    *,
    key: str | Path,
    log: str | Path,
    audience: str,
    state_dir: str | Path | None = None,
    passphrase: bytes | None = None,
    caller: Caller | None = None,
    requested: str | None = None,
) -> None:
    """Log that nothing could be decided about a request. Never raises: the caller reports `problem`.

    Args:
        request, problem: the refused request, and the reason.
        key, passphrase, log, state_dir: files of the guard, as for `Guard.open`.
        audience: the cluster or host that decisions are for.
        caller, requested: the account that asks, if it was observed; the subject that `--subject` names.
    """
    now = time.time_ns()
    decision = _undecided(request, problem, caller, requested, now)
    # INVARIANT I12: a refusal is signed and logged wherever key and log can be used.
    with suppress(PolicyGuardError):
        private = read_private_key(key, passphrase=passphrase)
        payload = decision_statement(
            decision,
            decision.facts.request,
            decision_id=os.urandom(16).hex(),
            audience=audience,
            issued_at=now,
            not_before=now,
            expires=now + 1,
        )
        # Who has waited for a locked log once does not wait for it again.
        wait_s = 0.0 if isinstance(problem, AuditError) else BUSY_TIMEOUT_S
        with Log.open(log, private, create=True, state_dir=state_dir, wait_s=wait_s) as opened:
            opened.append(sign(payload, PAYLOAD_TYPE, (private,)).to_bytes())


def _undecided(
    request: Request, problem: PolicyGuardError, caller: Caller | None, requested: str | None, now: Instant
) -> Decision:
    reason = printable(str(problem), _MAX_REASON_CHARS)
    known = facts_about_caller(request, caller, requested, now)
    facts = msgspec.structs.replace(known, missing=FrozenMap({"guard": reason}))
    return denial_without_rules(facts, (NOT_DECIDED,), now, StaticExplanation(NO_POLICIES, 0, (reason,)))


def _not_started(signed: SignedDecision, problem: PolicyGuardError, now: Instant) -> Decision:
    allowed = signed.decision
    request = allowed.facts.request
    predicate = parse_statement(signed.envelope.payload).predicate
    properties = FrozenMap(decision_id=predicate.decision_id, entry=signed.receipt.index)
    refused = msgspec.structs.replace(request, resource=Entity(request.resource.type, request.resource.id, properties))
    entries = {
        f"resource.{name}": Fact(value, Assurance.MEASURED, "launcher", now) for name, value in properties.items()
    }
    return _refused(Facts(refused, entries), problem, now, allowed.policy_digest, allowed.epoch)


def _refused(facts: Facts, problem: PolicyGuardError, now: Instant, policy_digest: str, epoch: int) -> Decision:
    reason = printable(str(problem), _MAX_REASON_CHARS)
    refused = msgspec.structs.replace(facts, missing=FrozenMap({"resource.start": reason}))
    return denial_without_rules(refused, (NOT_STARTED,), now, StaticExplanation(policy_digest, epoch, (reason,)))
