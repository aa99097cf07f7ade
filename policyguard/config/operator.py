"""Reads the operator's configuration, only if nobody else can change it or any file that it names.

Used by everything that enforces: `run`, `hook`, `verify --job`, the git hooks and `Guard.from_config`. It comes from
`--config FILE` or `/etc/policyguard/policyguard.yaml`; never from the current folder or a variable. Nothing that a
configuration names is read or run before it has passed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from policyguard.config.file import MAX_CONFIG_BYTES, SYSTEM_FILE, Config, parse_config
from policyguard.config.measurement import MeasurementConfig
from policyguard.config.paths import EXEMPT, PATHS, TREES, check_options, job_folders, log_files
from policyguard.errors import ConfigurationError, RequestError
from policyguard.fs.ownership import check_apart, check_owned, check_owned_tree, is_below, read_owned
from policyguard.text import printable_name

_WRAPPER = re.compile(
    r"(?:env|xargs|nohup|nice|ionice|setsid|stdbuf|timeout|sudo|doas|su|runuser|setpriv|chroot|unshare|nsenter|chrt|"
    r"taskset|busybox|script|find|watch|flock|strace|ltrace|time|[gmn]?awk|sed|make)\Z"
)
"""Programs that run what their arguments name, some of them in another folder."""

_INTERPRETER = re.compile(r"[a-z]*sh\Z|fish\Z|(?:python|pypy|perl|ruby|node|php|lua)[0-9.]*\Z")
_TEXT_OPTION = re.compile(r"-[A-Za-z]*[ceErpn]")
"""An option, alone or in a cluster, of which the next word is a program text: `-c`, `-lc`, `-e`."""


def operator_config(
    file: str | Path | None, *, options: Mapping[str, Any] | None = None, job_folder: str | None = None
) -> Config:
    """Read and check the configuration of a verb that enforces.

    Args:
        file: what `--config` names; None for the file of the machine, if there is one.
        options: fields that options of the command line replace; None values are not given.
        job_folder: where the job is; it and its repository must contain nothing that is named. None if there is none.

    Raises:
        ConfigurationError: a file is missing, malformed, or can be changed by another account; the message says which.
    """
    apart = job_folders(job_folder) if job_folder is not None else ()
    if file is None and os.path.lexists(SYSTEM_FILE):
        file = SYSTEM_FILE
    config = Config()
    if file is not None:
        text, resolved = read_owned(file, MAX_CONFIG_BYTES, apart=apart)
        config = parse_config(text, Path(resolved))
    chosen = {name: value for name, value in (options or {}).items() if value is not None}
    check_named(config, apart, replaced=chosen.keys())
    return replace(config, **check_options(chosen, apart))


def check_named(config: Config, apart: Sequence[str] = (), *, replaced: Collection[str] = ()) -> None:
    """Check that only the operator can change each file that a configuration names.

    Args:
        config: as it was read.
        apart: folders that must contain nothing of it.
        replaced: fields that options of the command line replace.

    Raises:
        ConfigurationError: another account could change it, or it is inside one of the folders `apart`.
    """
    for field, path in _named(config):
        if field in PATHS and PATHS[field] in replaced:
            continue
        try:
            (check_owned_tree if field in TREES else check_owned)(path, apart=apart)
        except ConfigurationError as problem:
            raise ConfigurationError(f"{config.source}: {field}: {problem.message}", help=problem.help) from problem


def check_outside(config: Config, job_folder: str) -> None:
    """Check that a configuration, and all files it names, are outside a job's folder and repository.

    Raises:
        ConfigurationError: one of them is inside.
    """
    apart = job_folders(job_folder)
    for path in (config.source, *(path for _, path in _named(config))):
        if path is not None:
            check_apart(os.path.realpath(path), apart, str(path))


def check_declared_paths(config: Config, outputs: Iterable[str], data: Iterable[str]) -> None:
    """Refuse outputs of a job that hold files of the guard, or lie among them, and data that holds its key.

    Args:
        config: the operator's configuration.
        outputs: folders that the job may write, absolute.
        data: paths that it may read, absolute.

    Raises:
        RequestError: one of them is the guard's.
    """
    # INVARIANT I1: a submitter's file cannot give the job the folder of the guard that decides about it.
    own = [(name, os.path.realpath(path), str(path)) for name, path in _named(config)]
    own += [] if config.source is None else [("", os.path.realpath(config.source), str(config.source))]
    for folder in outputs:
        real = os.path.realpath(folder)
        for name, path, label in own:
            # The head file's folder may be that of a whole lab; its files are refused by their own names.
            if is_below(path, real) or (name != "stateDir" and is_below(real, path)):
                raise RequestError(f"output `{folder}`: found `{label}` of the guard there, expected a folder without")
    for path in data:
        if config.key is not None and is_below(os.path.realpath(config.key), os.path.realpath(path)):
            raise RequestError(f"data `{path}`: found the guard's key `{config.key}` there, expected a path without")


def _named(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield each path that the configuration names and the operator must own, with its field."""
    for name, field in PATHS.items():
        path: Path | None = getattr(config, field)
        if path is not None and field not in EXEMPT:
            yield name, path
            if field == "log":
                yield from ((name, Path(sidecar)) for sidecar in log_files(str(path)))
    yield from _measured(config.measurement)


