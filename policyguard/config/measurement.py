"""The configuration of measurements: environment baseline, producers, quotas, grants, running jobs.

    environment: {baseline: FILE, keys: [KEY...], threshold: N?, cache: FILE?, interpreter: FILE?}
    checkpoints: {producers: {TYPE:ID: [KEY...]}?, classes: [MODULE.NAME...]?, cache: FILE?}
    quota: {file: FILE | command: [WORD...], reserve: PATH? | none, by: resource.domain?}
    grants: {folder: FOLDER, keys: [KEY...]}
    watch: {libraries: [FOLDER...]}
    confinement: {PATH: r | rw | rx}
    repositories: {ID: {path: FOLDER, refs: [PATTERN...]}}
    accounts: {LOGIN: TYPE:ID}
    speakFor: [LOGIN...]

A key is `ed25519:BASE64`, or the path of a public key file; paths are relative to the configuration. The launcher and
every worker need the same settings: a worker must measure what the launcher measured (step V7).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from policyguard.attest.keys import PublicKey
from policyguard.audit.reservations import DEFAULT_AMOUNT
from policyguard.errors import ConfigurationError
from policyguard.evidence.accepted_history import AcceptedHistory
from policyguard.evidence.quota import SYSTEM_PATH
from policyguard.keyfiles import read_public_key
from policyguard.patterns.overlap import pattern_problem
from policyguard.text import quoted, quoted_list
from policyguard.values import EMPTY_MAP, Value, name_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentConfig:
    """The signed baseline of the installed environment, and the keys that must sign it."""

    baseline: Path
    keys: tuple[PublicKey, ...]
    threshold: int = 1
    cache: Path | None = None
    interpreter: Path | None = None
    """A Python of the environment's version, but outside it, for comparing byte code; None uses our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """The pinned keys of each producer, and additional classes that pickles may import."""

    producers: Mapping[str, tuple[PublicKey, ...]] = field(default_factory=dict)
    classes: frozenset[tuple[str, str]] = frozenset()
    cache: Path | None = None


NO_PRODUCERS = CheckpointConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaConfig:
    """The source of a team's limit and usage: a file, or the output of a command."""

    file: Path | None = None
    command: tuple[str, ...] = ()
    directory: Path | None = None
    """The folder in which the command runs: that of the configuration, never that of a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantConfig:
    """The folder of signed grants, and the keys that may sign them."""

    folder: Path
    keys: tuple[PublicKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementConfig:
    """What is measured beyond the command and its repository. None or empty: not configured."""

    environment: EnvironmentConfig | None = None
    checkpoints: CheckpointConfig = NO_PRODUCERS
    quota: QuotaConfig | None = None
    reserve: str | None = None
    """The path of the number that an allow reserves in the quota of its team; None reserves nothing."""
    grants: GrantConfig | None = None
    libraries: tuple[Path, ...] = ()
    """More folders that running jobs may load code from, besides their own and the system's."""
    confinement: Mapping[str, str] = field(default_factory=dict)
    """More paths that every confined job may use: to read (r), to write (w), to execute (x)."""
    repositories: tuple[AcceptedHistory, ...] = ()
    """The repositories of the operator whose history is accepted, and the references in them that count."""

    accounts: Mapping[str, str] = field(default_factory=dict)
    """The subject of each login name; `user:LOGIN` for one that is not listed."""

    speak_for: frozenset[str] = frozenset()
    """Login names that may name another subject."""

    key_files: tuple[Path, ...] = ()
    """The public key files that were read."""


RIGHTS = ("r", "rw", "rx")
"""What a confined job may do with a path: never both write and execute."""

_DOMAIN = "resource.domain"
"""Quotas are of teams, and so are reservations."""

_NOTHING = "none"

NOTHING_CONFIGURED = MeasurementConfig()

SECTIONS = (
    "environment",
    "checkpoints",
    "quota",
    "grants",
    "watch",
    "confinement",
    "repositories",
    "accounts",
    "speakFor",
)
"""The sections of the configuration that are read here."""


