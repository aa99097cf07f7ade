"""Measures the commit of a job's code and every file that differs from it, by hashing.

An assumption: git's SHA-1 ids identify content. Git refuses files of the known collision attacks when they are
committed; for more, use a SHA-256 repository, which is measured in the same way.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Sequence
from urllib.parse import urlsplit, urlunsplit

import msgspec

from policyguard.errors import EvidenceError
from policyguard.evidence.accepted_history import ACCEPTED_HISTORY, AcceptedHistory, accepted_fact
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.job import program_of
from policyguard.evidence.uncommitted import UNCOMMITTED, uncommitted_files
from policyguard.fs.ownership import is_below
from policyguard.git.configuration import config_values
from policyguard.git.directory import GitDir, config_text, find_gitdir, gitdir_of
from policyguard.git.refs import References, history_overrides
from policyguard.git.worktree import Findings, compare
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, Value

CODE = "resource.code"

MAX_LISTED = 1_000
"""If more files differ than this, the fact is absent."""

_REMOTE_KEY = re.compile(r"remote\.(?P<name>.+)\.url")


class Code(msgspec.Struct, frozen=True):
    """The values of `resource.code` and `resource.uncommitted`; the latter is None if `unread` says why."""

    record: FrozenMap
    uncommitted: tuple[FrozenMap, ...] | None = None
    unread: str = ""

    def collected(self, source: str, now: Instant) -> Collected:
        """Convert the values to facts."""
        values: dict[str, Value | None] = {CODE: self.record, UNCOMMITTED: self.uncommitted}
        entries = {
            path: Fact(value, Assurance.MEASURED, source, now, bound=True)
            for path, value in values.items()
            if value is not None
        }
        return Collected(entries=entries, missing={UNCOMMITTED: self.unread} if self.unread else {})


class RepositoryCollector:
    """Supplies `resource.code`: commit and tree of the job's folder, and the files that differ from them.

    And `resource.uncommitted`: what those files hold.

    `owners` are the uids whose repositories may be measured; the process's own and root if not given.
    """

    name = "repository"
    measures_contributors = False
    declares = (CODE, UNCOMMITTED, ACCEPTED_HISTORY)

    def __init__(
        self,
        *,
        repositories: Sequence[AcceptedHistory] = (),
        timeout_s: float = 15.0,
        owners: Collection[int] | None = None,
    ) -> None:
        self._repositories = tuple(repositories)
        self._timeout_s = timeout_s
        self._owners = frozenset(owners) if owners is not None else frozenset({os.geteuid(), 0})

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:
        """Measure the repository that contains the job's folder.

        The repository is found from the folder the job runs in and is never named by the job: a clean repository
        elsewhere says nothing about this code.
        """
        deadline = time.monotonic() + self._timeout_s
        code = measure_code(inputs, self._owners, deadline)
        measured = code.collected(self.name, now)
        accepted = accepted_fact(code.record, request, self._repositories, self._owners, deadline, now)
        return Collected(
            entries={**measured.entries, **accepted.entries}, missing={**measured.missing, **accepted.missing}
        )


def repository_of(inputs: JobInputs, owners: Collection[int]) -> tuple[GitDir, str, str | None]:
    """Find the repository of a job, the commit and the branch; `root` is the folder that the job's code runs from.

    Raises:
        EvidenceError: as `find_gitdir`.
    """
    export = inputs.export
    if export is None:
        git = find_gitdir(inputs.directory, owners)
        return (git, *References(git).head())
    git = gitdir_of(export.repository, owners)
    return GitDir(root=export.folder, own=git.own, shared=git.shared), export.commit, export.branch


def measure_code(inputs: JobInputs, owners: Collection[int], deadline: float) -> Code:
    """Measure the code that a job runs, and the content of its uncommitted files.

    Args:
        inputs: the job. If it starts from its commit, the exported files are measured, not the work tree.
        owners: the user ids that may own the repository.
        deadline: a time of `time.monotonic()` after which git is stopped.

    Raises:
        EvidenceError: as `code_record`. Uncommitted files that cannot be read are no error.
    """
    record, root, findings = _measured(inputs, owners, deadline)
    try:
        # INVARIANT I2: what is not committed is bound by its content; where that cannot be read the fact is absent.
        uncommitted = uncommitted_files(root, (*findings.changed, *findings.untracked), owners, deadline)
    except EvidenceError as problem:
        return Code(record, None, str(problem))
    return Code(record, uncommitted)


def code_record(directory: str, owners: Collection[int], deadline: float) -> FrozenMap:
    """Measure `resource.code`; see docs/facts.md.

    Args:
        directory: a folder inside the repository.
        owners: the user ids that may own the repository.
        deadline: a time of `time.monotonic()` after which git is stopped.

    Raises:
        EvidenceError: there is no repository, it belongs to somebody else, is damaged, or changes while it is read.
    """
    return _measured(JobInputs(directory=directory), owners, deadline)[0]


def _measured(inputs: JobInputs, owners: Collection[int], deadline: float) -> tuple[FrozenMap, str, Findings]:
    """Return the code record, the repository's top folder, and the differing files by real name."""
    git, commit, branch = repository_of(inputs, owners)
    tree, findings = compare(git, commit, owners, deadline)
    if findings.bytecode and not _has_private_bytecode(inputs, git.root):
        # Of a hook's modules only needed here.
        from policyguard.environment.stray import foreign_bytecode

        findings.untracked.extend(foreign_bytecode(git.root, findings.bytecode, deadline))
    if repository_of(inputs, owners)[1] != commit:
        raise EvidenceError(f"`{printable_name(git.root)}`: HEAD moved while the working tree was compared")
    members: dict[str, Value] = {"commit": commit, "tree": tree, **_listed(findings), "history": history_overrides(git)}
    # INVARIANT I17: code is dirty if anything changed, is gone or was added, an ignored file being the only exception.
    members["dirty"] = bool(findings.changed or findings.untracked)
    remote = _remote(git)
    named = ({"branch": branch} if branch else {}) | ({"remote": remote} if remote else {})
    return FrozenMap(members | named), git.root, findings


