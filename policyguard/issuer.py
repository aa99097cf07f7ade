"""Issues decisions about gathered facts: decides, states, signs and logs, in one transaction per call.

Decisions that depend on the log (single-use approvals and reservations) are made inside the transaction that logs them,
so that no other process or thread decides in between.

A decision whose statement no reader would accept becomes a denial: a request with a few thousand unknown attributes
would need half a megabyte. The denial's statement contains only the number of facts; the request digest binds it to the
request. Leaves to `guard.py`: measuring, and which policies are in force.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from policyguard.attest.dsse import Envelope, sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import MAX_STATEMENT_BYTES, NOTHING, PAYLOAD_TYPE, decision_statement
from policyguard.audit.approval_use import ApprovalConsumption, PendingStatement, is_single_use, state_sequentially
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import PolicyUse
from policyguard.audit.receipt import SignedDecision
from policyguard.decide.engine import Engine, internal_error
from policyguard.decide.redaction import Redact
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyGuardError, SigningError
from policyguard.model.decision import Decision, denial_without_rules
from policyguard.model.facts import COMMANDS, Facts
from policyguard.model.request import Request
from policyguard.values import ALWAYS, NANOSECONDS_PER_S, NEVER, FrozenMap, Instant

if TYPE_CHECKING:
    # Annotations only: a hook without quotas starts without the module.
    from policyguard.audit.reservations import Reservations
    from policyguard.audit.stores.interface import Store


OVERSIZED = "engine.oversized"


StatedDecision: TypeAlias = tuple[Decision, bytes, bytes]
"""A decision, its encoded statement, and the digest key if that hides values.

