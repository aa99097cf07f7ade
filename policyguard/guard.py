"""The guard issues decisions: request -> facts -> decision -> statement -> envelope -> log -> SignedDecision.

Nothing leaves before it is signed and durable in the log; a denial takes the same way. The guard is where the clock,
randomness and files come in. Any number of threads may use one guard.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.note import NoteKey
from policyguard.attest.statement import PAYLOAD_TYPE, decision_statement
from policyguard.audit.approval_use import (
    ApprovalConsumption,
    PendingStatement,
    approvals_to_consume,
    drop_used_approvals,
    state_sequentially,
)
from policyguard.audit.batch import sign_batch
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import AccessDenied, ConfigurationError
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.keyfiles import read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S, Decision
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot, stamp_of
from policyguard.values import NANOSECONDS_PER_S, Instant

if TYPE_CHECKING:
    # Annotations only, see `policy_store/load.py`.
    from pathlib import Path

CollectorsFor = Callable[[Snapshot], Sequence[Collector]]
"""Makes the collectors that look under these policies."""

Collectors = CollectorsFor | Sequence[Collector]


class Guard:
    """Decides, signs and logs. Use `Guard.open`; close it, or use it in a `with` block."""

    def __init__(
        self,
        snapshot: Snapshot,
        key: PrivateKey,
        log: Log,
        *,
        audience: str = DEFAULT_AUDIENCE,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        collectors: Collectors = (),
        advisory: bool = False,
        clock: Callable[[], Instant] = time.time_ns,
        reload: Callable[[], Snapshot] | None = None,
        stamp: Callable[[], object] | None = None,
        close: Callable[[], None] | None = None,
    ) -> None:
        if lifetime_s <= 0:
            raise ValueError(f"lifetime_s: found {lifetime_s}, expected more than 0")
        self._snapshot = snapshot
        self._key = key
        self._log = log
        self._audience = audience
        self._lifetime_ns = lifetime_s * NANOSECONDS_PER_S
        self._collectors = collectors if callable(collectors) else tuple(collectors)
        self._advisory = advisory
        self._clock = clock
        self._load = reload
        self._stamp = stamp
        self._close = close
        self._reloading = threading.Lock()

    @classmethod
    def open(
        cls,
        policies: str | Path,
        *,
        key: str | Path,
        log: str | Path,
        audience: str = DEFAULT_AUDIENCE,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        collectors: Collectors = (),
        advisory: bool = False,
        policy_keys: Sequence[PublicKey] = (),
        passphrase: bytes | None = None,
        origin: str | None = None,
    ) -> Guard:
        """Return a guard over these policies, ready to decide.

        Args:
            policies: a folder of policy files, or a compiled snapshot.
            key: the private key file that signs decisions and log checkpoints.
            log: the decision log, an SQLite file; made if it is not there.
            audience: whom decisions are for; a worker accepts only its own name (step V8).
            lifetime_s: how long a decision may be used.
            collectors: what looks at the job itself; without any, everything is only claimed. A function makes them
                anew from the policies in force, for those that need to know `Persons`.
            advisory: the guard cannot stop the job; decisions say so.
            policy_keys: who may sign a compiled snapshot; this guard's own key if none are given.
            origin: the log's name in its checkpoints; `policyguard/` and the start of the key id if not given.

        Raises:
            PolicyErrors: every mistake in the policies. ConfigurationError, SigningError, AuditError: which file, why.
        """
        private = read_private_key(key, passphrase=passphrase)
        trusted = tuple(policy_keys) or (private.public,)

        def load() -> Snapshot:
            return load_snapshot(policies, trusted)

        snapshot = load()
        store = SqliteStore.open(log, origin=origin, create_as=origin or log_origin(private.public))
        try:
            return cls(
                snapshot,
                private,
                Log.open(store, private, store.origin),
                audience=audience,
                lifetime_s=lifetime_s,
                collectors=collectors,
                advisory=advisory,
                reload=load,
                stamp=lambda: stamp_of(policies),
                close=store.close,
            )
        except BaseException:
            store.close()
            raise

    @property
    def snapshot(self) -> Snapshot:
        """The policies that the next decision is made by."""
        return self._snapshot

    @property
    def public_key(self) -> PublicKey:
        """The key whose signature the decisions carry."""
        return self._key.public

    @property
    def log_key(self) -> NoteKey:
        """The key, with the log's name, whose signature the checkpoints carry."""
        return self._log.verifier

    def reload(self) -> str:
        """Load the policies again and return their digest; on any error the last good ones stay and the error rises.

        Other threads go on deciding; each decision is made by one snapshot, the old or the new.
        """
        with self._reloading:
            snapshot = self.policies_on_disk()
            # Whoever reloads lives long: no decision shall wait for an index.
            snapshot.warm()
            self._snapshot = snapshot
        return snapshot.policy_digest

    def policies_on_disk(self) -> Snapshot:
        """Return the policies as they stand where these came from; `reload` decides by them, this does not.

        Raises:
            PolicyErrors, ConfigurationError: they cannot be used, or are older than those in use.
        """
        if self._load is None:
            raise ConfigurationError("this guard was built from a snapshot in memory, expected one from `Guard.open`")
        snapshot = self._load()
        # INVARIANT I9: policies never go back: an older epoch, however well signed, is refused.
        if snapshot.epoch < self._snapshot.epoch:
            raise ConfigurationError(
                f"policies are of epoch {snapshot.epoch}, expected at least {self._snapshot.epoch}, the one in use"
            )
        return snapshot

    def policies_stamp(self) -> object:
        """Return what is another value once somebody touched the policies where these came from; None if nobody can."""
        return self._stamp() if self._stamp is not None else None

    def gather(self, request: Request, inputs: JobInputs | None = None) -> Facts:
        """Return what is known about the request now. Step 2: look."""
        collectors = self._collectors(self._snapshot) if callable(self._collectors) else self._collectors
        if not collectors:
            return Facts(request, claims(request, self._clock()))
        return gather(request, collectors, inputs or JobInputs(), self._clock)

    def consider(self, facts: Facts) -> Decision:
        """Return what would be decided, unsigned and unlogged. Step 3 alone, for explanations and tests."""
        return Engine(self._snapshot).decide(facts, self._clock())

    def decide(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Return the signed, durably logged decision, allow or deny.

        Raises:
            SigningError, AuditError: nothing left the house and nothing may start.
        """
        return self.issue(self.gather(request, inputs))

    def issue(self, facts: Facts) -> SignedDecision:
        """Return the signed, logged decision on facts that are already gathered. Steps 3 to 6."""
        stated = self._state(facts)
        if stated.spends:
            return self.issue_many((facts,))[0]
        envelope = sign(stated.payload, PAYLOAD_TYPE, (self._key,))
        receipt = self._log.append(envelope.to_bytes())
        return SignedDecision(envelope, receipt, stated.decision)

    def issue_denial(self, decision: Decision) -> SignedDecision:
        """Return the signed, logged form of a denial that no rule made: an alert of a hook that saw a job change.

        Raises:
            ValueError: it allows; what the policies did not decide can only take access away.
        """
        # INVARIANT I165: only the policies allow; whatever else is signed with the guard's key denies.
        if decision.allowed:
            raise ValueError("found a decision that allows, expected a denial")
        envelope = sign(self._stated(decision, self._clock(), mattered=None), PAYLOAD_TYPE, (self._key,))
        return SignedDecision(envelope, self._log.append(envelope.to_bytes()), decision)

    def issue_many(
        self, facts: Sequence[Facts], *, one_root: bool = True, recording: Collection[str] = ()
    ) -> tuple[SignedDecision, ...]:
        """Return one signed decision for each, in order, all durable in one commit, or none.

        Args:
            one_root: sign once, over a Merkle root of all; each envelope carries its proof and verifies alone, here
                and on every worker. Tools that know only DSSE refuse such envelopes: False signs each by itself.
            recording: paths of facts that stand in every statement, whichever rules decided.
        """
        while True:
            stated = state_sequentially(facts, lambda each: self._state(each, recording))
            payloads = [each.payload for each in stated]
            if one_root and len(payloads) > 1:
                envelopes = sign_batch(payloads, PAYLOAD_TYPE, (self._key,))
            else:
                envelopes = tuple([sign(payload, PAYLOAD_TYPE, (self._key,)) for payload in payloads])
            spending = ApprovalConsumption({digest: at for each in stated for digest, at in each.spends.items()})
            receipts = spending.append(self._log, [envelope.to_bytes() for envelope in envelopes])
            if receipts is not None:
                return tuple(
                    SignedDecision(envelope, receipt, each.decision)
                    for each, envelope, receipt in zip(stated, envelopes, receipts, strict=True)
                )
            facts = [drop_used_approvals(each, spending.used) for each in facts]

    def enforce(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Return the signed decision if it is allow.

        Raises:
            AccessDenied: it is deny; `.signed` holds the decision, the message its explanation.
        """
        signed = self.decide(request, inputs)
        if not signed.decision.allowed:
            raise AccessDenied(signed.decision.explain(), signed=signed)
        return signed

    def _state(self, facts: Facts, recording: Collection[str] = ()) -> PendingStatement:
        snapshot = self._snapshot
        now = self._clock()
        decision = Engine(snapshot).decide(facts, now)
        mattered = snapshot.mattering(decision)
        if mattered is not None and recording:
            mattered = mattered.union(recording)
        payload = self._stated(decision, now, mattered=mattered, snapshot=snapshot)
        return PendingStatement(decision, payload, approvals_to_consume(snapshot, decision))

    def _stated(
        self, decision: Decision, now: Instant, *, mattered: Collection[str] | None, snapshot: Snapshot | None = None
    ) -> bytes:
        request, judged = decision.facts.request, snapshot or self._snapshot
        expires = now + self._lifetime_ns
        if decision.requiring:
            expires = judged.lasts_until(decision, now, expires)
        return decision_statement(
            decision,
            request,
            decision_id=os.urandom(16).hex(),
            audience=self._audience,
            issued_at=now,
            not_before=now,
            expires=expires,
            advisory=self._advisory,
            mattered=mattered,
            sensitive=judged.sensitive(request),
            redactions=judged.redactions(request),
        )

    def close(self) -> None:
        """Close the log that `open` opened. Everything acknowledged is durable already."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def log_origin(key: PublicKey) -> str:
    """Return the name of the log that this key signs, where nobody gave it one."""
    return f"policyguard/{key.keyid[:16]}"
