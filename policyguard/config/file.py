"""The configuration file: `--config FILE`, or `/etc/policyguard/policyguard.yaml`.

Verbs that enforce read no other (`config/operator.py` checks who can change it). For a policy author's verbs it is also
`policyguard.yaml` in the current folder, or the file that `POLICYGUARD_CONFIG` names.

    policies: policies            # a folder, or a compiled snapshot
    key: guard.key                # signs decisions and log checkpoints
    log: audit.db                 # the decision log, embedded SQLite
    stateDir: /var/lib/policyguard  # the head of the log, which shows a log that was exchanged; by default beside it
    witness: "NAME+HASH+KEY"      # whose countersignature `audit accept-reset` needs
    trust: trust.yaml             # what a verifier accepts
    audience: cluster-a           # the cluster or host that decisions are for
    lifetime: 15m                 # how long a decision may be used
    approvals: approvals          # a folder of signed approvals
    approvalLog: audit.db         # a log with approvals as entries: the decision log, or another one
    allowedSigners: signers       # SSH keys that sign approvals and commits, beside the keys of `Persons`
    revokedKeys: revoked          # public keys and fingerprints that are not accepted any more
    gpgKeyring: keyring.gpg       # the only GPG keys that sign commits, as `gpg --export` writes them
    reviewedCommits: reviewed     # ids of commits and trees that were reviewed before
    signedCommits: required       # an unsigned commit is work of an unknown person
    environment: {baseline: FILE, keys: ["ed25519:..."], threshold: 1, cache: FILE, interpreter: FILE}
    checkpoints: {producers: {"service:run-1234": ["ed25519:..."]}, classes: [lab.config.Settings], cache: FILE}
    quota: {file: FILE}           # or {command: [PROGRAM, ARGUMENT...]}; reserves resource.gpus, see `reserve:`
    grants: {folder: grants, keys: ["ed25519:..."]}
    watch: {libraries: [/shared/kernels]}
    confinement: {/opt/cuda: rx, /data: r}
    repositories: {team/vision/trainer: {path: /srv/git/trainer.git, refs: [refs/heads/main]}}
    accounts: {asmith: user:alice}  # the subject of an account of this machine; `user:LOGIN` if not listed
    speakFor: [slurm]             # accounts that may name another subject with `--subject`

`config/measurement.py` reads everything from `environment:` on.
Paths are relative to the configuration file. An option given on the command line wins. Reads one file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from policyguard.config.measurement import NOTHING_CONFIGURED, SECTIONS, MeasurementConfig, with_section
from policyguard.config.paths import PATHS
from policyguard.errors import ConfigurationError, PolicyErrors
from policyguard.fs.safe_open import read_bounded
from policyguard.model.decision import AUDIENCE, DEFAULT_LIFETIME_S, MAX_LIFETIME_S, is_audience
from policyguard.policy.problems import nearest
from policyguard.policy.reader import field_span, read_value
from policyguard.text import quoted, quoted_list
from policyguard.values import FrozenMap, Value, name_of, parse_duration_s

FILE_NAME = "policyguard.yaml"
SYSTEM_FILE = Path("/etc/policyguard/policyguard.yaml")
"""The configuration file of the machine, read if there is no `--config`."""

VARIABLE = "POLICYGUARD_CONFIG"
MAX_CONFIG_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The configuration of one run; None means not configured. `source` is the file it was read from, if any."""

    policies: Path | None = None
    key: Path | None = None
    log: Path | None = None
    state_dir: Path | None = None
    witness: str | None = None
    trust: Path | None = None
    audience: str | None = None
    lifetime_s: int = DEFAULT_LIFETIME_S
    approvals: Path | None = None
    approval_log: Path | None = None
    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    gpg_keyring: Path | None = None
    reviewed_commits: Path | None = None
    signed_commits: bool = False
    source: Path | None = None
    measurement: MeasurementConfig = NOTHING_CONFIGURED
    warnings: tuple[str, ...] = ()
    """Lines for the operator, such as former names of options."""


