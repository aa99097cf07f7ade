"""The interface of collectors, and how their measurements are merged into `Facts`.

A collector may be slow, broken or wrong. `gather` runs each in a thread with a common time limit, accepts only declared
paths and frozen values, and turns every failure into an absent fact with a reason. It never raises because of a
collector. Interpreting the facts is left to `decide/`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyGuardError
from policyguard.model.facts import Approval, Assurance, Fact, Facts, claims
from policyguard.model.request import Request
from policyguard.text import printable
from policyguard.values import (
    ALWAYS,
    EMPTY_MAP,
    NANOSECONDS_PER_S,
    NEVER,
    FrozenMap,
    Instant,
    LazyPattern,
    ValueProblem,
    canonical,
    freeze,
)

DEFAULT_TIMEOUT_S = 20.0
"""Time limit for all collectors together; far above a cold repository of some thousand files."""

_PATH = LazyPattern(r"(?:subject|resource|context)\.[a-z][a-z0-9_]*", re.ASCII)
_REASON_LENGTH = 300
MAX_UNUSABLE = 32
"""The maximum number of reasons that are reported."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The folder that a commit was exported to, so that a job starts from there (`evidence/from_commit.py`)."""

    folder: str
    repository: str
    """The top folder of the work tree."""
    commit: str
    tree: str
    branch: str | None
    roots: Mapping[str, str]
    """Placeholders, such as `{tree}`, and their folders."""
    submitted: JobInputs
    """The job as it was submitted: in the work tree."""

    @property
    def git_folder(self) -> str:
        """The folder or file `.git` of the work tree."""
        return self.repository.rstrip("/") + "/.git"

    def recorded(self, text: str) -> str:
        """Write placeholders for the folders that a text names, so that it is the same on every worker."""
        for name, folder in sorted(self.roots.items(), key=lambda item: (-len(item[1]), item[0])):
            text = occurrences(folder).sub(name.replace("\\", r"\\"), text)
        return text


GUARD_VARIABLES = "POLICYGUARD_"
"""How the names of policyguard's own variables begin; a job gets none of those that its launcher has."""


class JobInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What is about to run: the command, its working directory and environment, and the files the job names.

    `directory` is absolute. `files` and `checkpoints` are names relative to it, or absolute, and so are the folders in
    `outputs`, which a confined job may write, and in `data`, which it may read. `environment` is what the child will
    get. `confine` says that the job is to be started confined, `from_commit` that it is to be started from an export of
    its commit, which `export` describes once it is there. With `private_bytecode` the launcher sets
    `PYTHONPYCACHEPREFIX` to a new, empty folder.
    """

    argv: tuple[str, ...] = ()
    directory: str = "/"
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    files: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    confine: bool = False
    outputs: Mapping[str, str] = msgspec.field(default_factory=dict)
    data: Mapping[str, str] = msgspec.field(default_factory=dict)
    from_commit: bool = False
    export: Export | None = None
    private_bytecode: bool = False

    @property
    def submitted(self) -> JobInputs:
        """The job as it was submitted, in the work tree."""
        return self if self.export is None else self.export.submitted

    def submitted_path(self, path: str) -> str:
        """Return the path in the work tree of a file in the export; another path as it is."""
        export = self.export
        if export is None or not path.startswith(export.folder + "/"):
            return path
        return export.repository + path.removeprefix(export.folder)

    def recorded(self, text: str) -> str:
        """Write a path or an argument as it is recorded: with placeholders if the job starts from its commit."""
        return text if self.export is None else self.export.recorded(text)


def occurrences(folder: str) -> re.Pattern[str]:
    """Compile a pattern for a folder in a text, alone or followed by a path in it."""
    return re.compile(rf"(?:(?<=file://)|(?<![\w.+@~/-])){re.escape(folder)}(?![\w.+@~-])")


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one collector: facts by path, and a reason for each declared path that is missing.

    `contributors` is None if the collector does not determine them. A collector that should have determined them and
    could not sets `contributors_unknown`: then nobody's set counts. `unusable` says why approvals do not count.
    """

    entries: Mapping[str, Fact] = msgspec.field(default_factory=dict)
    missing: Mapping[str, str] = msgspec.field(default_factory=dict)
    approvals: tuple[Approval, ...] = ()
    contributors: tuple[str, ...] | None = None
    unusable: tuple[str, ...] = ()
    contributors_unknown: bool = False


class Collector(Protocol):
    """Measures facts. `declares` lists every path it may supply; other paths are ignored.

    A collector that never supplies contributors says so with `measures_contributors = False`. If it fails, the
    contributors that others supply still count; after a failure of any other collector they are unknown.
    """

    @property
    def name(self) -> str: ...

    @property
    def declares(self) -> tuple[str, ...]: ...

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:
        """Measure now. If it raises `EvidenceError`, everything it declares is missing for that reason."""
        ...


