"""Options that several verbs share, completed from the configuration, and the guard that they describe."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from policyguard.attest.keys import PublicKey
from policyguard.cli.output import say
from policyguard.config.file import (
    FILE_NAME,
    MAX_CONFIG_BYTES,
    VARIABLE,
    Config,
    find_config,
    read_config,
)
from policyguard.config.operator import check_named, operator_config
from policyguard.config.paths import PATHS, check_options, job_folders
from policyguard.errors import ConfigurationError, RequestError, SigningError
from policyguard.evidence.collector import Collectors
from policyguard.fs import write as fs_write
from policyguard.fs.ownership import is_trusted_owner, read_owned
from policyguard.fs.safe_open import read_bounded, read_start, reason_of
from policyguard.fs.sealed import SEAL_PURPOSE
from policyguard.guard import Guard
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE
from policyguard.model.request import MAX_REQUEST_BYTES, Request

F = TypeVar("F", bound=Callable[..., Any])

MAX_NOTE_FILE_BYTES = 65_536
_CONFIG = "policyguard.config"
_FILE = click.Path(path_type=Path)

policies_option = click.option("--policies", type=_FILE, help="Policy folder or compiled snapshot.")
key_option = click.option("--key", type=_FILE, help="Private key file that signs.")
log_option = click.option("--log", type=_FILE, help="Decision log, an SQLite file.")
state_dir_option = click.option("--state-dir", type=_FILE, help="Folder of the log's head file.")
trust_option = click.option("--trust", type=_FILE, help="What a verifier accepts, trust.yaml.")
audience_option = click.option("--audience", help="The cluster or host that decisions are for.")
observed_option = click.option(
    "--observed", multiple=True, metavar="PATH", help="An attribute that the calling platform itself saw."
)
checkpoint_option = click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=_FILE,
    help="A checkpoint kept from earlier; the log must still contain that tree.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")


def confinement_options(command: F) -> F:
    """Add the options that say how a job is confined to a command."""
    for option in (
        click.option("--data", multiple=True, metavar="NAME=PATH", help="What a confined job may read."),
        click.option("--output", "outputs", multiple=True, metavar="NAME=DIR", help="What a confined job may write."),
        click.option("--confine", is_flag=True, help="Start CMD under Landlock: the kernel refuses all but its own."),
    ):
        command = option(command)
    return command


def take_confinement(chosen: dict[str, Any]) -> dict[str, Any]:
    """Take the options of `confinement_options` out of the others."""
    return {name: chosen.pop(name) for name in ("confine", "outputs", "data")}


def guard_options(command: F) -> F:
    """Add the options that describe a guard to a command."""
    for option in (audience_option, log_option, key_option, policies_option):
        command = option(command)
    return command


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
    if configured_file() is None:
        path = Path(os.environ.get(VARIABLE) or FILE_NAME)
        with suppress(OSError, ValueError):
            owner = path.stat().st_uid
            if owner != os.geteuid() and not (may_be_of_root and is_trusted_owner(owner)):
                raise ConfigurationError(
                    f"{path}: found owner uid {owner}, expected a configuration of this account, uid {os.geteuid()}",
                    help="name the configuration that you trust with --config FILE",
                )
    return author_settings(**options)


def decider_settings(**options: Any) -> Config:
    """Read the configuration for a verb that signs decisions, and check every file that it names.

    The current folder's file configures a guard of that folder only. It is not read where an option names policies, key
    or log of another folder, and it is refused where it names them itself, or came with a repository: its
    author must not choose the approvals, quotas and policies of a guard that is elsewhere.

    Raises:
        ConfigurationError: the file is in a repository, belongs to somebody else, or names what others can change.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    if configured_file() is None and not os.environ.get(VARIABLE):
        # INVARIANT I1: what produces evidence is configured by the operator, not by the folder that a shell is in.
        if any(name in chosen and not _is_here(chosen[name]) for name in ("policies", "key", "log")):
            check_options(chosen)
            return _with_options(Config(), options)
        _check_current_folder(Path(FILE_NAME))
    config = settings(may_be_of_root=False, **options)
    if config.source is not None:
        read_owned(config.source, MAX_CONFIG_BYTES)
    check_named(config, replaced=chosen.keys())
    check_options(chosen)
    return config