def _measured(measurement: MeasurementConfig) -> Iterator[tuple[str, Path]]:
    environment, quota = measurement.environment, measurement.quota
    if environment is not None:
        for path in (environment.baseline, environment.cache, environment.interpreter):
            if path is not None:
                yield "environment", path
    if measurement.checkpoints.cache is not None:
        yield "checkpoints", measurement.checkpoints.cache
    if quota is not None:
        if quota.file is not None:
            yield "quota", quota.file
        if quota.command:
            yield from (("quota", path) for path in _command_files(quota.command, quota.directory or Path("/")))
    yield from (("watch", folder) for folder in measurement.libraries)
    yield from (("repositories", repository.path) for repository in measurement.repositories)
    yield from (("confinement", Path(path)) for path, rights in measurement.confinement.items() if "x" in rights)
    yield from (("keys", path) for path in measurement.key_files)


def _command_files(command: Sequence[str], directory: Path) -> Iterator[Path]:
    """Yield the program of a command, and each file that an argument names.

    Raises:
        ConfigurationError: the command is a text for a shell, or for `env`, in which files cannot be checked.
    """
    program, *arguments = command
    _check_followed(os.path.basename(program), arguments)
    if "/" in program:
        yield Path(program)
    yield directory
    for word in arguments:
        for name in {word, word.partition("=")[2], *_attached(word)}:
            path = directory / name
            if name and "\0" not in name and (name.startswith("/") or os.path.lexists(path)):
                yield path


def _attached(word: str) -> Iterator[str]:
    """Yield what may be the value of an option in the same word, as in `-Kjob/q.sh` or `-vKjob/q.sh`."""
    if word.startswith("-") and not word.startswith("--"):
        yield from (word[at:] for at in range(2, len(word)))
    yield word.removeprefix("@")


def _check_followed(program: str, arguments: Sequence[str]) -> None:
    """Refuse commands that hide the files they run: texts for an interpreter, and wrappers of other programs."""
    # INVARIANT I1: what a configuration runs is the operator's, so it must be a file that can be checked.
    if _WRAPPER.match(program) is not None or (
        _INTERPRETER.match(program) is not None
        and any(_TEXT_OPTION.match(word) is not None or word in ("--eval", "--print") for word in arguments)
    ):
        raise ConfigurationError(
            f"quota: found the command `{printable_name(program)}` with a text that names what to run, expected the "
            "program itself, or a script",
            help="write the command into a script that only the operator can change, and name the script",
        )
