"""The file of the revocation list: read by verifiers, written by `policyguard revoke`, one writer at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from policyguard.attest.revocation import MAX_REVOCATION_BYTES
from policyguard.attest.trust import RevocationTrust, Trust
from policyguard.errors import ConfigurationError, VerificationError
from policyguard.fs.private_files import Locked, open_lock
from policyguard.fs.safe_open import read_bounded, reason_of


def read_revocations(trust: Trust) -> bytes | None:
    """Read the list that this trust names; None if it names none.

    `verify` checks it (step V12).

    Raises:
        VerificationError: step V12; the file cannot be read, and without it nothing is known to be valid.
    """
    return None if trust.revocation is None else read_list(trust.revocation)


def read_list(pinned: RevocationTrust) -> bytes:
    """Read a revocation list; nothing in it is checked.

    Raises:
        VerificationError: step V12; the file cannot be read, and without it nothing is known to be valid.
    """
    try:
        return read_bounded(pinned.source, MAX_REVOCATION_BYTES)
    except ConfigurationError as problem:
        # INVARIANT I2: a list that cannot be read revokes everything.
        raise VerificationError(
            "V12", f"revocation list: {problem.message}; expected the file that `policyguard revoke` writes"
        ) from problem


@contextmanager
def exclusive(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lock the list, so that no two writers sign the same sequence number.

    Raises:
        ConfigurationError: the lock file cannot be used.
    """
    try:
        handle = open_lock(f"{os.fspath(path)}.lock")
    except OSError as problem:
        raise ConfigurationError(f"{os.fspath(path)}.lock: {reason_of(problem)}") from problem
    try:
        with Locked(handle):
            yield
    finally:
        os.close(handle)
