"""The guard issues decisions: request -> facts -> decision -> statement -> envelope -> log -> SignedDecision.

No decision is returned before it is signed and durable in the log, denials included. The guard is where the clock,
randomness and files come in. Thread-safe.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.note import NoteKey
from policyguard.audit.log import Log
from policyguard.audit.policy_epochs import PoliciesMovedOn
from policyguard.audit.receipt import Receipt, SignedDecision
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import AccessDenied, ConfigurationError
from policyguard.evidence.collector import Collectors, JobInputs, gather
from policyguard.issuer import Issuer, policy_use
from policyguard.keyfiles import read_private_key
from policyguard.model.decision import (
    AUDIENCE,
    DEFAULT_AUDIENCE,
    DEFAULT_LIFETIME_S,
    MAX_LIFETIME_S,
    Decision,
    is_audience,
)
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot, stamp_of
from policyguard.text import quoted
from policyguard.values import Instant

if TYPE_CHECKING:
    # Annotations only, see `policy_store/load.py`.
    from pathlib import Path

    from policyguard.attest.trust import PolicySigners
    from policyguard.audit.job_end import JobEnded
    from policyguard.evidence.identity import Caller


class Guard:
    """Decides, signs and logs.

    Make one with `from_config` (with the collectors of a configuration file), `open` (with your own collectors) or
    `in_memory` (for unit tests). Close it, or use it in a `with` block.

    Options of every guard:

        audience: the cluster or host that decisions are for; a worker accepts only its own name (step V8).
        lifetime_s: how long a decision may be used.
        collectors: measure the job itself; without any, every fact is only claimed. A function chooses them for each
            request, by the policies in force.
        advisory: the guard cannot stop the job; decisions say so.
        reserve: the path of the number that an allow reserves in the quota of its team, until the job ends.
        passphrase: of the private key, if the file is encrypted.
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
        if not is_audience(audience):
            raise ConfigurationError(f"audience: found {quoted(audience)}, expected {AUDIENCE}")
        self._snapshot = snapshot
        self._key = key
        self._log = log
        self._issuer = Issuer(
            key, log, audience=audience, lifetime_s=lifetime_s, advisory=advisory, clock=clock, reserve=reserve
        )
        self._collectors = collectors if callable(collectors) else tuple(collectors)
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
        policy_signers: PolicySigners | None = None,
        passphrase: bytes | None = None,
        origin: str | None = None,
        reserve: str | None = None,
        state_dir: str | Path | None = None,
    ) -> Guard:
        """Open a guard over these policies, with your own collectors.

        Args:
            policies: a folder of policy files, or a compiled snapshot.
            key: the private key file that signs decisions and log checkpoints.
            log: the decision log, an SQLite file; created if it does not exist.
            audience, lifetime_s: the host or cluster that decisions are for, and for how many seconds they can be used.
            collectors: measure facts for each request, or a function that chooses them by request and policies.
            advisory, passphrase: mark decisions so that no worker starts anything on them; for a protected key file.
            policy_keys: may sign a compiled snapshot; this guard's own key if empty.
            policy_signers: the persons who must have signed the snapshot; no other key counts then.
            origin: the log's name in its checkpoints; by default `policyguard/` and the start of the key id.
            reserve: the path of the number that an allow takes until its job ends, such as `resource.gpus`.
            state_dir: the folder of the log's head file, see docs/log.md; by default that of the log.

        Raises:
            PolicyErrors: every mistake in the policies.
            ConfigurationError, SigningError, AuditError: a file cannot be used; the message says which, and why.
        """
        private = read_private_key(key, passphrase=passphrase)
        options: dict[str, Any] = {"audience": audience, "lifetime_s": lifetime_s, "collectors": collectors}
        options |= {"advisory": advisory, "reserve": reserve, "policy_signers": policy_signers}
        return cls._open(policies, private, log, policy_keys=policy_keys, origin=origin, state_dir=state_dir, **options)

    @classmethod
    def from_config(
        cls,
        path: str | Path,
        *,
        passphrase: bytes | None = None,
        advisory: bool = False,
        report: Callable[[str], object] | None = None,
    ) -> Guard:
        """Open the guard of a configuration file, with the collectors of `policyguard run`.

        `decide_job` measures a job as `policyguard run` does; `decide` answers a request as `policyguard decide` does.

        Args:
            path: the configuration, `policyguard.yaml`; it names at least `policies:`, `key:` and `log:`. Only root
                and this account may be able to change it, and what it names.
            passphrase, advisory: as for `Guard.open`.
            report: takes a line that a person should read, such as why a cache is not used; by default the logger
                `policyguard`.

        Raises:
            PolicyErrors: every mistake in the policies.
            ConfigurationError, SigningError, AuditError: a file cannot be used; the message says which, and why.
        """
        parts = _load("assembly.configured").configured_guard(path, passphrase, report)
        return cls._open(parts.policies, parts.key, parts.log, advisory=advisory, **parts.options)

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
        """Build a guard for unit tests, with a new key and a log in memory; writes no file.

        Args:
            policies: the text of policy documents, as in a policy file.
            clock: supplies the current time.
            audience, lifetime_s, collectors, reserve: as for `Guard.open`.

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
        policy_signers: PolicySigners | None = None,
        origin: str | None = None,
        state_dir: str | Path | None = None,
        **options: Any,
    ) -> Guard:
        trusted = tuple(policy_keys) or (private.public,)

        def load() -> Snapshot:
            return load_snapshot(policies, trusted, policy_signers)

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
        """The key that verifies decisions."""
        return self._key.public

    @property
    def log_key(self) -> NoteKey:
        """The key and log name that verify checkpoints."""
        return self._log.verifier

    def reload(self) -> str:
        """Load the policies again and return their digest; on any error, the old ones stay in use.

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
        """Collect the facts about the request. Step 2."""
        chosen = self._collectors
        collectors = chosen(self._snapshot, request, inputs) if callable(chosen) else chosen
        if not collectors:
            return Facts(request, claims(request, self._clock()))
        return gather(request, collectors, inputs or JobInputs(), self._clock)

    def consider(self, facts: Facts) -> Decision:
        """Decide without signing or logging, for explanations and tests. Step 3."""
        return Engine(self._snapshot).decide(facts, self._clock())

    def decide(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Decide, sign and durably log; allow and deny alike.

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
        """Measure a job and decide about it, as `policyguard run` does before it starts the command.

        The subject is the account of this process. A job file that names another one is denied.

        Args:
            job, argv: the job file, and the command that is to run.
            directory: where it is to run; the current folder if None.
            environment: the variables it is to get; those of this process if None.
            subject: who asks, if it is not this account; the configuration must list the account under `speakFor:`.

        Raises:
            RequestError: the job file cannot be used.
            ConfigurationError: this guard measures no commands, the directory is missing, or has the configuration.
            TypeError: `argv` is one text.
            SigningError, AuditError: no decision was released, and nothing may start.
        """
        identity = _load("evidence.identity")
        caller = identity.calling_account(*self._accounts)
        request, inputs = _load("config.job_file").read_job_file(
            job,
            argv,
            directory,
            os.environ if environment is None else environment,
            account=caller.name if subject is None else subject,
        )
        if self._check_folder is not None:
            self._check_folder(inputs.directory)
        denied = self.refuse_caller(request, caller, subject)
        if denied is not None:
            return denied
        return self.issue(self._gather_job(request, inputs), recording=(identity.ACCOUNT,))

    def _gather_job(self, request: Request, inputs: JobInputs) -> Facts:
        with _load("evidence.from_commit").exported(inputs) as started:
            facts: Facts = _load("assembly.jobs").job_facts(self.gather(request, started), started)
        return facts

    def refuse_caller(self, request: Request, caller: Caller, requested: str | None = None) -> SignedDecision | None:
        """Sign and log a denial if this account may not act for this subject; None if it may.

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
        """Decide on facts that were already gathered, sign and log. Steps 3 to 6; see `issue_many`."""
        return self.issue_many((facts,), recording=recording)[0]

    def issue_denial(self, decision: Decision) -> SignedDecision:
        """Sign and log a denial that no rule made, such as an alert about a changed job.

        Raises:
            ValueError: the decision allows; only the policies can allow.
        """
        return self._issuer.issue_denial(self._snapshot, decision)

    def issue_many(
        self, facts: Sequence[Facts], *, one_root: bool = True, recording: Collection[str] = ()
    ) -> tuple[SignedDecision, ...]:
        """Decide several requests; sign and log all decisions in one commit, or none. Keeps their order.

        Args:
            facts: of each request.
            one_root: sign once, over a Merkle root of all; each envelope carries its proof and verifies alone, here
                and on every worker. Tools that know only DSSE refuse such envelopes: False signs each by itself.
            recording: paths of facts that every statement contains, whichever rules decided.
        """
        while True:
            try:
                return self._issuer.issue(self._snapshot, facts, one_root=one_root, recording=recording)
            except PoliciesMovedOn:
                # Another process has logged other policies of our epoch since; the statements are to say so.
                continue

    def reservation_held(self, signed: SignedDecision) -> AbstractContextManager[Callable[[], None]]:
        """Hold the quota reservation of an allow while its job runs; it ends with the block.

        The block gets a function to call just before the job starts: it logs the start, durably.

        Raises:
            EvidenceError: from that function: the reservation has ended, or the job was started already.
            AuditError: from that function: the start could not be logged. Nothing may start in either case.
        """
        if not signed.decision.allowed or self._reserve is None:
            return nullcontext(lambda: None)
        held: AbstractContextManager[Callable[[], None]] = _load("audit.job_reservation").hold_reservation(
            signed, self._reserve, self._snapshot, self._log, self._key, self._clock
        )
        return held

    def record_job_end(self, end: JobEnded) -> Receipt:
        """Log how a job of this guard ended, durably.

        Raises:
            AuditError: the log cannot be written.
        """
        return self._log.append(_load("audit.job_end").job_end_leaf(end, self._key))

    def remember_list(self, keys: Sequence[str], sequence: int) -> int:
        """Record in the log that a revocation list was used; return the highest sequence that the log has seen.

        Args:
            keys: the ids of the keys that trust pins for the list.
            sequence: of the list.

        Raises:
            AuditError: the log cannot tell.
        """
        return self._log.remember_list(keys, sequence, self._clock())

    def enforce(self, request: Request, inputs: JobInputs | None = None) -> SignedDecision:
        """Decide, sign and log; return only if the decision is allow.

        Raises:
            AccessDenied: the decision is deny; `.signed` holds it, and the message is its explanation.
        """
        signed = self.decide(request, inputs)
        if not signed.decision.allowed:
            raise AccessDenied(signed.decision.explain(), signed=signed)
        return signed

    def close(self) -> None:
        """Close the log file, if there is one. Every returned decision is already durable."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def log_origin(key: PublicKey) -> str:
    """Return the default name of the log that this key signs."""
    return f"policyguard/{key.keyid[:16]}"


def _load(name: str) -> Any:
    """Import a module that only some guards need, so that a hook with a compiled snapshot starts faster."""
    return import_module(f"policyguard.{name}")