CollectorsFor = Callable[[Snapshot, Request, JobInputs | None], Sequence[Collector]]
"""Chooses collectors by the policies in force, the request, and its inputs; None for a request without a command."""

Collectors = CollectorsFor | Sequence[Collector]


def gather(
    request: Request,
    collectors: Sequence[Collector],
    inputs: JobInputs,
    now_source: Callable[[], Instant],
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Facts:
    """Run all collectors and merge their facts with the request's claims; the stronger assurance wins.

    Facts are dated at the start, so that their age is never understated. A path that a collector declares
    and did not supply is absent even if the request claims it. Collectors run side by side; one that outlasts
    `timeout_s` is abandoned and what it finds later is not used.

    Args:
        request: what is asked.
        collectors: run side by side.
        inputs: what is about to run.
        now_source: supplies the current time.
        timeout_s: how long a collector may take.
    """
    now = now_source()
    running = [_Collecting(collector, request, inputs, now) for collector in collectors]
    for collecting in running:
        collecting.start()
    deadline = time.monotonic() + timeout_s
    reports = [collecting.report(deadline, timeout_s) for collecting in running]
    entries, missing = _merge(claims(request, now), reports)
    return Facts(
        request=request,
        entries=entries,
        missing=FrozenMap(missing) if missing else EMPTY_MAP,
        approvals=tuple(approval for report in reports for approval in report.collected.approvals),
        contributors=_contributors([report.collected for report in reports]),
        unusable=tuple(line for report in reports for line in report.collected.unusable),
    )


def _contributors(collected: Sequence[Collected]) -> tuple[str, ...] | None:
    """Merge the contributors of all collectors; None if any of them could not determine them, or none did."""
    # INVARIANT I8: whose work it is, is known wholly or not at all; an empty set never replaces a failed measurement.
    if any(answer.contributors_unknown for answer in collected):
        return None
    supplied = [answer.contributors for answer in collected if answer.contributors is not None]
    return tuple(sorted({account for accounts in supplied for account in accounts})) if supplied else None


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    declares: tuple[str, ...]
    collected: Collected


class _Collecting(threading.Thread):
    """One running collector, in a daemon thread, so that a hanging one cannot keep the process alive."""

    def __init__(self, collector: Collector, request: Request, inputs: JobInputs, now: Instant) -> None:
        super().__init__(name="policyguard-collector", daemon=True)
        self._collector, self._request, self._inputs, self._now = collector, request, inputs, now
        self._name = "collector"
        self._declares: tuple[str, ...] = ()
        self._measures_contributors = True
        self._answer: object = None
        self._problem = "the collector ended without an answer"

    def run(self) -> None:
        try:
            self._name = str(self._collector.name)
            self._declares = tuple(str(path) for path in self._collector.declares)
            self._measures_contributors = getattr(self._collector, "measures_contributors", True) is not False
            self._answer = self._collector.collect(self._request, self._inputs, self._now)
        except PolicyGuardError as problem:
            self._problem = str(problem)
        # INVARIANT I2: a collector that fails in any way makes its facts absent, with the reason, and nothing else.
        except BaseException as problem:  # noqa: BLE001 - a guest's code may do anything; this is the one place
            self._problem = f"the collector failed: {str(problem) or type(problem).__name__}"

    def report(self, deadline: float, timeout_s: float) -> _Report:
        self.join(max(0.0, deadline - time.monotonic()))
        answer, problem = self._answer, self._problem
        if self.is_alive():
            answer, problem = None, f"the collector took longer than {timeout_s:g} s"
        if isinstance(answer, Collected):
            try:
                accepted = _accepted(self._name, self._declares, answer, self._now)
                return _Report(declares=self._declares, collected=accepted)
            # INVARIANT I2: what a collector answers is a guest's data, and its mappings may be a guest's code.
            except Exception as malformed:  # noqa: BLE001
                problem = f"the collector's answer is malformed: {malformed}"
        reason = printable(f"{self._name}: {problem}", _REASON_LENGTH)
        absent = Collected(
            missing=dict.fromkeys(self._declares, reason),
            unusable=() if self._declares else (reason,),
            contributors_unknown=self._measures_contributors,
        )
        return _Report(declares=self._declares, collected=absent)


def _accepted(name: str, declares: tuple[str, ...], answer: Collected, now: Instant) -> Collected:
    """Keep the declared paths with frozen values; report every other declared path as missing.

    Raises:
        TypeError: a field is of another type than the answer of a collector may have.
    """
    _check_types(answer)
    entries: dict[str, Fact] = {}
    missing: dict[str, str] = {}
    for path, fact in answer.entries.items():
        problem = _fact_problem(path, fact, declares, now)
        if problem is None:
            entries[path] = fact
        else:
            missing[str(path)] = printable(f"{name}: {problem}", _REASON_LENGTH)
    for path in declares:
        if path not in entries and path not in missing:
            missing[path] = printable(f"{name}: {answer.missing.get(path, 'not seen')}", _REASON_LENGTH)
    contributors = answer.contributors if answer.contributors is None else tuple(answer.contributors)
    return Collected(
        entries=entries,
        missing=missing,
        approvals=tuple(answer.approvals),
        contributors=contributors,
        unusable=tuple(printable(str(line), _REASON_LENGTH) for line in answer.unusable[:MAX_UNUSABLE]),
        contributors_unknown=bool(answer.contributors_unknown),
    )


def _check_types(answer: Collected) -> None:
    """Check the fields of an answer, whose types nothing has enforced."""
    for name in ("entries", "missing"):
        _check_type(name, getattr(answer, name), Mapping)
    _check_type("contributors_unknown", answer.contributors_unknown, bool)
    for name, items, kind in (
        ("approvals", answer.approvals, Approval),
        ("unusable", answer.unusable, str),
        ("contributors", () if answer.contributors is None else answer.contributors, str),
    ):
        _check_type(name, items, (tuple, list))
        for item in items:
            _check_type(f"an item of {name}", item, kind)


def _check_type(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind):
        expected = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(f"{name}: found {type(value).__name__}, expected {expected}")


def _fact_problem(path: object, fact: object, declares: tuple[str, ...], now: Instant) -> str | None:
    # INVARIANT I17: a collector can only supply the paths it declares.
    if path not in declares:
        return f"supplied `{path}`, which it does not declare"
    if type(path) is not str or not _PATH.fullmatch(path):
        return f"supplied `{path}`, expected `subject.x`, `resource.x` or `context.x`"
    if not isinstance(fact, Fact) or not isinstance(fact.assurance, Assurance):
        return f"supplied `{path}` without an assurance"
    # INVARIANT I2: a fact that nobody can date is absent, and so is one from the future.
    if type(fact.observed_at) is not int or not ALWAYS <= fact.observed_at <= NEVER:
        return f"supplied `{path}` without the time of its observation, expected nanoseconds since 1970"
    if fact.observed_at > now:
        return f"supplied `{path}` observed {(fact.observed_at - now) / NANOSECONDS_PER_S:.3f} s in the future"
    try:
        freeze(fact.value)
    except ValueProblem as problem:
        return f"supplied `{path}` with {problem.message} at {problem.path}"
    return None


def _merge(claimed: Mapping[str, Fact], reports: Iterable[_Report]) -> tuple[dict[str, Fact], dict[str, str]]:
    supplied: dict[str, list[Fact]] = {}
    reasons: dict[str, str] = {}
    for report in reports:
        for path, reason in report.collected.missing.items():
            reasons.setdefault(path, reason)
        for path, fact in report.collected.entries.items():
            supplied.setdefault(path, []).append(fact)
    entries: dict[str, Fact] = {}
    missing: dict[str, str] = {}
    for path in {*claimed, *supplied, *reasons}:
        candidates = [*supplied.get(path, ()), *([claimed[path]] if path in claimed else ())]
        if path in reasons and path not in supplied:
            # INVARIANT I2: a claim never replaces a measurement that failed, else breaking a collector would grant.
            missing[path] = reasons[path] + ("; the request's own claim does not count" if candidates else "")
        elif (best := _strongest(candidates)) is not None:
            entries[path] = best
        else:
            # INVARIANT I1: two equally strong facts that differ are no fact.
            missing[path] = f"{' and '.join(sorted({f.source for f in candidates}))} disagree with equal assurance"
    return entries, missing


def _strongest(candidates: Sequence[Fact]) -> Fact | None:
    """Return the fact with the highest assurance; None if several of that assurance disagree."""
    best = max(candidate.assurance for candidate in candidates)
    top = [candidate for candidate in candidates if candidate.assurance == best]
    if len({canonical(candidate.value) for candidate in top}) > 1:
        return None
    newest = max(top, key=lambda candidate: candidate.observed_at)
    # INVARIANT I11: what one collector binds to the decision stays bound, whichever observation is newer.
    is_bound = any(candidate.bound for candidate in top)
    return newest if newest.bound == is_bound else msgspec.structs.replace(newest, bound=True)