A denial replaces the decision if the statement would be too long.
"""


class Issuer:
    """Signs decisions with one key and appends them to one log. Thread-safe."""

    def __init__(
        self,
        key: PrivateKey,
        log: Log,
        *,
        audience: str,
        lifetime_s: int,
        advisory: bool,
        clock: Callable[[], Instant],
        reserve: str | None,
    ) -> None:
        self._key = key
        self._log = log
        self._audience = audience
        self._lifetime_ns = lifetime_s * NANOSECONDS_PER_S
        self._advisory = advisory
        self._clock = clock
        self._reserve = reserve
        self._secret: bytes | None = None
        """The signing key's derivation that digest keys are made from, at the first decision that hides a value."""
        self._described: tuple[Snapshot, PolicyUse] | None = None
        """The snapshot of the last decision, and what the log is to know of it."""

    def issue(
        self, snapshot: Snapshot, facts: Sequence[Facts], *, one_root: bool, recording: Collection[str]
    ) -> tuple[SignedDecision, ...]:
        """Decide several requests; sign and log all decisions in one commit, or none. Keeps their order.

        Args:
            snapshot: the policies.
            facts: of each request.
            one_root: sign once, over a Merkle root of all.
            recording: paths of facts that every statement contains, whichever rules decided.

        Raises:
            PoliciesMovedOn: another process has logged other policies of this epoch; the statements are to say so.
        """
        statements: list[PendingStatement] = []
        envelopes: Sequence[Envelope] = ()
        decisions = DecisionsInTransaction(snapshot, facts, self._reservations(snapshot, facts))
        use = self._use(snapshot)
        if self._log.is_edited(use):
            use = msgspec.structs.replace(use, edited=True)

        def build() -> list[bytes]:
            nonlocal statements, envelopes
            statements = decisions.decide(lambda unused: self._state(snapshot, unused, recording, edited=use.edited))
            envelopes = self._seal([statement.payload for statement in statements], one_root=one_root)
            return [envelope.to_bytes() for envelope in envelopes] + decisions.write(statements, self._key)

        if decisions.is_needed:
            # INVARIANT I9: an approval that counts once is used up in the transaction that logs the allow.
            receipts = self._log.append_after(decisions.read, build, use)
        else:
            receipts = self._log.append_many(build(), use)
        return tuple(
            [
                SignedDecision(envelope, receipt, statement.decision, statement.digest_key)
                for statement, envelope, receipt in zip(statements, envelopes, receipts, strict=False)
            ]
        )

    def _use(self, snapshot: Snapshot) -> PolicyUse:
        described = self._described
        if described is None or described[0] is not snapshot:
            self._described = described = (snapshot, policy_use(snapshot))
        return described[1]

    def issue_denial(self, snapshot: Snapshot, decision: Decision) -> SignedDecision:
        """Sign and log a denial that no rule made.

        Raises:
            ValueError: the decision allows; only the policies can allow.
        """
        # INVARIANT I4: only the policies allow; everything else that is signed with the guard's key denies.
        if decision.allowed:
            raise ValueError("found a decision that allows, expected a denial")
        _, payload, digest_key = self._statement(snapshot, decision, self._clock(), recorded_paths=None)
        envelope = sign(payload, PAYLOAD_TYPE, (self._key,))
        return SignedDecision(envelope, self._log.append(envelope.to_bytes()), decision, digest_key)

    def _reservations(self, snapshot: Snapshot, facts: Sequence[Facts]) -> Reservations | None:
        if self._reserve is None:
            return None
        # A hook without quotas starts without the module.
        module = import_module("policyguard.audit.reservations")
        made: Reservations = module.Reservations(self._reserve, snapshot, facts, self._clock())
        return made

    def _seal(self, payloads: Sequence[bytes], *, one_root: bool) -> Sequence[Envelope]:
        if one_root and len(payloads) > 1:
            module = import_module("policyguard.audit.batch")
            batch: Sequence[Envelope] = module.sign_batch(payloads, PAYLOAD_TYPE, (self._key,))
            return batch
        return [sign(payload, PAYLOAD_TYPE, (self._key,)) for payload in payloads]

    def _state(self, snapshot: Snapshot, facts: Facts, recording: Collection[str], *, edited: bool) -> PendingStatement:
        now = self._clock()
        decision = Engine(snapshot).decide(facts, now)
        try:
            return self._pending(snapshot, decision, now, recording, edited=edited)
        except PolicyGuardError:
            raise
        except Exception as problem:  # noqa: BLE001 - INVARIANT I2: what fails, whatever it is, is a signed denial
            return self._pending(snapshot, internal_error(snapshot, facts, now, problem), now, (), edited=edited)

    def _pending(
        self, snapshot: Snapshot, decision: Decision, now: Instant, recording: Collection[str], *, edited: bool
    ) -> PendingStatement:
        recorded_paths = snapshot.facts_read_by(decision)
        if recorded_paths is not None and recording:
            recorded_paths = recorded_paths.union(recording)
        decision, payload, digest_key = self._statement(
            snapshot, decision, now, recorded_paths=recorded_paths, edited=edited
        )
        return PendingStatement(decision, payload, is_single_use(snapshot, decision), digest_key)

    def _statement(
        self,
        snapshot: Snapshot,
        decision: Decision,
        now: Instant,
        *,
        recorded_paths: Collection[str] | None,
        edited: bool = False,
    ) -> StatedDecision:
        request, expires = decision.facts.request, now + self._lifetime_ns
        if not ALWAYS <= now <= expires <= NEVER:
            raise SigningError(
                f"the clock says {now} ns since 1970, expected a time at which a decision of "
                f"{self._lifetime_ns // NANOSECONDS_PER_S} s ends before the year 2262; set the clock"
            )
        if decision.requiring:
            expires = snapshot.lasts_until(decision, now, expires)
        decision_id, sensitive = os.urandom(16).hex(), snapshot.sensitive(request)
        digest_key, redactions = self._hide(decision.facts, decision_id, sensitive, snapshot.redactions(request))
        return state_within_bounds(
            decision,
            request,
            decision_id=decision_id,
            audience=self._audience,
            issued_at=now,
            not_before=now,
            expires=expires,
            advisory=self._advisory,
            recorded_paths=recorded_paths,
            sensitive=sensitive,
            redactions=redactions,
            policies=snapshot.name,
            policy_signers=snapshot.signed_by,
            edited=edited,
            digest_key=digest_key,
        )

    def _hide(
        self, facts: Facts, decision_id: str, sensitive: frozenset[str], redactions: Mapping[str, Redact]
    ) -> tuple[bytes, Mapping[str, Redact]]:
        """Choose the digest key, if a value has to be hidden, and what hides parts of values."""
        paths = COMMANDS.union(sensitive, redactions) if sensitive or redactions else COMMANDS
        if paths.isdisjoint(facts.entries) and paths.isdisjoint(facts.missing):
            return b"", redactions
        # A hook that decides about no command and nothing sensitive starts without the module.
        module = import_module("policyguard.attest.hidden_values")
        if self._secret is None:
            self._secret = self._key.derive(module.PURPOSE)
        hidden: tuple[bytes, Mapping[str, Redact]] = module.hide_values(
            facts, sensitive, redactions, module.digest_key(self._secret, decision_id)
        )
        return hidden