def with_section(measurement: MeasurementConfig, name: str, data: Value, source: Path) -> MeasurementConfig:
    """Return this configuration with the section `name` of the file added.

    Args:
        measurement: the configuration so far.
        name: the name of the section.
        data: its content.
        source: the configuration file.

    Raises:
        ConfigurationError: a field is unknown, missing or malformed; the message names it.
    """
    if name == "speakFor":
        return replace(measurement, speak_for=_logins(data, source))
    section = _Section(data, source, name)
    match name:
        case "accounts":
            measurement = replace(measurement, accounts=section.accounts())
        case "confinement":
            measurement = replace(measurement, confinement=section.rights())
        case "repositories":
            measurement = replace(measurement, repositories=section.repositories())
        case "environment":
            measurement = replace(measurement, environment=_environment(section))
        case "checkpoints":
            measurement = replace(measurement, checkpoints=_checkpoints(section))
        case "grants":
            section.check(("folder", "keys"), ())
            grants = GrantConfig(folder=section.path("folder"), keys=section.keys("keys"))
            measurement = replace(measurement, grants=grants)
        case "watch":
            section.check(("libraries",), ())
            folders = tuple(source.parent / name for name in section.texts("libraries"))
            measurement = replace(measurement, libraries=folders)
        case _:
            measurement = replace(measurement, quota=_quota(section), reserve=_reserve(section))
    return replace(measurement, key_files=(*measurement.key_files, *section.key_files))


def _logins(data: Value, source: Path) -> frozenset[str]:
    if not isinstance(data, tuple):
        raise ConfigurationError(f"{source}: speakFor: found {name_of(data)}, expected a list of login names")
    for login in data:
        if type(login) is not str or not login:
            kind = "empty text" if login == "" else name_of(login)
            raise ConfigurationError(f"{source}: speakFor: found {kind} in the list, expected a login name")
    return frozenset(map(str, data))


def _environment(section: _Section) -> EnvironmentConfig:
    section.check(("baseline", "keys"), ("threshold", "cache", "interpreter"))
    keys = section.keys("keys")
    return EnvironmentConfig(
        baseline=section.path("baseline"),
        keys=keys,
        threshold=section.threshold(len(keys)),
        cache=section.optional_path("cache"),
        interpreter=section.optional_path("interpreter"),
    )


def _checkpoints(section: _Section) -> CheckpointConfig:
    section.check((), ("producers", "classes", "cache"))
    return CheckpointConfig(
        producers=section.producers(), classes=section.classes(), cache=section.optional_path("cache")
    )


def _quota(section: _Section) -> QuotaConfig | None:
    section.check((), ("file", "command", "reserve", "by"))
    sources = [name for name in ("file", "command") if name in section.data]
    if not sources and "reserve" in section.data:
        # A platform supplies the figures, `policyguard hook --observed`; what is allowed is reserved all the same.
        return None
    if len(sources) != 1:
        section.refuse("", "expected one of `file` and `command`")
    if "file" in section.data:
        return QuotaConfig(file=section.path("file"))
    return QuotaConfig(command=section.command("command"), directory=section.source.parent)


def _reserve(section: _Section) -> str | None:
    amount, by = section.data.get("reserve"), section.data.get("by", _DOMAIN)
    if by != _DOMAIN:
        section.refuse("by", f"found {quoted(by) if type(by) is str else name_of(by)}, expected `{_DOMAIN}`")
    if amount is None:
        return DEFAULT_AMOUNT
    path = section.text("reserve", amount)
    if path == _NOTHING:
        return None
    if not path.startswith("resource.") or len(path.split(".")) != 2:
        section.refuse("reserve", f"found {quoted(path)}, expected a path such as `resource.gpus`, or `none`")
    return path


