"""Model repositories in the hub's layout: the code they contain, where it comes from, and their revision.

Reads the configuration files that loaders follow: `auto_map` (code in this or another repository), custom pipelines,
adapters that import a library, kernels fetched by name, and Python files in the folder. Imports nothing. A
configuration that cannot be read counts as remote code, because it might name some.

Source: transformers 5 `dynamic_module_utils.py` and `integrations/hub_kernels.py`; diffusers `pipeline_utils.py`; peft
`auto.py`; huggingface_hub's cache layout (`models--org--name/snapshots/<commit>`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import open_resolved, reason_of
from policyguard.scan.content import scan_content
from policyguard.scan.findings import CODE_SUFFIXES, Findings
from policyguard.scan.settings.hub import named_by
from policyguard.scan.settings.json_tree import json_documents
from policyguard.scan.settings.tree import TooDeep, Unreadable, plain_value, repeated_key
from policyguard.scan.source import BytesSource
from policyguard.text import printable_name
from policyguard.values import FrozenMap

MAX_CONFIG_BYTES = 64 * 2**20
"""The largest tokenizer files are some 20 MB."""

MAX_CONFIGS = 1_000
MAX_DEPTH = 16
REVISION = re.compile(r"[0-9a-f]{40}")
"""A commit; a branch or tag can be moved after it was reviewed."""

_SETTINGS_SUFFIXES = (".json", ".yaml", ".yml", ".toml", ".jinja", ".cfg", ".ini", "mlmodel", ".zarray", ".zmetadata")
_KINDS = {"hub.own_code": "own", "hub.foreign_code": "foreign", "hub.remote_kernels": "kernel"}
_RUN = ("ckpt.target_", "ckpt.expression", "ckpt.yaml_", "ckpt.keras_", "ckpt.shell_", "ckpt.unsafe_", "ckpt.pickled_")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepository:
    """The code that loading a repository would run.

    `revision` is the commit the files belong to, empty if the disk does not tell. `code_files` lie in the repository.
    `own_code` are configuration entries that name code in it, `foreign_code` entries that name another repository
    (`file: repository`), `kernels` repositories of kernels that are fetched, `imports` libraries that are imported by
    name. `named_code` are entries that loaders run whether remote code is allowed or not, such as `_target_`.
    `problems` are configurations that could not be read.
    """

    path: str
    revision: str = ""
    code_files: tuple[str, ...] = ()
    own_code: tuple[str, ...] = ()
    foreign_code: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    named_code: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def remote_code(self) -> bool:
        """True if loading with remote code enabled runs code that the repository contains or names."""
        # INVARIANT I17: a configuration that cannot be read is remote code.
        named = self.own_code or self.foreign_code or self.kernels or self.imports or self.named_code
        return bool(named or self.problems)

    @property
    def pinned(self) -> bool:
        """True if the files are those of one known commit."""
        return bool(REVISION.fullmatch(self.revision))

    def to_value(self) -> FrozenMap:
        """Convert the repository to a fact value."""
        return FrozenMap(
            path=self.path,
            revision=self.revision,
            remote_code=self.remote_code,
            foreign_code=self.foreign_code,
            code_files=self.code_files,
            kernels=self.kernels,
            imports=self.imports,
            named_code=self.named_code,
            problems=self.problems,
        )


def is_pinned(revision: str | None) -> bool:
    """Return True if a revision names one commit forever: 40 lower-case hexadecimal digits."""
    return revision is not None and REVISION.fullmatch(revision) is not None


def inspect_repository(path: str | os.PathLike[str]) -> HubRepository:
    """List the code that the repository in this folder contains or names; never raises on its content."""
    root = Path(path)
    entries: dict[str, list[str]] = {"own": [], "foreign": [], "kernel": [], "import": [], "run": []}
    problems, code = [], []
    try:
        files = sorted(_files(root))
    except OSError as problem:
        files, problems = [], [f"{printable_name(os.fspath(root))}: {reason_of(problem)}"]
    for name in files:
        if name.casefold().endswith(CODE_SUFFIXES):
            code.append(name)
        if name.endswith(".json"):
            try:
                for kind, what in _named_code(_config(root / name)):
                    entries[kind].append(f"{name}: {what}")
            except EvidenceError as problem:
                problems.append(f"{name}: {problem.message}")
        if name.casefold().endswith(_SETTINGS_SUFFIXES):
            for kind, what in _judged(root / name):
                if f"{name}: {what}" not in (*entries[kind], *entries["import"]):
                    entries[kind].append(f"{name}: {what}")
    return HubRepository(
        path=printable_name(os.fspath(root)),
        revision=revision_of(root),
        code_files=tuple(code),
        own_code=tuple(entries["own"]),
        foreign_code=tuple(entries["foreign"]),
        kernels=tuple(entries["kernel"]),
        imports=tuple(entries["import"]),
        named_code=tuple(entries["run"]),
        problems=tuple(problems),
    )


def revision_of(root: Path) -> str:
    """Return the commit of these files; empty if it is unknown or ambiguous.

    Either the folder is `snapshots/<commit>` of a hub cache, or all download records beside the files name one commit.
    """
    real = Path(os.path.realpath(root))
    if real.parent.name == "snapshots" and REVISION.fullmatch(real.name):
        return real.name
    records = sorted((real / ".cache" / "huggingface" / "download").rglob("*.metadata"))[:MAX_CONFIGS]
    commits = {_first_line(record) for record in records}
    commit = commits.pop() if len(commits) == 1 else ""
    return commit if REVISION.fullmatch(commit) else ""


def load_problem(
    repository: HubRepository, *, trust_remote_code: bool, revision: str | None, code_revision: str | None = None
) -> str | None:
    """Return the reason code that forbids loading with these arguments; None if none does.

    `hub.unpinned_remote_code` (scenario 18): code is allowed to come along and the revision can be moved.
    `hub.code_revision_unpinned` (scenario 19): the code is another repository's, which `revision` does not pin.
    `hub.remote_kernels`: kernels are fetched by name, which no argument pins.

    Args:
        repository: the files on disk.
        trust_remote_code: the argument of the call.
        revision: the argument of the call.
        code_revision: the argument of the call.
    """
    if repository.kernels:
        return "hub.remote_kernels"
    if not trust_remote_code:
        return None
    if not is_pinned(revision):
        return "hub.unpinned_remote_code"
    # INVARIANT I17: `revision` does not pin code of another repository; only `code_revision` does.
    if (repository.foreign_code or repository.problems) and not is_pinned(code_revision):
        return "hub.code_revision_unpinned"
    return None


def _files(root: Path) -> Iterator[str]:
    pending, count = [root], 0
    while pending:
        folder = pending.pop()
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in (".git", ".cache"):
                    pending.append(Path(entry.path))
                continue
            count += 1
            if count > MAX_CONFIGS * 10:
                raise OSError(7, "too many files")
            yield os.path.relpath(entry.path, root)


def _config(path: Path) -> object:
    fd, status, _ = open_resolved(str(path))
    with open(fd, "rb") as file:
        if status.st_size > MAX_CONFIG_BYTES:
            raise EvidenceError(f"{status.st_size} bytes, expected at most {MAX_CONFIG_BYTES}")
        data = file.read(MAX_CONFIG_BYTES + 1)
    try:
        # As Python's own reader does, which the loaders use: NaN is a number, and Trainer writes it.
        values = json_documents(data.decode("utf-8").removeprefix("\ufeff"))
    except (Unreadable, TooDeep, UnicodeDecodeError) as problem:
        raise EvidenceError(str(problem)) from problem
    if not values:
        raise EvidenceError("no content, expected JSON")
    # INVARIANT I17: of two values under one key, loaders differ in which they follow.
    if (key := repeated_key(values)) is not None:
        raise EvidenceError(f"`{printable_name(key)}` occurs twice in one map, expected once")
    return plain_value(values, MAX_DEPTH)


def _judged(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the code that settings name for any loader, as the scan of their file reports it."""
    try:
        fd, status, _ = open_resolved(str(path))
    except EvidenceError:
        return
    with open(fd, "rb") as file:
        data = file.read(MAX_CONFIG_BYTES) if status.st_size <= MAX_CONFIG_BYTES else b""
    findings = Findings(name=path.name)
    scan_content(BytesSource(data), findings)
    for reason in sorted(findings.reasons):
        # INVARIANT I17: what the scan says of settings and what a load is asked about are one answer.
        if reason.code in _KINDS or reason.code.startswith(_RUN):
            yield _KINDS.get(reason.code, "run"), reason.detail


def _named_code(data: object, depth: int = MAX_DEPTH) -> Iterator[tuple[str, str]]:
    """Yield the code that a configuration names, at any depth: composite models nest configurations."""
    if isinstance(data, list):
        for item in data:
            yield from _named_code(item, depth - 1)
    if not isinstance(data, Mapping) or depth <= 0:
        return
    for key, value in data.items():
        named = named_by(key, value)
        yield from _named_code(value, depth - 1) if named is None else named


def _first_line(path: Path) -> str:
    try:
        fd, _, _ = open_resolved(str(path))
    except EvidenceError:
        return ""
    with open(fd, "rb") as file:
        return file.read(200).split(b"\n")[0].decode("utf-8", "replace").strip()


__all__ = ["HubRepository", "inspect_repository", "is_pinned", "load_problem", "revision_of"]
