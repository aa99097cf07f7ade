"""Stores signed decisions on pushes between the hook that decides and the hooks that see the reference move.

The decisions are in the repository's folder `policyguard-accepted`, one file per update, with an empty file for each
used push certificate, which is deleted when certificates of that age are refused anyway. The folder need not be
trusted: a stored decision is verified (V1 to V10) with the guard's own keys, the pusher that the transport names, and
the current objects. It is consumed by renaming, so it allows one update once. A crash between deciding and moving
leaves a file that expires with its decision.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from policyguard.attest.trust import Trust, TrustedKey
from policyguard.attest.vsa import DEFAULT_LEVELS, Revision, sign_summary, source_summary
from policyguard.audit.receipt import MAX_SIGNED_BYTES, SignedDecision
from policyguard.errors import ConfigurationError, PolicyGuardError
from policyguard.evidence.identity import account_name
from policyguard.evidence.push.collector import bound_facts
from policyguard.evidence.push.session import PushSession
from policyguard.evidence.push.updates import RefUpdate
from policyguard.fs.safe_open import read_small
from policyguard.fs.write import create_file, replace_file, sync_folder
from policyguard.guard import Guard
from policyguard.hooks.git.judge import action_of
from policyguard.hooks.git.options import GitOptions, pusher_of
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.request import Request
from policyguard.revocation_file import read_revocations
from policyguard.values import sha256_digest
from policyguard.verify import VerifiedDecision, verify

FOLDER = "policyguard-accepted"
_PENDING, _CONSUMED = ".json", ".taken.json"


class DecisionStore:
    """The stored decisions of one repository."""

    def __init__(self, repository: str) -> None:
        self._folder = os.path.join(repository, FOLDER)

    def save(self, decided: Iterable[tuple[RefUpdate, SignedDecision]]) -> None:
        """Store each signed allow until its reference moves; delete expired ones."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._prune()
        for update, signed in decided:
            path = self._path(update, _PENDING)
            replace_file(path, signed.to_json(), mode=0o600)

    def mark_certificate_used(self, digest: str) -> bool:
        """Record the use of a push certificate; return False if it was used within a day.

        Certificates expire earlier, see `MAX_AGE_S`.
        """
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        try:
            create_file(os.path.join(self._folder, f"{digest}.spent"), b"", mode=0o600)
        except FileExistsError:
            return False
        return True

    def allows(
        self,
        update: RefUpdate,
        session: PushSession,
        options: GitOptions,
        guard: Guard,
        environment: Mapping[str, str],
        *,
        consume: bool = False,
    ) -> bool:
        """Return True if a stored decision allows exactly this update.

        Args:
            update: the update of a reference.
            session: reads the repository and the objects of this push.
            options: the options of the hook.
            guard: decides, signs and logs.
            environment: the environment of the hook.
            consume: remove the decision, so that it allows nothing else; by default it stays.
        """
        path = self._path(update, _PENDING)
        if not os.path.lexists(path):
            # Git 2.39 asks twice for one deletion of a packed reference: for the packed file and for its own.
            path, consume = self._path(update, _CONSUMED), False
            if update.new is not None or not os.path.lexists(path):
                return False
        try:
            self._verified(path, update, session, options, guard, environment)
            if consume:
                os.rename(path, self._path(update, _CONSUMED))  # Of two transactions, only one succeeds here.
                sync_folder(self._folder)  # A crash does not bring the decision back.
        except (PolicyGuardError, OSError):
            return False
        return True

    def summarize(
        self,
        updates: Iterable[RefUpdate],
        session: PushSession,
        options: GitOptions,
        guard: Guard,
        environment: Mapping[str, str],
    ) -> list[str]:
        """Write a verification summary for each accepted revision, and return the files' paths.

        Args:
            updates: the updates of the push.
            session: reads the repository and the objects of this push.
            options: the options of the hook.
            guard: decides, signs and logs.
            environment: the environment of the hook.
        """
        written = []
        for update in updates:
            paths = [path for end in (_CONSUMED, _PENDING) if os.path.lexists(path := self._path(update, end))]
            if paths and options.vsa is not None and update.new is not None:
                written.append(self._summary(paths[0], update, session, options, guard, environment))
            for path in paths:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        return written

    def _summary(
        self,
        path: str,
        update: RefUpdate,
        session: PushSession,
        options: GitOptions,
        guard: Guard,
        environment: Mapping[str, str],
    ) -> str:
        verified, signed, commit = self._verified(path, update, session, options, guard, environment)
        if options.vsa is None or options.resource_uri is None or commit is None:
            raise ConfigurationError("a verification summary needs --vsa and --resource-uri")
        now = time.time_ns()
        statement = source_summary(
            Revision(commit=commit, ref=update.ref, resource_uri=options.resource_uri),
            verified.predicate,
            decision_digest=sha256_digest(signed.envelope.to_bytes()),
            verified_at=now,
            verifier=f"urn:policyguard:guard:{guard.public_key.keyid}",
            levels=options.level or DEFAULT_LEVELS,
        )
        key = read_private_key(Path(options.key), passphrase=read_passphrase(environment))
        os.makedirs(options.vsa, exist_ok=True)
        name = f"{commit}.{hashlib.sha256(os.fsencode(update.ref)).hexdigest()[:12]}.vsa.json"
        target = os.path.join(options.vsa, name)
        replace_file(target, sign_summary(statement, key).to_bytes() + b"\n")
        return target

    def _verified(
        self,
        path: str,
        update: RefUpdate,
        session: PushSession,
        options: GitOptions,
        guard: Guard,
        environment: Mapping[str, str],
    ) -> tuple[VerifiedDecision, SignedDecision, str | None]:
        # INVARIANT I11: a reference moves under a stored decision only if that verifies for this pusher and objects.
        signed = SignedDecision.from_json(read_small(path, MAX_SIGNED_BYTES))
        pusher, _ = pusher_of(options.pusher, environment, account_name(os.getuid()))
        (measured,) = session.measure((update,), deep=False)
        request = Request.of(pusher, action_of(measured), options.resource)
        trust = Trust(
            keys=(TrustedKey(key=guard.public_key),),
            logs=(guard.log_key,),
            audiences=frozenset({options.audience}),
            policy_digests=frozenset({guard.snapshot.policy_digest}),
            revocation=options.revocation,
        )
        verified = verify(
            signed,
            trust,
            request,
            audience=options.audience,
            now=time.time_ns(),
            bound=bound_facts(measured),
            revocations=read_revocations(trust),
            memory=guard,
        )
        return verified, signed, measured.commit

    def _path(self, update: RefUpdate, end: str) -> str:
        text = f"{update.old} {update.new} {update.ref}"
        return os.path.join(self._folder, hashlib.sha256(text.encode()).hexdigest() + end)

    def _prune(self) -> None:
        oldest = time.time() - 86_400
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)