def _has_private_bytecode(inputs: JobInputs, root: str) -> bool:
    """Return True if the job's Python certainly takes no byte code from the repository: the launcher sees to it.

    Only where the command was followed to a Python program of the repository: a shell script, or a tool, may start
    Python without the variable.
    """
    if not inputs.private_bytecode:
        return False
    try:
        program = program_of(inputs)
    except EvidenceError:
        return False
    return program.keeps_prefix and is_below(os.path.realpath(program.path), os.path.realpath(root))


def _listed(findings: Findings) -> dict[str, Value]:
    return {
        "dirty_files": _names(findings.changed, "changed files"),
        "untracked_files": _names(findings.untracked, "untracked files"),
        "ignored_code_files": _names(findings.ignored_code, "ignored files that can carry code"),
        "environments": _names(findings.environments, "virtual environments"),
        "outside_links": _names(findings.outside_links, "links that lead out of the repository"),
        "submodules": _names(findings.submodules, "submodules"),
    }


def _names(paths: Iterable[bytes], what: str) -> tuple[str, ...]:
    names = tuple(sorted({printable_name(path) for path in paths}))
    if len(names) > MAX_LISTED:
        raise EvidenceError(f"found {len(names)} {what}, expected at most {MAX_LISTED}; the first is `{names[0]}`")
    return names


def _remote(git: GitDir) -> str | None:
    """Return the URL of `origin`, else of the first remote, without user name, password and query."""
    urls: dict[str, str] = {}
    for key, value in config_values(config_text(git)):
        match = _REMOTE_KEY.fullmatch(key)
        if match is not None:
            urls.setdefault(match["name"], value)
    if not urls:
        return None
    return printable_name(_without_secrets(urls.get("origin") or urls[min(urls)]))


def _without_secrets(url: str) -> str:
    # INVARIANT I14: what a URL may hide, a password or a token, never becomes part of a fact.
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable)"
    if not parts.scheme or not parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