FORMER = {"accepted": "reviewedCommits"}
"""Former names of options, accepted for one release with a warning."""

_FIELDS = (*PATHS, "witness", "audience", "lifetime", "signedCommits", *SECTIONS)


def find_config(directory: Path, variable: str | None) -> Config:
    """Read the configuration file that `variable` names, else the one in the directory, else none.

    Raises:
        ConfigurationError: the file cannot be read, or an option is unknown or malformed.
    """
    if variable:
        return read_config(Path(variable))
    path = directory / FILE_NAME
    return read_config(path) if os.path.lexists(path) else Config()


def read_config(path: Path) -> Config:
    """Read a configuration file; its paths are relative to it.

    Raises:
        ConfigurationError: the file cannot be read, or an option is unknown or malformed.
    """
    return parse_config(read_bounded(path, MAX_CONFIG_BYTES), path)


def parse_config(text: bytes, path: Path) -> Config:
    """Parse the text of the configuration file at `path`.

    Raises:
        ConfigurationError: an option is unknown or malformed, or a public key that it names cannot be read.
    """
    try:
        data = read_value(text, str(path))
    except PolicyErrors as problems:
        raise ConfigurationError(str(problems.errors[0]), help=problems.errors[0].help) from problems
    if not isinstance(data, FrozenMap):
        raise ConfigurationError(f"{path}: found {name_of(data)}, expected a map with {quoted_list(_FIELDS)}")
    warnings = tuple(
        f"{path}: `{name}` is now `{FORMER[name]}`; the former name goes with the next release"
        for name in data
        if name in FORMER
    )
    for name in FORMER.keys() & data.keys():
        if FORMER[name] in data:
            raise ConfigurationError(f"{path}: found both `{name}` and `{FORMER[name]}`, expected `{FORMER[name]}`")
    data = FrozenMap({FORMER.get(name, name): value for name, value in data.items()})
    for name in data:
        if name not in _FIELDS:
            near = nearest(name, _FIELDS)
            raise ConfigurationError(
                f"{field_span(text, str(path), [name])}: unknown option `{name}`, "
                f"expected one of {quoted_list(_FIELDS)}",
                help=f"did you mean `{near}:`?" if near else None,
            )
    config = Config(source=path, warnings=warnings)
    for name, value in data.items():
        if name in SECTIONS:
            config = replace(config, measurement=with_section(config.measurement, name, value, path))
        else:
            config = _with(config, name, _text(path, name, value))
    return config


def _with(config: Config, name: str, text: str) -> Config:
    base = config.source.parent if config.source is not None else Path()
    if name in PATHS:
        fields: dict[str, Any] = {PATHS[name]: base / text}
        return replace(config, **fields)
    if name == "witness":
        return replace(config, witness=text)
    if name == "audience":
        if not is_audience(text):
            raise ConfigurationError(f"{config.source}: audience: found {quoted(text)}, expected {AUDIENCE}")
        return replace(config, audience=text)
    if name == "signedCommits":
        if text != "required":
            raise ConfigurationError(f"{config.source}: signedCommits: found `{text}`, expected `required`")
        return replace(config, signed_commits=True)
    return replace(config, lifetime_s=_lifetime_s(config, text))


def _lifetime_s(config: Config, text: str) -> int:
    try:
        lifetime_s = parse_duration_s(text)
    except ValueError as problem:
        raise ConfigurationError(f"{config.source}: lifetime: {problem}") from None
    if not 0 < lifetime_s <= MAX_LIFETIME_S:
        raise ConfigurationError(f"{config.source}: lifetime: found `{text}`, expected more than 0 and at most `366d`")
    return lifetime_s


def _text(path: Path, name: str, value: Value) -> str:
    if type(value) is not str or not value:
        result = "empty text" if value == "" else name_of(value)
        expected = "a duration such as `15m`" if name == "lifetime" else "text"
        raise ConfigurationError(f"{path}: {name}: found {result}, expected {expected}")
    return value
