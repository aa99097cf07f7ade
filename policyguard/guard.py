"""The guard issues decisions: request -> facts -> decision -> statement -> envelope -> log -> SignedDecision.

Nothing leaves before it is signed and durable in the log; a denial takes the same way. The guard is where the clock,
randomness and files come in. Any number of threads may use one guard.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from policyguard.attest.dsse import Envelope, sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.note import NoteKey
from policyguard.attest.statement import PAYLOAD_TYPE, parse_statement
from policyguard.audit.approval_use import PendingStatement, is_single_use
from policyguard.audit.in_transaction import DecisionsInTransaction
from policyguard.audit.log import Log
from policyguard.audit.oversized import StatedDecision, state_within_bounds
from policyguard.audit.policy_epochs import PoliciesMovedOn, PolicyUse
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores import Store
from policyguard.decide.engine import Engine, internal_error
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import (
    AccessDenied,
    AuditError,
    ConfigurationError,
    EvidenceError,
    PolicyGuardError,
    SigningError,
)
from policyguard.evidence.collector import Collectors, JobInputs, gather
from policyguard.keyfiles import read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE, DEFAULT_LIFETIME_S, MAX_LIFETIME_S, Decision
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot, stamp_of
from policyguard.values import ALWAYS, NANOSECONDS_PER_S, NEVER, Instant

if TYPE_CHECKING:
    # Annotations only, see `policy_store/load.py`.
    from pathlib import Path

    from policyguard.audit.reservations import Reservations
    from policyguard.evidence.identity import Caller


class Guard:
    """Decides, signs and logs.

    Make one with `from_config` (with the collectors of a configuration file), `open` (with your own collectors) or
    `in_memory` (for unit tests). Close it, or use it in a `with` block.
    """

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
        reserve: str | None = None,
        accounts: tuple[Mapping[str, str], Collection[str]] = ({}, ()),
        check_folder: Callable[[str], None] | None = None,
    ) -> None:
        if type(lifetime_s) is not int or not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise ValueError(
                f"lifetime_s: found {lifetime_s}, expected 1 to {MAX_LIFETIME_S} whole seconds, at most 366 days"
            )
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
        self._reserve = reserve
        self._check_reserve(snapshot)
        self._accounts = accounts
        self._check_folder = check_folder
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
        reserve: str | None = None,
        state_dir: str | Path | None = None,
    ) -> Guard:
        """Open a guard over these policies, with collectors of your own.

        Args:
            policies: a folder of policy files, or a compiled snapshot.
            key: the private key file that signs decisions and log checkpoints.
            log: the decision log, an SQLite file; created if it does not exist.
            audience: the cluster or host that decisions are for; a worker accepts only its own name (step V8).
            lifetime_s: how long a decision may be used.
            collectors: measure the job itself; without any, every fact is only claimed. A function chooses them for
                each request, by the policies in force.
            advisory: the guard cannot stop the job; decisions say so.
            policy_keys: may sign a compiled snapshot; this guard's own key if empty.
            passphrase: of the private key, if the file is encrypted.
            origin: the log's name in its checkpoints; by default `policyguard/` and the start of the key id.
            reserve: the path of the number that an allow reserves in the quota of its team, until the job ends.
            state_dir: the folder of the log's head file, which shows that the log is the newest; by default that of
                the log. See docs/log.md.

        Raises:
            PolicyErrors: every mistake in the policies.
            ConfigurationError, SigningError, AuditError: a file cannot be used; the message says which, and why.
        """
        private = read_private_key(key, passphrase=passphrase)
        return cls._open(
            policies,
            private,
            log,
            policy_keys=policy_keys,
            origin=origin,
            state_dir=state_dir,
            audience=audience,
            lifetime_s=lifetime_s,
            collectors=collectors,
            advisory=advisory,
            reserve=reserve,
        )

    @classmethod
    def from_config(
        cls,
        path: str | Path,
        *,
        passphrase: bytes | None = None,
        advisory: bool = False,
        report: Callable[[str], object] | None = None,
    ) -> Guard:
        """Open the guard that a configuration file describes, with the collectors of `policyguard run`.

        `decide_job` measures a job as `policyguard run` does; `decide` answers a request as `policyguard decide` does.

        Args:
            path: the configuration, `policyguard.yaml`; it names at least `policies:`, `key:` and `log:`. Only root
                and this account may be able to change it, and what it names.
            passphrase: of the private key, if the file is encrypted.
            advisory: the guard cannot stop the job; decisions say so.
            report: takes a line that a person should read, such as why a cache is not used; by default the logger
                `policyguard`.

        Raises:
            PolicyErrors: every mistake in the policies.
            ConfigurationError, SigningError, AuditError: a file cannot be used; the message says which, and why.
        """
        jobs, operator = _load("assembly.jobs"), _load("config.operator")
        config = operator.operator_config(path)
        for name in ("policies", "key", "log"):
            if getattr(config, name) is None:
                raise ConfigurationError(f"{path}: `{name}` is missing, expected a path")
        private = read_private_key(config.key, passphrase=passphrase)
        report = report or jobs.log_warning
        for warning in config.warnings:
            report(warning)
        collectors = jobs.configured_collectors(
            config, seal=lambda: private.derive(_load("fs.sealed").SEAL_PURPOSE), report=report
        )
        return cls._open(
            config.policies,
            private,
            config.log,
            state_dir=config.state_dir,
            audience=config.audience or DEFAULT_AUDIENCE,
            lifetime_s=config.lifetime_s,
            collectors=collectors,
            advisory=advisory,
            reserve=config.measurement.reserve,
            accounts=(config.measurement.accounts, config.measurement.speak_for),
            check_folder=lambda folder: operator.check_outside(config, folder),
        )

    @classmethod
    def in_memory(
        cls,
        policies: str,
        *,
        audience: str = DEFAULT_AUDIENCE,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        collectors: Collectors = (),
        clock: Callable[[], Instant] = time.time_ns,
        reserve: str | None = None,
    ) -> Guard:
        """Build a guard for unit tests: it signs with a new key and logs in memory, and writes no file.

        Args:
            policies: the text of policy documents, as in a policy file.
            audience: the cluster or host that decisions are for.
            lifetime_s: how long a decision may be used.
            collectors: measure the job itself; without any, every fact is only claimed.
            clock: supplies the current time.
            reserve: the path of the number that an allow reserves in the quota of its team.

        Raises:
            PolicyErrors: every mistake in the policies.
        """
        snapshot = _load("policy_store.folder").snapshot_of_text(policies)
        private = PrivateKey.generate(os.urandom(32))
        store = _load("audit.stores.memory").MemoryStore(log_origin(private.public))
        return cls(
            snapshot,
            private,
            Log.open(store, private, store.origin),
            audience=audience,
            lifetime_s=lifetime_s,
            collectors=collectors,
            clock=clock,
            reserve=reserve,
        )

    @classmethod
    def _open(
        cls,
        policies: str | Path,
        private: PrivateKey,
        log: str | Path,
        *,
        policy_keys: Sequence[PublicKey] = (),
        origin: str | None = None,
        state_dir: str | Path | None = None,
        **options: Any,
    ) -> Guard:
        trusted = tuple(policy_keys) or (private.public,)

        def load() -> Snapshot:
            return load_snapshot(policies, trusted)

        snapshot = load()
        opened = Log.open(log, private, origin, create=True, state_dir=state_dir)
        try:
            opened.is_edited(policy_use(snapshot))
            return cls(
                snapshot,
                private,
                opened,
                reload=load,
                stamp=lambda: stamp_of(policies),
                close=opened.close,
                **options,
            )
        except BaseException:
            opened.close()
            raise

    @property
    def snapshot(self) -> Snapshot:
        """The policies that the next decision uses."""
        return self._snapshot

    @property
    def public_key(self) -> PublicKey:
        """The key with which decisions are verified."""
        return self._key.public

    @property
    def log_key(self) -> NoteKey:
        """The key and log name with which checkpoints are verified."""
        return self._log.verifier

    def reload(self) -> str:
        """Load the policies again and return their digest; on any error the last good ones stay in use.

        Other threads go on deciding; each decision is made by one snapshot, the old or the new.
        """
        with self._reloading:
            snapshot = self.policies_on_disk()
            # A process that reloads is long-running: no decision must wait for an index.
            snapshot.build_indexes()
            self._snapshot = snapshot
        return snapshot.policy_digest

    def policies_on_disk(self) -> Snapshot:
        """Load the policies from their source without using them; `reload` uses them.

        Raises:
            PolicyErrors, ConfigurationError: they cannot be used, or are older than those in use.
        """
        if self._load is None:
            raise ConfigurationError("this guard was built from a snapshot in memory, expected one from `Guard.open`")
        snapshot = self._load()
        # INVARIANT I4: policies never go back: an older epoch, however well signed, is refused.
        if snapshot.epoch < self._snapshot.epoch:
            raise ConfigurationError(
                f"policies are of epoch {snapshot.epoch}, expected at least {self._snapshot.epoch}, the one in use"
            )
        self._check_reserve(snapshot)
        return snapshot

    def _check_reserve(self, snapshot: Snapshot) -> None:
        if self._reserve is not None:
            _load("audit.reservations").check_path(self._reserve, snapshot)

    def policies_stamp(self) -> object:
        """Return a fingerprint that changes when the policy source changes, or None for a guard built in memory."""
        return self._stamp() if self._stamp is not None else None

    def gather(self, request: Request, inputs: JobInputs | None = None) -> Facts:
        """Collect the facts about the request now. Step 2."""
        chosen = self._collectors
        collectors = chosen(self._snapshot, request, inputs) if callable(chosen) else chosen
        if not collectors:
            return Facts(request, claims(request, self._clock()))
        return gather(request, collectors, inputs or JobInputs(), self._clock)

    def consider(self, facts: Facts) -> Decision:
        """Decide without signing or logging. Step 3 alone, for explanations and tests."""
        return Engine(self._snapshot).decide(facts, self._clock())

    def decide(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Decide, sign and durably log, whether the answer is allow or deny.

        Raises:
            SigningError, AuditError: no decision was released, and nothing may start.
        """
        return self.issue(self.gather(request, inputs))

    def decide_job(
        self,
        job: str | Path,
        argv: Sequence[str],
        *,
        directory: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        subject: str | None = None,
    ) -> SignedDecision:
        """Measure a job, decide about it, sign and log, as `policyguard run` does before it starts the command.

        The subject is the account of this process. A job file that names another one is denied.

        Args:
            job, argv: the job file, and the command that is to run.
            directory: where it is to run; the current folder if None.
            environment: the variables it is to get; those of this process if None.
            subject: who asks, if it is not this account; the configuration must list the account under `speakFor:`.

        Raises:
            RequestError: the job file cannot be used.
            ConfigurationError: this guard does not measure commands, or its configuration is in the folder of the job.
            SigningError, AuditError: no decision was released, and nothing may start.
        """
        identity = _load("evidence.identity")
        caller = identity.calling_account(*self._accounts)
        request, inputs = _load("config.job_file").read_job_file(
            job,
            argv,
            directory,
            os.environ if environment is None else environment,
            account=subject or caller.name,
        )
        if self._check_folder is not None:
            self._check_folder(inputs.directory)
        denied = self.refuse_caller(request, caller, subject)
        if denied is not None:
            return denied
        facts = _load("assembly.jobs").job_facts(self.gather(request, inputs), inputs)
        return self.issue(facts, recording=(identity.ACCOUNT,))

    def refuse_caller(self, request: Request, caller: Caller, requested: str | None = None) -> SignedDecision | None:
        """Sign and log a denial if this account may not make a request of this subject; None if it may.

        Args:
            request: what is asked for.
            caller: the account that asks, as `evidence.identity.calling_account` identifies it.
            requested: the subject that it asked for beyond the request, as by `--subject`.
        """
        snapshot = self._snapshot
        denial: Decision | None = _load("assembly.denials").caller_denial(
            request,
            caller,
            requested,
            policy_digest=snapshot.policy_digest,
            epoch=snapshot.epoch,
            now=self._clock(),
        )
        return None if denial is None else self.issue_denial(denial)

    def issue(self, facts: Facts, *, recording: Collection[str] = ()) -> SignedDecision:
        """Decide on facts that are already gathered, sign and log. Steps 3 to 6; see `issue_many`."""
        return self.issue_many((facts,), recording=recording)[0]

    def issue_denial(self, decision: Decision) -> SignedDecision:
        """Sign and log a denial that no rule made, such as an alert of a hook about a changed job.

        Raises:
            ValueError: the decision allows; only the policies can allow.
        """
        # INVARIANT I4: only the policies allow; everything else that is signed with the guard's key denies.
        if decision.allowed:
            raise ValueError("found a decision that allows, expected a denial")
        _, payload = self._build_statement(decision, self._clock(), recorded_paths=None)
        envelope = sign(payload, PAYLOAD_TYPE, (self._key,))
        return SignedDecision(envelope, self._log.append(envelope.to_bytes()), decision)

    def issue_many(
        self, facts: Sequence[Facts], *, one_root: bool = True, recording: Collection[str] = ()
    ) -> tuple[SignedDecision, ...]:
        """Decide on several requests; sign and log all decisions in one commit, or none. Keeps their order.

        Args:
            facts: of each request.
            one_root: sign once, over a Merkle root of all; each envelope carries its proof and verifies alone, here
                and on every worker. Tools that know only DSSE refuse such envelopes: False signs each by itself.
            recording: paths of facts that every statement contains, whichever rules decided.
        """
        while True:
            try:
                return self._issue(self._snapshot, facts, one_root, recording)
            except PoliciesMovedOn:
                # Another process has logged other policies of our epoch since; the statements are to say so.
                continue

    def _issue(
        self, snapshot: Snapshot, facts: Sequence[Facts], one_root: bool, recording: Collection[str]
    ) -> tuple[SignedDecision, ...]:
        statements, envelopes = list[PendingStatement](), list[Envelope]()
        decisions = DecisionsInTransaction(snapshot, facts, self._reservations(snapshot, facts))
        use = policy_use(snapshot)
        if self._log.is_edited(use):
            use = msgspec.structs.replace(use, edited=True)

        def build() -> list[bytes]:
            statements[:] = decisions.decide(lambda unused: self._state(snapshot, unused, recording, edited=use.edited))
            envelopes[:] = self._seal([statement.payload for statement in statements], one_root=one_root)
            return [*(envelope.to_bytes() for envelope in envelopes), *decisions.write(statements, self._key)]

        if decisions.is_needed:
            # INVARIANT I9: an approval that counts once is used up in the transaction that logs the allow.
            receipts = self._log.append_after(decisions.read, build, use)
        else:
            receipts = self._log.append_many(build(), use)
        return tuple(
            SignedDecision(envelope, receipt, statement.decision)
            for statement, envelope, receipt in zip(statements, envelopes, receipts, strict=False)
        )

    @contextmanager
    def reservation_held(self, signed: SignedDecision) -> Iterator[Callable[[], None]]:
        """Hold what an allow reserved in a quota while its job runs; it ends with the block.

        Yields:
            A function to call just before the job starts: it logs the start, durably.

        Raises:
            EvidenceError: from that function: the reservation has ended, or the job was started already.
            AuditError: from that function: the start could not be logged. Nothing may start in either case.
        """
        if not signed.decision.allowed or self._reserve is None:
            yield lambda: None
            return
        module = _load("audit.reservations")
        if not module.amount_of(self._reserve, self._snapshot, signed.decision.facts):
            yield lambda: None
            return
        decision_id = parse_statement(signed.envelope.payload).predicate.decision_id
        how_it_ends = [module.release]

        def note_start() -> None:
            how_it_ends.clear()
            self._note_reservation(module.start, decision_id)
            how_it_ends.append(module.end)

        try:
            yield note_start
        finally:
            for note in how_it_ends:
                # What cannot be logged now ends at the decision's expiry, or at the next figure of the scheduler.
                with suppress(AuditError, EvidenceError):
                    self._note_reservation(note, decision_id)

    def _note_reservation(self, note: Callable[..., list[bytes]], decision_id: str) -> None:
        stores: list[Store] = []
        self._log.append_after(
            lambda store, _, __: stores.append(store),
            lambda: note(stores[-1].claims, decision_id, self._clock(), self._key),
        )

    def _reservations(self, snapshot: Snapshot, facts: Sequence[Facts]) -> Reservations | None:
        if self._reserve is None:
            return None
        made: Reservations = _load("audit.reservations").Reservations(self._reserve, snapshot, facts, self._clock())
        return made

    def enforce(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Decide, sign and log; return only if the decision is allow.

        Raises:
            AccessDenied: the decision is deny; `.signed` holds it, and the message is its explanation.
        """
        signed = self.decide(request, inputs)
        if not signed.decision.allowed:
            raise AccessDenied(signed.decision.explain(), signed=signed)
        return signed

    def _seal(self, payloads: Sequence[bytes], *, one_root: bool) -> Sequence[Envelope]:
        if one_root and len(payloads) > 1:
            batch: Sequence[Envelope] = _load("audit.batch").sign_batch(payloads, PAYLOAD_TYPE, (self._key,))
            return batch
        return [sign(payload, PAYLOAD_TYPE, (self._key,)) for payload in payloads]

    def _state(
        self, snapshot: Snapshot, facts: Facts, recording: Collection[str] = (), *, edited: bool = False
    ) -> PendingStatement:
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
        decision, payload = self._build_statement(
            decision, now, recorded_paths=recorded_paths, snapshot=snapshot, edited=edited
        )
        return PendingStatement(decision, payload, is_single_use(snapshot, decision))

    def _build_statement(
        self,
        decision: Decision,
        now: Instant,
        *,
        recorded_paths: Collection[str] | None,
        snapshot: Snapshot | None = None,
        edited: bool = False,
    ) -> StatedDecision:
        request, judged = decision.facts.request, snapshot or self._snapshot
        expires = now + self._lifetime_ns
        if not ALWAYS <= now <= expires <= NEVER:
            raise SigningError(
                f"the clock says {now} ns since 1970, expected a time at which a decision of "
                f"{self._lifetime_ns // NANOSECONDS_PER_S} s ends before the year 2262; set the clock"
            )
        if decision.requiring:
            expires = judged.lasts_until(decision, now, expires)
        return state_within_bounds(
            decision,
            request,
            decision_id=os.urandom(16).hex(),
            audience=self._audience,
            issued_at=now,
            not_before=now,
            expires=expires,
            advisory=self._advisory,
            recorded_paths=recorded_paths,
            sensitive=judged.sensitive(request),
            redactions=judged.redactions(request),
            policies=judged.name,
            edited=edited,
        )

    def close(self) -> None:
        """Close the log file, if there is one. Every decision returned is already durable."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def policy_use(snapshot: Snapshot) -> PolicyUse:
    """What the log remembers of these policies."""
    return PolicyUse(
        name=snapshot.name or "", epoch=snapshot.epoch, digest=snapshot.policy_digest, is_signed=snapshot.is_signed
    )


def log_origin(key: PublicKey) -> str:
    """Derive the default name of the log that this key signs."""
    return f"policyguard/{key.keyid[:16]}"


def _load(name: str, *, ours: bool = True) -> Any:
    """Import a module that only some guards need: a hook on a compiled snapshot starts without them."""
    return import_module(f"policyguard.{name}" if ours else name)
