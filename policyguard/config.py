"""What saves typing: the `policyguard.yaml` beside the work or the one `POLICYGUARD_CONFIG` names.

    policies: policies            # a folder, or a compiled snapshot
    key: guard.key                # signs decisions and log checkpoints
    log: audit.db                 # the decision log, embedded SQLite
    trust: trust.yaml             # what a verifier accepts
    audience: cluster-a           # whom decisions are for
    lifetime: 15m                 # how long a decision may be used

Paths are relative to the configuration file. An option given on the command line wins. Reads one file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from policyguard.errors import ConfigurationError, PolicyErrors
from policyguard.model.decision import DEFAULT_LIFETIME_S
from policyguard.policy.reader import read_value
from policyguard.snapshots import read_bounded
from policyguard.values import FrozenMap, Value, name_of, parse_duration_s

FILE_NAME = "policyguard.yaml"
VARIABLE = "POLICYGUARD_CONFIG"
MAX_CONFIG_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of one run; None means not given. `source` is the file they came from, if any."""

    policies: Path | None = None
    key: Path | None = None
    log: Path | None = None
    trust: Path | None = None
    audience: str | None = None
    lifetime_s: int = DEFAULT_LIFETIME_S
    source: Path | None = None


_PATHS = ("policies", "key", "log", "trust")
_FIELDS = (*_PATHS, "audience", "lifetime")


def find_config(directory: Path, variable: str | None) -> Config:
    """Return the configuration that `variable` names, else the one in the directory, else an empty one.

    Raises:
        ConfigurationError: the file named does not exist, cannot be read, or says something it cannot say.
    """
    if variable:
        return read_config(Path(variable))
    path = directory / FILE_NAME
    return read_config(path) if os.path.lexists(path) else Config()


def read_config(path: Path) -> Config:
    """Return what this file says, its paths made relative to it."""
    text = read_bounded(path, MAX_CONFIG_BYTES)
    try:
        data = read_value(text, str(path))
    except PolicyErrors as problems:
        raise ConfigurationError(str(problems.errors[0]), help=problems.errors[0].help) from problems
    if not isinstance(data, FrozenMap):
        raise ConfigurationError(f"{path}: found {name_of(data)}, expected a map with {_listed(_FIELDS)}")
    for name in data:
        if name not in _FIELDS:
            raise ConfigurationError(f"{path}: unknown option `{name}`, expected one of {_listed(_FIELDS)}")
    config = Config(source=path)
    for name, value in data.items():
        config = _with(config, name, _text(path, name, value))
    return config


def _with(config: Config, name: str, text: str) -> Config:
    base = config.source.parent if config.source is not None else Path()
    match name:
        case "policies":
            return replace(config, policies=base / text)
        case "key":
            return replace(config, key=base / text)
        case "log":
            return replace(config, log=base / text)
        case "trust":
            return replace(config, trust=base / text)
        case "audience":
            return replace(config, audience=text)
        case _:
            return replace(config, lifetime_s=_lifetime_s(config, text))


def _lifetime_s(config: Config, text: str) -> int:
    try:
        lifetime_s = parse_duration_s(text)
    except ValueError as problem:
        raise ConfigurationError(f"{config.source}: lifetime: {problem}") from None
    if lifetime_s <= 0:
        raise ConfigurationError(f"{config.source}: lifetime: found `{text}`, expected more than none")
    return lifetime_s


def _text(path: Path, name: str, value: Value) -> str:
    if type(value) is not str or not value:
        raise ConfigurationError(f"{path}: {name}: found {name_of(value)}, expected text")
    return value


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
