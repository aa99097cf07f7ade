"""Builds what `Guard.from_config` opens from a configuration file: policies, key, log and options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from policyguard.assembly.jobs import Report, configured_collectors, log_warning
from policyguard.attest.keys import PrivateKey
from policyguard.config.file import Config
from policyguard.config.operator import check_outside, operator_config
from policyguard.config.trust_file import policy_signers
from policyguard.errors import ConfigurationError
from policyguard.fs.sealed import SEAL_PURPOSE
from policyguard.keyfiles import read_private_key
from policyguard.model.decision import DEFAULT_AUDIENCE


class GuardParts(NamedTuple):
    """The parts of a guard; `options` are keyword arguments of `Guard`."""

    policies: Path
    key: PrivateKey
    log: Path
    options: Mapping[str, Any]


def configured_guard(path: str | Path, passphrase: bytes | None = None, report: Report | None = None) -> GuardParts:
    """Read the configuration of a guard, with the collectors of `policyguard run`.

    Args:
        path: the configuration file.
        passphrase: of the private key, if the file is encrypted.
        report: takes a line that a person should read; by default the logger `policyguard`.

    Raises:
        ConfigurationError, SigningError: a file cannot be used, or does not name what a guard needs.
    """
    config, report = operator_config(path), report or log_warning
    policies, key_file, log = [_named(config, name, path) for name in ("policies", "key", "log")]
    key = read_private_key(key_file, passphrase=passphrase)
    for warning in config.warnings:
        report(warning)
    options = {
        "state_dir": config.state_dir,
        "audience": config.audience or DEFAULT_AUDIENCE,
        "lifetime_s": config.lifetime_s,
        "collectors": configured_collectors(config, seal=lambda: key.derive(SEAL_PURPOSE), report=report),
        "reserve": config.measurement.reserve,
        "policy_signers": policy_signers(config),
        "accounts": (config.measurement.accounts, config.measurement.speak_for),
        "check_folder": lambda folder: check_outside(config, folder),
    }
    return GuardParts(policies, key, log, options)


def _named(config: Config, name: str, source: str | Path) -> Path:
    named: Path | None = getattr(config, name)
    if named is None:
        raise ConfigurationError(f"{source}: `{name}` is missing, expected a path")
    return named
