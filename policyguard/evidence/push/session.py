"""One push to one repository; its store, references, object reader and review files are opened once.

A hook needs several measurements for each reference of a push. One session opens everything once, so that many
references cost no more than one. Shallow, grafted, replaced and partial histories are refused, because they can show
another history than the commits contain.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Self

from policyguard.attest.signers import Signers
from policyguard.errors import EvidenceError
from policyguard.evidence.approvals.collectors import ReviewFiles
from policyguard.evidence.approvals.verify import RejectedApproval, SubmittedApproval
from policyguard.evidence.push.measure import UpdateMeasurer
from policyguard.evidence.push.nonce import Nonces, nonces_of
from policyguard.evidence.push.objects import find_store, shallow_file
from policyguard.evidence.push.updates import MeasuredUpdate, RefUpdate
from policyguard.git.directory import GitDir
from policyguard.git.gpg import Keyring
from policyguard.git.objects import ObjectReader, open_objects
from policyguard.git.refs import References, history_overrides
from policyguard.text import printable_name

_REFUSED = frozenset({"shallow", "grafts", "replace_refs", "partial"})


class PushSession:
    """One push, measured on the receiving server. Use it in a `with` block; not thread-safe.

    Everything is opened when it is first asked for, and the time limit begins when the first object is read.
    """

    def __init__(
        self,
        directory: str,
        environment: Mapping[str, str],
        owners: Collection[int],
        *,
        files: ReviewFiles | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Prepare a session; nothing is opened yet.

        Args:
            directory: the repository, bare or not.
            environment: the hook's; git names its quarantine there.
            owners: uids that the repository may belong to.
            files: the operator's review files.
            timeout_s: limit for reading objects, for the whole push.
        """
        self._directory, self._environment, self._owners = directory, environment, owners
        self._files, self._timeout_s = files or ReviewFiles(), timeout_s
        self._opened = ExitStack()
        self._reader: ObjectReader | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @cached_property
    def submitted(self) -> tuple[SubmittedApproval | RejectedApproval, ...]:
        """The approvals in the configured folder and log."""
        return tuple(self._files.submitted())

    def measure(
        self,
        updates: tuple[RefUpdate, ...],
        signers: Signers | None = None,
        keyring: Keyring | None = None,
        *,
        deep: bool = True,
    ) -> tuple[MeasuredUpdate, ...]:
        """Measure each update; without `deep`, only ids, tree and kind of change.

        Args:
            updates: at least one.
            signers: the keys that count in commits; without them nobody is known.
            keyring: the pinned GPG keys.

        Raises:
            EvidenceError: the history can show another past, an object is missing or damaged, or git took too long.
        """
        some_id = next(oid for update in updates for oid in (update.new, update.old) if oid is not None)
        measurer = UpdateMeasurer(
            self._references,
            self._objects(some_id),
            signers or Signers(()),
            keyring,
            signed_only=self._files.signed_only,
        )
        return tuple([measurer.measure(update, deep=deep) for update in updates])

    def current(self, ref: str) -> str | None:
        """Return the current object id of a reference; None if it does not exist."""
        return self._references.id_of(os.fsencode(ref))

    def stays_packed_after_delete(self, ref: str, oid: str) -> bool:
        """Return True if deleting the loose ref leaves a packed ref with the same value.

        `git pack-refs` writes the packed file, unlocks it, and then deletes each reference's own file; a deletion holds
        the lock of the packed file while the hook runs.
        """
        return self._references.is_packed(os.fsencode(ref), oid)

    def nonces(self, max_age_s: int) -> Nonces:
        """Read the seed and the names from which this repository's nonces are made."""
        return nonces_of(self._git, max_age_s=max_age_s)

    def read_blob(self, oid: str, max_bytes: int) -> bytes | None:
        """Read a blob, such as a push certificate; None if it is too long."""
        return self._objects(oid).read_small_blob(oid, max_bytes)

    @cached_property
    def _store(self) -> tuple[GitDir, str | None]:
        return find_store(self._directory, self._environment, self._owners)

    @property
    def _git(self) -> GitDir:
        return self._store[0]

    @cached_property
    def _references(self) -> References:
        return References(self._git)

    def _objects(self, oid: str) -> ObjectReader:
        if self._reader is None:
            self._refuse_other_histories()
            deadline = time.monotonic() + self._timeout_s
            self._reader = self._opened.enter_context(open_objects(self._git, oid, deadline, quarantine=self._store[1]))
        return self._reader

    def _refuse_other_histories(self) -> None:
        # INVARIANT I16: a shallow, grafted, replaced or partial history is refused, never judged.
        overrides = sorted(_REFUSED.intersection(history_overrides(self._git, self._references)))
        if shallow_file(self._directory, self._environment):
            overrides.append("shallow push")
        if overrides:
            raise EvidenceError(
                f"`{printable_name(self._git.shared)}`: can show another history than its commits "
                f"contain ({', '.join(overrides)})",
                help="push from a full clone to a repository without shallow, graft and replace entries",
            )
