"""The guard issues decisions: request -> facts -> decision -> statement -> envelope -> log -> SignedDecision.

Nothing leaves before it is signed and durable in the log; a denial takes the same way. The guard is where the clock,
randomness and files come in. Any number of threads may use one guard.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.note import NoteKey
from policyguard.attest.statement import PAYLOAD_TYPE, decision_statement
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import AccessDenied, ConfigurationError
from policyguard.evidence.collector import Collector, JobInputs, gather
from policyguard.keyfiles import read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S, Decision
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.snapshots import load_snapshot
from policyguard.values import NANOSECONDS_PER_S, Instant


class Guard:
    """Decides, signs and logs. Use `Guard.open`; close it, or use it in a `with` block."""

    def __init__(
        self, snapshot: Snapshot, key: PrivateKey, log: Log, *, audience: str = DEFAULT_AUDIENCE,
        lifetime_s: int = DEFAULT_LIFETIME_S, collectors: Sequence[Collector] = (), advisory: bool = False,
        clock: Callable[[], Instant] = time.time_ns, reload: Callable[[], Snapshot] | None = None,
        close: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        if lifetime_s <= 0:
            raise ValueError(f"lifetime_s: found {lifetime_s}, expected more than 0")
        self._snapshot = snapshot
        self._key = key
        self._log = log
        self._audience = audience
        self._lifetime_ns = lifetime_s * NANOSECONDS_PER_S
        self._collectors = tuple(collectors)
        self._advisory = advisory
        self._clock = clock
        self._load = reload
        self._close = close
        self._reloading = threading.Lock()

    @classmethod
    def open(
        cls, policies: str | Path, *, key: str | Path, log: str | Path, audience: str = DEFAULT_AUDIENCE,
        lifetime_s: int = DEFAULT_LIFETIME_S, collectors: Sequence[Collector] = (), advisory: bool = False,
        policy_keys: Sequence[PublicKey] = (), passphrase: bytes | None = None, origin: str | None = None,
    ) -> Guard:  # fmt: skip
        """Return a guard over these policies, ready to decide.

        Args:
            policies: a folder of policy files, or a compiled snapshot.
            key: the private key file that signs decisions and log checkpoints.
            log: the decision log, an SQLite file; made if it is not there.
            audience: whom decisions are for; a worker accepts only its own name (step V8).
            lifetime_s: how long a decision may be used.
            collectors: what looks at the job itself; without any, everything is only claimed.
            advisory: the guard cannot stop the job; decisions say so.
            policy_keys: who may sign a compiled snapshot; this guard's own key if none are given.
            origin: the log's name in its checkpoints; `policyguard/` and the start of the key id if not given.

        Raises:
            PolicyErrors: every mistake in the policies. ConfigurationError, SigningError, AuditError: which file, why.
        """
        private = read_private_key(Path(key), passphrase=passphrase)
        trusted = tuple(policy_keys) or (private.public,)

        def load() -> Snapshot:
            return load_snapshot(Path(policies), trusted)

        snapshot = load()
        store = SqliteStore.open(log, origin=origin, create_as=origin or log_origin(private.public))
        return cls(
            snapshot, private, Log.open(store, private, store.origin), audience=audience, lifetime_s=lifetime_s,
            collectors=collectors, advisory=advisory, reload=load, close=store.close,
        )  # fmt: skip

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
        if self._load is None:
            raise ConfigurationError("this guard was built from a snapshot in memory, expected one from `Guard.open`")
        with self._reloading:
            snapshot = self._load()
            self._snapshot = snapshot
        return snapshot.policy_digest

    def gather(self, request: Request, inputs: JobInputs | None = None) -> Facts:
        """Return what is known about the request now. Step 2: look."""
        if not self._collectors:
            return Facts(request, claims(request, self._clock()))
        return gather(request, self._collectors, inputs or JobInputs(), self._clock)

    def consider(self, facts: Facts) -> Decision:
        """Return what would be decided, unsigned and unlogged. Step 3 alone, for explanations and tests."""
        return self._snapshot.decide(facts, self._clock())

    def decide(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Return the signed, durably logged decision, allow or deny.

        Raises:
            SigningError, AuditError: nothing left the house and nothing may start.
        """
        return self.issue(self.gather(request, inputs))

    def issue(self, facts: Facts) -> SignedDecision:
        """Return the signed, logged decision on facts that are already gathered. Steps 3 to 6."""
        decision, payload = self._state(facts)
        envelope = sign(payload, PAYLOAD_TYPE, (self._key,))
        receipt = self._log.append(envelope.to_bytes())
        return SignedDecision(envelope, receipt, decision)

    def issue_many(self, facts: Sequence[Facts]) -> tuple[SignedDecision, ...]:
        """Return one signed decision for each, all durable in one commit."""
        stated = [self._state(each) for each in facts]
        envelopes = [sign(payload, PAYLOAD_TYPE, (self._key,)) for _, payload in stated]
        receipts = self._log.append_many([envelope.to_bytes() for envelope in envelopes])
        return tuple(
            SignedDecision(envelope, receipt, decision)
            for (decision, _), envelope, receipt in zip(stated, envelopes, receipts, strict=True)
        )

    def enforce(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Return the signed decision if it is allow.

        Raises:
            AccessDenied: it is deny; `.signed` holds the decision, the message its explanation.
        """
        signed = self.decide(request, inputs)
        if not signed.decision.allowed:
            raise AccessDenied(signed.decision.explain(), signed=signed)
        return signed

    def _state(self, facts: Facts) -> tuple[Decision, bytes]:
        snapshot = self._snapshot
        now = self._clock()
        decision = snapshot.decide(facts, now)
        payload = decision_statement(
            decision, facts.request, decision_id=os.urandom(16).hex(), audience=self._audience, issued_at=now,
            not_before=now, expires=now + self._lifetime_ns, advisory=self._advisory,
            mattered=snapshot.mattering(decision), sensitive=snapshot.sensitive(facts.request),
        )  # fmt: skip
        return decision, payload

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