class _Section:
    """One section of the configuration file; reports errors with file and section."""

    def __init__(self, data: Value, source: Path, name: str) -> None:
        self.source, self.name = source, name
        if not isinstance(data, Mapping):
            raise ConfigurationError(f"{source}: {name}: found {name_of(data)}, expected a map")
        self.data: Mapping[str, Value] = data
        self.key_files: list[Path] = []

    def refuse(self, field: str, message: str) -> NoReturn:
        raise ConfigurationError(f"{self.source}: {self.name}{'.' if field else ''}{field}: {message}")

    def check(self, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
        names = quoted_list((*required, *optional))
        for item in self.data:
            if item not in required and item not in optional:
                self.refuse("", f"unknown field `{item}`, expected {names}")
        for item in required:
            if item not in self.data:
                self.refuse("", f"`{item}` is missing, expected {names}")

    def text(self, name: str, value: Value) -> str:
        if type(value) is not str or not value:
            self.refuse(name, f"found {name_of(value)}, expected text")
        return value

    def path(self, name: str) -> Path:
        return self.source.parent / self.text(name, self.data[name])

    def optional_path(self, name: str) -> Path | None:
        return self.path(name) if name in self.data else None

    def texts(self, name: str, data: Value = EMPTY_MAP) -> tuple[str, ...]:
        value = self.data[name] if data is EMPTY_MAP else data
        if not isinstance(value, tuple) or not value:
            self.refuse(name, f"found {name_of(value)}, expected a list with at least one text")
        return tuple(self.text(name, item) for item in value)

    def keys(self, name: str, data: Value = EMPTY_MAP) -> tuple[PublicKey, ...]:
        return tuple(self._key(text) for text in self.texts(name, data))

    def _key(self, text: str) -> PublicKey:
        if text.startswith("ed25519:"):
            return PublicKey.from_text(text)
        self.key_files.append(self.source.parent / text)
        return read_public_key(self.key_files[-1])

    def command(self, name: str) -> tuple[str, ...]:
        """Return the argv of a command; a bare program name is searched in the system's folders."""
        program, *arguments = self.texts(name)
        if "/" in program:
            return (str(self.source.parent / program), *arguments)
        # The caller's PATH chooses no program of the operator.
        return (shutil.which(program, path=SYSTEM_PATH) or program, *arguments)

    def threshold(self, maximum: int) -> int:
        value = self.data.get("threshold", 1)
        # INVARIANT I10: a baseline counts only with at least one pinned signature.
        if type(value) is not int or not 1 <= value <= maximum:
            self.refuse(
                "threshold", f"found {value if type(value) is int else name_of(value)}, expected 1 to {maximum}"
            )
        return value

    def producers(self) -> dict[str, tuple[PublicKey, ...]]:
        value = self.data.get("producers", EMPTY_MAP)
        if not isinstance(value, Mapping):
            self.refuse("producers", f"found {name_of(value)}, expected a map of `type:id` to keys")
        return {who: self.keys(f"producers.{who}", keys) for who, keys in value.items()}

    def rights(self) -> dict[str, str]:
        for path, rights in self.data.items():
            if rights not in RIGHTS:
                wrong = quoted(rights) if type(rights) is str else name_of(rights)
                self.refuse(path, f"found {wrong}, expected one of {quoted_list(RIGHTS)}")
        return {os.path.realpath(self.source.parent / path): str(rights) for path, rights in self.data.items()}

    def repositories(self) -> tuple[AcceptedHistory, ...]:
        return tuple(self._repository(name, value) for name, value in self.data.items())

    def _repository(self, name: str, value: Value) -> AcceptedHistory:
        section = _Section(value, self.source, f"{self.name}.{name}")
        section.check(("path", "refs"), ())
        if "/" not in name.strip("/") or any(part in ("", ".", "..") for part in name.split("/")) or ":" in name:
            self.refuse("", f"found `{name}`, expected the id of a repository such as `team/vision/trainer`")
        refs = section.texts("refs")
        for ref in refs:
            if not ref.startswith("refs/") or pattern_problem(ref) is not None:
                section.refuse("refs", f"found {quoted(ref)}, expected a reference such as `refs/heads/main`")
        return AcceptedHistory(resource=name, path=section.path("path"), refs=refs)

    def accounts(self) -> dict[str, str]:
        accounts = {login: self.text(login, subject) for login, subject in self.data.items()}
        for login, subject in accounts.items():
            if not all(subject.partition(":")):
                self.refuse(login, f"found `{subject}`, expected a subject such as `user:alice`")
        return accounts

    def classes(self) -> frozenset[tuple[str, str]]:
        names = self.texts("classes") if "classes" in self.data else ()
        for name in names:
            if "." not in name:
                self.refuse("classes", f"found `{name}`, expected MODULE.NAME")
        return frozenset((name.rpartition(".")[0], name.rpartition(".")[2]) for name in names)
