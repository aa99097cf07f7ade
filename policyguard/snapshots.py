"""Where snapshots come from: a folder of policies, or one compiled and signed file. Reads files.

The folder's path loads yaml, casbin and the CEL checker; the compiled file's path loads none of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from policyguard.attest.keys import PublicKey
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.policy.bundle import MAX_BUNDLE_BYTES, open_sealed

if TYPE_CHECKING:
    # Annotations only: with all that it imports, pathlib costs a hook three milliseconds.
    from pathlib import Path


def load_snapshot(path: str | Path, keys: Sequence[PublicKey]) -> Snapshot:
    """Return the snapshot of a policy folder, or of a compiled file that one of these keys has signed.

    Raises:
        PolicyErrors: mistakes in the policies. ConfigurationError: the path or the compiled file is unusable.
    """
    try:
        status = os.stat(path)
    except OSError as problem:
        raise ConfigurationError(f"{path}: no policies there: {_why(problem)}") from problem
    if stat.S_ISDIR(status.st_mode):
        # The loader's imports cost five times a whole decision process; only this branch pays for them.
        loader: Any = import_module("policyguard.sources")
        snapshot: Snapshot = loader.snapshot_of_folder(import_module("pathlib").Path(path))
        return snapshot
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path}: found neither a folder nor a file, expected policies")
    return Snapshot.from_compiled(*open_sealed(read_bounded(path, MAX_BUNDLE_BYTES), keys))


def read_bounded(path: str | Path, most: int) -> bytes:
    """Return the bytes of a file of at most this size, else raise `ConfigurationError`."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be read: {_why(problem)}") from problem
    if len(data) > most:
        raise ConfigurationError(f"{path}: larger than {most} bytes")
    return data


def _why(problem: OSError) -> str:
    return os.strerror(problem.errno).lower() if problem.errno else "unknown reason"