def state_within_bounds(decision: Decision, request: Request, **options: Any) -> StatedDecision:
    """Encode the statement of a decision; if it would be too long, encode a denial `engine.oversized` instead.

    Args:
        decision: the decision.
        request: what it is about.
        options: as for `decision_statement`.
    """
    payload = decision_statement(decision, request, **options)
    digest_key: bytes = options.get("digest_key", b"")
    if len(payload) <= MAX_STATEMENT_BYTES:
        return decision, payload, digest_key
    # INVARIANT I2: what cannot be recorded is not allowed.
    facts = decision.facts
    reason = (
        f"the statement would be {len(payload)} bytes, expected at most {MAX_STATEMENT_BYTES}: "
        f"{len(facts.entries)} facts, {len(facts.missing)} missing, {len(facts.approvals)} approvals"
    )
    bound = {path: fact for path, fact in facts.entries.items() if fact.bound}
    recorded = Facts(request, bound, missing=FrozenMap(request=reason))
    denial = denial_without_rules(recorded, (OVERSIZED,), decision.now, decision.explainer)
    return denial, decision_statement(denial, request, **{**options, "recorded_paths": NOTHING}), digest_key


class DecisionsInTransaction:
    """Requests that are decided together; `is_needed` is True if the log has to be read for them."""

    def __init__(self, snapshot: Snapshot, facts: Sequence[Facts], reservations: Reservations | None) -> None:
        self._facts = facts
        self._consumption = ApprovalConsumption(snapshot, facts)
        self._reservations = reservations if reservations is not None and reservations.is_possible else None
        self._store: Store | None = None
        self._next = 0
        self.is_needed = self._consumption.is_possible or self._reservations is not None

    def read(self, store: Store, start: int, stop: int) -> None:
        """Collect what the entries from `start` to before `stop` consumed or reserved; see `Log.append_after`.

        Args:
            store: the entries.
            start: the first entry that was not read yet.
            stop: the entry after the last one.
        """
        self._store, self._next = store, stop
        self._consumption.read(store, start, stop)

    def decide(self, state: Callable[[Facts], PendingStatement]) -> list[PendingStatement]:
        """Decide the requests in order, using what `read` collected; without it, the log counts as empty."""
        reservations = self._reservations
        if reservations is None:
            return state_sequentially(self._facts, self._consumption.used, state)
        if self._store is not None:
            reservations.read(self._store.claims)

        def reserve(statement: PendingStatement) -> None:
            if statement.decision.allowed:
                reservations.reserve_stated(statement.decision, statement.payload)

        return state_sequentially(
            self._facts, self._consumption.used, lambda facts: state(reservations.add_to_usage(facts)), reserve
        )

    def write(self, statements: Sequence[PendingStatement], key: PrivateKey) -> list[bytes]:
        """Record the claims of the decisions and return the entries that follow them in the log."""
        if self._store is None:
            return []
        claims = self._store.claims
        self._consumption.write(claims, statements, self._next)
        if self._reservations is None:
            return []
        return self._reservations.write(claims, self._facts, self._next + len(statements), key)


def policy_use(snapshot: Snapshot) -> PolicyUse:
    """Describe these policies for the log, which keeps the highest epoch."""
    return PolicyUse(
        name=snapshot.name or "", epoch=snapshot.epoch, digest=snapshot.policy_digest, is_signed=snapshot.is_signed
    )
