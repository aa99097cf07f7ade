"""The paths that a configuration and options name, and their check on a command line. Imports no YAML.

A hook that is given every path as an option pays for nothing but this check.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policyguard.errors import ConfigurationError
from policyguard.fs.ownership import check_owned, check_owned_tree, check_resolved
from policyguard.fs.private_files import SHM, WAL

PATHS = {
    "policies": "policies",
    "key": "key",
    "log": "log",
    "stateDir": "state_dir",
    "trust": "trust",
    "approvals": "approvals",
    "approvalLog": "approval_log",
    "allowedSigners": "allowed_signers",
    "revokedKeys": "revoked_keys",
    "gpgKeyring": "gpg_keyring",
    "reviewedCommits": "reviewed_commits",
}
"""Each path of the configuration file, and the field that it fills."""

EXEMPT = frozenset({"approvals", "approval_log"})
"""Fields whose files anybody may write, because every entry in them is signed."""

TREES = ("policies", "reviewedCommits", "reviewed_commits")
"""Fields that may name a folder of which every file counts."""


def check_options(options: Mapping[str, Any], apart: Sequence[str] = ()) -> dict[str, Any]:
    """Check that only the operator can change the paths that options name; return the options, with links resolved.

    Only the returned paths may be opened: a link on the way of the named ones may lead elsewhere a moment later.

    Raises:
        ConfigurationError: another account could change one, or it is inside one of the folders `apart`.
    """
    checked = dict(options)
    for field in PATHS.values():
        path = options.get(field)
        if path is None or field in EXEMPT:
            continue
        try:
            # INVARIANT I1: what was checked is what is opened.
            checked[field] = type(path)(_CHECKS.get(field, check_resolved)(path, apart=apart))
            if field in TREES:
                check_owned_tree(checked[field], apart=apart)
        except ConfigurationError as problem:
            option = f"--{field.replace('_', '-')}"
            raise ConfigurationError(f"{option}: {problem.message}", help=problem.help) from problem
    return checked


def _check_named(path: str | os.PathLike[str], *, apart: Sequence[str] = ()) -> str:
    """Check a path and return it with only its folder resolved: who reads a key refuses one that is a link."""
    folder, name = os.path.split(path)
    named = os.path.join(os.path.realpath(folder), name)
    check_owned(named, apart=apart)
    return named


def _check_log(path: str | os.PathLike[str], *, apart: Sequence[str] = ()) -> str:
    """Check a log and its sidecars; the head file has the name of the log, so that is kept."""
    named = _check_named(path, apart=apart)
    for sidecar in log_files(os.path.realpath(named)):
        check_owned(sidecar)
    return named


_CHECKS = {"key": _check_named, "log": _check_log}


def job_folders(folder: str) -> tuple[str, ...]:
    """Return the folder of a job, and the top of the repository that contains it, if any."""
    from policyguard.git.directory import repository_root  # a hook without --measure needs no git

    resolved, root = os.path.realpath(folder), repository_root(folder)
    return (resolved,) if root is None else (resolved, root)


def log_files(log: str) -> Iterator[str]:
    """Yield the files that SQLite keeps beside a log."""
    for suffix in (WAL, SHM, "-journal"):
        if os.path.lexists(log + suffix):
            yield log + suffix
