"""Files that the user of a verb names: read within a bound, written whole."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from policyguard.audit.checkpoint import read_checkpoint
from policyguard.errors import ConfigurationError, RequestError, VerificationError
from policyguard.fs import write as fs_write
from policyguard.fs.safe_open import read_bounded, read_start, reason_of
from policyguard.model.request import MAX_REQUEST_BYTES, Request
from policyguard.text import quoted, quoted_list

MAX_NOTE_FILE_BYTES = 65_536


REQUEST = "REQUEST | SUBJECT ACTION RESOURCE [NAME=VALUE]..."
"""How verbs name a request in their usage."""


def read_request(*arguments: str) -> Request:
    """Read a request: from a file, JSON or YAML by its name; from standard input for `-`; or from arguments.

    These are `SUBJECT ACTION RESOURCE` and `NAME=VALUE` for the claimed properties of the resource, or
    `subject.NAME=VALUE` and `context.NAME=VALUE`.

    Raises:
        RequestError: the request is malformed, or the file cannot be read.
        UsageError: the arguments have another form.
    """
    if len(arguments) != 1:
        return _request_of_arguments(arguments)
    source = arguments[0]
    if source == "-":
        return Request.from_json(_standard_input())
    data = read_input(Path(source), MAX_REQUEST_BYTES + 1, read_start)
    if not source.endswith((".yaml", ".yml")):
        return Request.from_json(data)
    return Request.from_data(_yaml_value(data, source))


def _request_of_arguments(arguments: Sequence[str]) -> Request:
    if len(arguments) < 3:
        raise click.UsageError(f"found {len(arguments)} words, expected {REQUEST}")
    groups: dict[str, dict[str, object]] = {"subject": {}, "resource": {}, "context": {}}
    for word in arguments[3:]:
        path, equals, text = word.partition("=")
        owner, dot, name = path.rpartition(".")
        owner = owner if dot else "resource"
        if not equals or not name or owner not in groups:
            raise click.UsageError(
                f"found {quoted(word)}, expected NAME=VALUE such as `gpus=8`, `context.ticket=OPS-7`"
            )
        if name in groups[owner]:
            raise click.UsageError(f"found {quoted(path)} twice, expected each property once")
        groups[owner][name] = _yaml_value(text.encode(), path)
    subject, resource = (
        _entity(text, groups[owner]) for owner, text in (("subject", arguments[0]), ("resource", arguments[2]))
    )
    return Request.from_data(
        {"subject": subject, "action": {"name": arguments[1]}, "resource": resource, "context": groups["context"]}
    )


def _entity(text: str, properties: Mapping[str, object]) -> dict[str, object]:
    type_, colon, id_ = text.partition(":")
    if not colon:
        raise click.UsageError(f"found {quoted(text)}, expected TYPE:ID such as `user:alice`")
    return {"type": type_, "id": id_, "properties": properties}


def _yaml_value(data: bytes, name: str) -> object:
    # Requests are mostly JSON; only those that need YAML pay for loading it.
    from policyguard.policy.reader import read_value

    return read_value(data, name)


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


def read_notes(checkpoints: Sequence[Path], origins: Collection[str]) -> list[bytes]:
    """Read signed checkpoints of these logs from files, without verifying them.

    Args:
        checkpoints: the files.
        origins: the names of the logs.

    Raises:
        RequestError: a file is no checkpoint, or one of another log, and so says nothing about these.
    """
    notes = [read_bounded(path, MAX_NOTE_FILE_BYTES) for path in checkpoints]
    for path, note in zip(checkpoints, notes, strict=True):
        expected = f"expected a checkpoint of log {quoted_list(origins)}"
        try:
            origin = read_checkpoint(note).origin
        except VerificationError as problem:
            message = f"found no checkpoint, {expected}: {problem.message}"
        else:
            if origin in origins:
                continue
            message = f"found a checkpoint of log {quoted(origin)}, {expected}"
        raise RequestError(message, path=str(path), help="`policyguard audit prove > FILE` keeps one")
    return notes


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
        raise _exists(path) from None
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


@contextmanager
def writing(path: Path, *, replace: bool, mode: int = 0o644, help: str | None = None) -> Iterator[BinaryIO]:
    """Yield a file to write to; it gets its name when the block ends without an error, and is gone otherwise.

    Args:
        path: the file.
        replace: replace a regular file of that name; otherwise the name must be new.
        mode: the permissions.
        help: what to do about a file that exists.

    Raises:
        ConfigurationError: the file exists, or cannot be written.
    """
    if replace:
        check_replaceable(path)
    elif os.path.lexists(path):
        raise _exists(path, help)
    try:
        with fs_write.open_new(path, replace=replace, mode=mode) as file:
            yield file
    except FileExistsError:
        raise _exists(path, help) from None
    except OSError as problem:
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


def _exists(path: Path, help: str | None = None) -> ConfigurationError:
    return ConfigurationError(f"{path}: exists already, expected a new path", help=help)


def _unwritable(path: Path, problem: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: cannot be written: {(getattr(problem, 'strerror', '') or str(problem)).lower()}"
    )
