"""Reads a trust file. Who signs policies is part of it, for those who decide and for those who verify."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from policyguard.attest.trust import PolicySigners, Trust, parse_trust
from policyguard.config.file import Config
from policyguard.errors import ConfigurationError, PolicyErrors
from policyguard.fs.safe_open import read_bounded
from policyguard.policy.reader import read_value

MAX_TRUST_BYTES = 262_144


def read_trust(path: Path) -> Trust:
    """Read a trust file, YAML or JSON.

    Raises:
        ConfigurationError: the file cannot be read or used; the message names the field.
    """
    try:
        data = read_value(read_bounded(path, MAX_TRUST_BYTES), str(path))
    except PolicyErrors as problems:
        raise ConfigurationError(str(problems.errors[0]), help=problems.errors[0].help) from problems
    try:
        trust = parse_trust(data)
    except ConfigurationError as problem:
        raise ConfigurationError(f"{path}: {problem.message}", help=problem.help) from problem
    if trust.revocation is None:
        return trust
    # Like every path of a configuration, relative to the file that names it, never to the current folder.
    source = str(path.absolute().parent / trust.revocation.source)
    return replace(trust, revocation=replace(trust.revocation, source=source))


def policy_signers(config: Config) -> PolicySigners | None:
    """Return the persons who must have signed the policies, as the trust file says; None if it demands nobody.

    Raises:
        ConfigurationError: the trust file that the configuration names cannot be read.
    """
    return None if config.trust is None else read_trust(config.trust).policy_signers