def _is_here(path: str | Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath("."))


def _check_current_folder(path: Path) -> None:
    if not os.path.lexists(path):
        return
    help = "name the configuration that you trust with --config FILE"
    folders = job_folders(os.getcwd())
    if len(folders) > 1:
        raise ConfigurationError(
            f"{path}: found in the repository `{folders[1]}`, whose contents may be somebody else's", help=help
        )
    config = find_config(Path(), None)
    for name, value in (("policies", config.policies), ("key", config.key), ("log", config.log)):
        if value is not None and not _is_here(value):
            raise ConfigurationError(f"{path}: {name}: found `{value}`, expected a path in this folder", help=help)


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


def add_config_option(command: click.Command) -> click.Command:
    """Add `--config` to a verb and to every subcommand; `configured_file` returns its value."""
    if isinstance(command, click.Group):
        for verb in command.commands.values():
            add_config_option(verb)
    elif not any(parameter.name == "config" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--config"],
                type=_FILE,
                expose_value=False,
                callback=_remember,
                help="The configuration; by default that of the machine or, for some verbs, of the current folder.",
            )
        )
    return command


def _remember(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:  # noqa: ARG001
    context.meta[_CONFIG] = value
    return value


def configured_file() -> Path | None:
    """Return the file that `--config` names; None if the option is missing."""
    context = click.get_current_context(silent=True)
    file: Path | None = context.meta.get(_CONFIG) if context is not None else None
    return file


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


def read_request(source: str) -> Request:
    """Read a request from a file, or from standard input for `-`."""
    if source == "-":
        return Request.from_json(_standard_input())
    return Request.from_json(read_input(Path(source), MAX_REQUEST_BYTES + 1, read_start))


def read_input(path: Path, max_bytes: int, read: Callable[[Path, int], bytes] = read_bounded) -> bytes:
    """Read a file that the user names: a request, a job or a signed decision.

    Args:
        path: the file.
        max_bytes: the most that is read.
        read: reads the bytes of a file.

    Raises:
        RequestError: it cannot be read; that is bad data (65), while a file of the guard is configuration (78).
    """
    try:
        return read(path, max_bytes)
    except ConfigurationError as problem:
        raise RequestError(problem.message.removeprefix(f"{path}: "), path=str(path), help=problem.help) from problem


def _standard_input() -> bytes:
    try:
        return sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
    except OSError as problem:
        raise RequestError(f"standard input cannot be read: {reason_of(problem)}") from problem


def read_notes(checkpoints: Sequence[Path]) -> list[bytes]:
    """Read signed checkpoints from files."""
    return [read_bounded(path, MAX_NOTE_FILE_BYTES) for path in checkpoints]


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a new file completely or not at all; never overwrite one.

    Args:
        path: the file.
        data: the content.
        mode: the permissions.

    Raises:
        ConfigurationError: the file exists, or cannot be written.
    """
    try:
        fs_write.create_file(path, data, mode=mode)
    except FileExistsError:
        raise ConfigurationError(f"{path}: exists already, expected a new path") from None
    except (OSError, ValueError) as problem:
        raise _unwritable(path, problem) from problem


def replace_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a regular file completely and durably, or not at all.

    Args:
        path: the file.
        data: the content.
        mode: the permissions.

    Raises:
        ConfigurationError: the path does not name a regular file, or cannot be written.
    """
    check_replaceable(path)
    try:
        fs_write.replace_file(path, data, mode=mode)
    except (OSError, ValueError) as problem:
        raise _unwritable(path, problem) from problem


def check_replaceable(path: Path) -> None:
    """Check that a path is a regular file, or a new name in an existing folder.

    Asked before a decision is made whose answer is to be written there.

    Raises:
        ConfigurationError: the path names something else.
    """
    try:
        fs_write.check_replaceable(path)
    except (OSError, ValueError) as problem:
        if getattr(problem, "errno", None) == errno.EINVAL:
            raise ConfigurationError(f"{path}: {getattr(problem, 'strerror', problem)}") from problem
        raise _unwritable(path, problem) from problem


def _unwritable(path: Path, problem: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: cannot be written: {(getattr(problem, 'strerror', '') or str(problem)).lower()}"
    )
