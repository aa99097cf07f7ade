"""Loads a snapshot from a policy folder, or from one compiled and signed file. Reads files.

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
from policyguard.fs.safe_open import read_bounded, reason_of, version_of
from policyguard.policy.bundle import MAX_BUNDLE_BYTES, open_sealed

if TYPE_CHECKING:
    # For annotations only: pathlib and its imports cost a hook three milliseconds.
    from pathlib import Path

    from policyguard.attest.trust import PolicySigners


def load_snapshot(path: str | Path, keys: Sequence[PublicKey], signers: PolicySigners | None = None) -> Snapshot:
    """Load the snapshot of a policy folder, or of a compiled file that one of these keys signed.

    Args:
        path: the folder or file.
        keys: the keys that may have signed the file.
        signers: the persons who must have signed the file; no folder is read then, and `keys` do not count.

    Raises:
        PolicyErrors: mistakes in the policies. ConfigurationError: the path or the compiled file is unusable.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{path}: no policies there: {reason_of(problem)}") from problem
    if signers is not None:
        demanded: Snapshot = import_module("policyguard.policy_store.signed_by_persons").load_signed(path, signers)
        return demanded
    if stat.S_ISDIR(status.st_mode):
        # The loader's imports cost five times a whole decision process; only this branch pays for them.
        loader: Any = import_module("policyguard.policy_store.folder")
        snapshot: Snapshot = loader.snapshot_of_folder(import_module("pathlib").Path(path))
        return snapshot
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path}: found neither a folder nor a file, expected policies")
    return Snapshot.from_compiled(*open_sealed(read_bounded(path, MAX_BUNDLE_BYTES), keys))


def stamp_of(path: str | Path) -> tuple[tuple[str, int, int, int, int, int], ...]:
    """Compute a fingerprint of all files at this path: names, inodes, sizes and times.

    Cheap enough to compute every second. A file that cannot be inspected is left out, which changes it, too.
    """
    names = [os.fspath(path)]
    for folder, folders, files in os.walk(path):
        names += [os.path.join(folder, name) for name in (*folders, *files)]
    stamps = []
    for name in sorted(names):
        try:
            status = os.stat(name)
        except (OSError, ValueError):
            continue
        stamps.append((name, *version_of(status)))
    return tuple(stamps)
