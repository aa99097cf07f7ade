"""Options that verbs share, completed from `policyguard.yaml`, and the guard they describe."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from policyguard.attest.keys import PublicKey
from policyguard.cli.output import say
from policyguard.config.file import PATHS, VARIABLE, Config, find_config
from policyguard.errors import ConfigurationError, RequestError, SigningError
from policyguard.evidence.collector import Collectors
from policyguard.fs import write as fs_write
from policyguard.fs.safe_open import read_bounded, read_start
from policyguard.fs.sealed import SEAL_PURPOSE
from policyguard.guard import Guard
from policyguard.keyfiles import read_passphrase, read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE
from policyguard.model.request import MAX_REQUEST_BYTES, Request

F = TypeVar("F", bound=Callable[..., Any])

MAX_NOTE_FILE_BYTES = 65_536
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


def guard_options(command: F) -> F:
    """Add the options that describe a guard to a command."""
    for option in (audience_option, log_option, key_option, policies_option):
        command = option(command)
    return command


def settings(**options: Any) -> Config:
    """Read the configuration, replace values by options of the command line, and print warnings."""
    config = find_config(Path(), os.environ.get(VARIABLE))
    for warning in config.warnings:
        say(f"policyguard: {warning}", err=True)
    return replace(config, **{name: value for name, value in options.items() if value is not None})


def needed(config: Config, name: str, option: str | None = None) -> Path:
    """Return a path that must be configured.

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
            f"{word} is missing, expected a path", help=f"give {word}, or `{key}:` in a policyguard.yaml"
        )
    return path


def snapshot_keys(config: Config, path: Path) -> tuple[PublicKey, ...]:
    """Choose the keys that may have signed a compiled snapshot at this path; none for a folder."""
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
    """Derive the key that seals caches of digests from the private key; None without a private key.

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
    """Read a file that the user named: a request, a job or a signed decision.

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
        raise RequestError(f"standard input cannot be read: {(problem.strerror or '').lower()}") from problem


def read_notes(checkpoints: Sequence[Path]) -> list[bytes]:
    """Read the signed checkpoints of a log from files."""
    return [read_bounded(path, MAX_NOTE_FILE_BYTES) for path in checkpoints]


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a new file completely or not at all; an existing file is never overwritten.

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
    """Replace a regular file, completely and durably or not at all.

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
    """Check that a path names a regular file, or nothing in a folder that exists.

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
