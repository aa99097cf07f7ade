"""The configuration of a verb, whose fields options replace, and the guard that it describes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from policyguard.attest.keys import PublicKey
from policyguard.cli.options import configured_file
from policyguard.cli.output import say
from policyguard.config.file import (
    FILE_NAME,
    MAX_CONFIG_BYTES,
    VARIABLE,
    Config,
    find_config,
    parse_config,
    read_config,
)
from policyguard.config.operator import check_named, operator_config
from policyguard.config.paths import PATHS, check_options, job_folders
from policyguard.config.trust_file import policy_signers
from policyguard.errors import ConfigurationError, SigningError
from policyguard.evidence.collector import Collectors
from policyguard.fs.ownership import is_trusted_owner, read_owned
from policyguard.fs.sealed import SEAL_PURPOSE
from policyguard.guard import Guard
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE

_NAME_IT = "name the configuration that you trust with --config FILE"


def author_settings(**options: Any) -> Config:
    """Read the configuration for verbs of policy authors, which start nothing and sign no decision.

    Without `--config` it is the file that `POLICYGUARD_CONFIG` names, else that of the current folder. Options of the
    command line replace its own. Prints its warnings on standard error.
    """
    file = configured_file()
    config = find_config(Path(), os.environ.get(VARIABLE)) if file is None else read_config(file)
    return _with_options(config, options)


def settings(*, may_be_of_root: bool = True, **options: Any) -> Config:
    """Read the configuration; without `--config`, only from a file that this account owns.

    Args:
        may_be_of_root: a file of root is accepted, too.
        options: fields that options of the command line replace.

    Raises:
        ConfigurationError: the file of the current folder, or of `POLICYGUARD_CONFIG`, belongs to somebody else.
    """
    _check_owner(may_be_of_root=may_be_of_root)
    return author_settings(**options)


def _check_owner(*, may_be_of_root: bool) -> None:
    if configured_file() is None:
        path = Path(os.environ.get(VARIABLE) or FILE_NAME)
        with suppress(OSError, ValueError):
            owner = path.stat().st_uid
            if owner != os.geteuid() and not (may_be_of_root and is_trusted_owner(owner)):
                raise ConfigurationError(
                    f"{path}: found owner uid {owner}, expected a configuration of this account, uid {os.geteuid()}",
                    help=_NAME_IT,
                )


def decider_settings(**options: Any) -> Config:
    """Read the configuration for a verb that signs decisions, and check every file that it names.

    The current folder's file configures a guard of that folder only. It is not read where an option names policies, key
    or log of another folder, and it is refused where it names them itself, or came with a repository: its
    author must not choose the approvals, quotas and policies of a guard that is elsewhere.

    Raises:
        ConfigurationError: the file is in a repository, belongs to somebody else, or names what others can change.
    """
    chosen = check_options({name: value for name, value in options.items() if value is not None})
    file, config = configured_file() or os.environ.get(VARIABLE), Config()
    # INVARIANT I1: what produces evidence is configured by the operator, not by the folder that a shell is in.
    if not file and any(name in chosen and not _is_here(chosen[name]) for name in ("policies", "key", "log")):
        return _with_options(config, chosen)
    path = Path(file or FILE_NAME)
    _check_owner(may_be_of_root=False)
    if not file:
        _check_no_repository(path)
    if file or os.path.lexists(path):
        text, resolved = read_owned(path, MAX_CONFIG_BYTES)
        # A plain name in the current folder is no way through links, and keeps messages short.
        is_here = path.name == str(path) and resolved == os.path.join(os.path.realpath("."), path.name)
        config = parse_config(text, path if is_here else Path(resolved))
    if not file:
        _check_current_folder(config, path)
    check_named(config, replaced=chosen.keys())
    return _with_options(config, chosen)


def _is_here(path: str | Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath("."))


def _check_no_repository(path: Path) -> None:
    folders = job_folders(os.getcwd())
    if len(folders) > 1 and os.path.lexists(path):
        raise ConfigurationError(
            f"{path}: found in the repository `{folders[1]}`, whose contents may be somebody else's", help=_NAME_IT
        )


def _check_current_folder(config: Config, path: Path) -> None:
    for name, value in (("policies", config.policies), ("key", config.key), ("log", config.log)):
        if value is not None and not _is_here(value):
            raise ConfigurationError(f"{path}: {name}: found `{value}`, expected a path in this folder", help=_NAME_IT)


def operator_settings(job_folder: str | None, **options: Any) -> Config:
    """Read the configuration for a verb that enforces: only `--config` or the machine's file.

    Args:
        job_folder: the folder of the job, which may hold nothing of the operator; None without a job.
        options: fields that options of the command line replace.

    Raises:
        ConfigurationError: somebody other than the operator could change the file, or something that it names.
    """
    config = operator_config(configured_file(), options=options, job_folder=job_folder)
    return _with_options(config, {})


def _with_options(config: Config, options: Mapping[str, Any]) -> Config:
    for warning in config.warnings:
        say(f"policyguard: {warning}", err=True)
    return replace(config, **{name: value for name, value in options.items() if value is not None})


def needed(config: Config, name: str, option: str | None = None) -> Path:
    """Return a configured path; raise if it is not configured.

    Args:
        config: the configuration.
        name: the field of the configuration.
        option: the option that sets it, by default `--NAME`.

    Raises:
        ConfigurationError: it is not configured.
    """
    path: Path | None = getattr(config, name)
    if path is None:
        word = option or f"--{name}"
        key = next(key for key, field in PATHS.items() if field == name)
        raise ConfigurationError(
            f"{word} is missing, expected a path", help=f"give {word}, or --config FILE with `{key}:` in it"
        )
    return path


def snapshot_keys(config: Config, path: Path) -> tuple[PublicKey, ...]:
    """Return the keys that may sign a compiled snapshot at this path; none for a folder."""
    return () if path.is_dir() else (read_private_key(needed(config, "key"), passphrase=read_passphrase()).public,)


def open_guard(config: Config, *, collectors: Collectors = (), advisory: bool = False) -> Guard:
    """Open the guard that this configuration describes.

    Args:
        config: the configuration.
        collectors: measure the job or request.
        advisory: the guard cannot stop the job; decisions say so.
    """
    return Guard.open(
        needed(config, "policies"),
        key=needed(config, "key"),
        log=needed(config, "log"),
        state_dir=config.state_dir,
        audience=config.audience or DEFAULT_AUDIENCE,
        lifetime_s=config.lifetime_s,
        collectors=collectors,
        advisory=advisory,
        passphrase=read_passphrase(),
        reserve=config.measurement.reserve,
        policy_signers=policy_signers(config),
    )


def cache_seal(config: Config, *, is_required: bool) -> bytes | None:
    """Derive the key that seals digest caches; None without a private key.

    Raises:
        SigningError: the key is required, and cannot be used.
    """
    if config.key is None:
        return None
    try:
        return read_private_key(config.key, passphrase=read_passphrase()).derive(SEAL_PURPOSE)
    except SigningError:
        if is_required:
            raise
        return None
