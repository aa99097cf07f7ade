"""Inspects the running processes of a job: foreign code, attached debuggers, injection variables.

A patch in memory is not visible from outside, but its cause often is: an executable mapping from a folder without code
of the job, a deleted mapped file, a debugger. A finding is kept, because unloading a library or detaching a debugger
does not undo its effects.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence

from policyguard.confinement.profile import INSTALLED_CODE
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.injected import INJECTED_FILES
from policyguard.evidence.injection import INJECTIONS, REFUSED, paths_of
from policyguard.evidence.job import code_root, injected_by, installations, program_of
from policyguard.evidence.processes import Mapped, Process, describe, family_of, process
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import reason_of
from policyguard.hooks.watch.commands import foreign_code
from policyguard.hooks.watch.drift import PROCESS, PROCESS_UNSEEN, Drift
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Value

SYSTEM_FOLDERS = INSTALLED_CODE
"""Folders for code that only administrators can write. Every job may write /dev/shm, so /dev is none of them.

More than a program may come from (`evidence/program.py`): a running job also maps the libraries of drivers and tools.
"""

CACHE_VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME")
CACHES = ("~/.cache", "~/.triton", "~/.nv", "/tmp/torchinductor_*")
"""Folders where kernel compilers write libraries while a job runs; accepted only if no other account can write."""

INJECTING = frozenset(name for name, row in INJECTIONS.items() if row.treatment == REFUSED) - {
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
}
"""Injection variables that neither the launcher nor a framework sets for the processes of a job."""

MAX_UNREADABLE = 2
"""A process is reported after this many failed checks; one can fail while it starts or ends."""

MAX_NAMED = 5


class JobProcesses:
    """Inspects the processes of one job; findings of earlier checks are kept.

    Args:
        inputs: of the job: its command, folder and environment.
        mark: text in the job's environment that identifies a process after it left the process tree.
        libraries: more folders that the operator allows code of jobs to be loaded from.
    """

    def __init__(self, inputs: JobInputs, mark: str = "", libraries: Sequence[str] = ()) -> None:
        self.family: tuple[int, ...] = ()
        """The processes of the job at the last check."""
        self._root, self._guardian, self._mark = 0, 0, os.fsencode(mark)
        self._variables = injected_by(inputs)
        self._folders = (*SYSTEM_FOLDERS, *code_folders(inputs), *map(os.path.realpath, libraries))
        self._caches = _caches(inputs.environment)
        self._known: set[tuple[bytes, bytes, int]] = set()
        self._directory = inputs.directory
        self._programs, self._decided = _decided(inputs)
        self._commands: set[tuple[str, tuple[str, ...], str]] = set()
        self._findings: dict[str, None] = {}
        self._unreadable: dict[int, int] = {}

    def started(self, pid: int, guardian_pid: int = 0) -> None:
        """Record the first process of the job, and the process below which everything is the job's."""
        self._root, self._guardian = pid, guardian_pid

    def check(self) -> tuple[Drift, ...]:
        """Inspect every process of the job, and return all findings since the start."""
        if not self._root:
            return ()
        try:
            family = family_of(self._root, self._mark, self._guardian)
        except OSError as problem:
            text = f"cannot be inspected: {reason_of(problem)}"
            return (Drift("resource.process_unseen", PROCESS_UNSEEN, text, text),)
        self.family = tuple(family)
        for pid in family:
            try:
                running = process(pid)
            except PermissionError:
                self._unreadable[pid] = self._unreadable.get(pid, 0) + 1
                continue
            if running is not None:
                self._inspect(running, family)
        drift = []
        if self._findings:
            drift.append(Drift("resource.process", PROCESS, _summary(self._findings), "\n".join(self._findings)))
        hidden = sorted(pid for pid, failures in self._unreadable.items() if failures >= MAX_UNREADABLE)
        if hidden:
            text = f"cannot be inspected: {', '.join(f'pid {pid}' for pid in hidden[:MAX_NAMED])}"
            drift.append(Drift("resource.process_unseen", PROCESS_UNSEEN, text, str(hidden)))
        return tuple(drift)

    def _inspect(self, running: Process, family: list[int]) -> None:
        executable = os.fsdecode(running.executable)
        program = os.path.basename(executable)
        if (executable, running.argv, running.directory) not in self._commands:
            self._commands.add((executable, running.argv, running.directory))
            self._inspect_command(running, executable)
        for mapped in running.mapped:
            # A file that a job uses is accepted also after somebody deletes it.
            file = (mapped.path, mapped.device, mapped.inode)
            if file in self._known:
                continue
            if self._belongs(running, mapped):
                self._known.add(file)
            elif mapped.is_elf or not (mapped.is_memory or mapped.deleted):
                self._report(f"+ {_name(mapped)} (in {program})")
        # INVARIANT I15: a process that is attached to a job and does not belong to it is reported.
        if running.tracer and running.tracer not in family:
            self._report(f"traced by {describe(running.tracer)}")
        variables = running.injected
        for name in sorted(INJECTING & variables.keys()):
            if variables[name] != self._variables.get(name):
                self._report(f"{name}={variables[name][:80]} (in {program})")

    def _inspect_command(self, running: Process, executable: str) -> None:
        """Report a file that is run by the dynamic linker or an interpreter, which the kernel sees as data."""
        if (executable, running.argv[1:]) in self._decided:
            return
        # INVARIANT I15: a job runs no code that was not measured, and none that nobody can determine.
        if problem := foreign_code(running, executable, self._directory, self._is_ours):
            self._report(problem)

    def _is_ours(self, path: str) -> bool:
        return path in self._programs or _lies_in(path, self._folders)

    def _belongs(self, running: Process, mapped: Mapped) -> bool:
        # INVARIANT I15: code without a name, in memory or deleted, never belongs where it was not seen before.
        if mapped.is_memory or mapped.deleted:
            return False
        path = os.fsdecode(mapped.path)
        if is_below(path, "/dev"):
            return _is_device(running, mapped)
        return self._is_ours(path) or (_lies_in(path, self._caches) and _is_private(running, mapped))

    def _report(self, text: str) -> None:
        self._findings.setdefault(printable_name(text))


def _decided(inputs: JobInputs) -> tuple[frozenset[str], frozenset[tuple[str, tuple[str, ...]]]]:
    """List the programs that the decision is about, and the command lines that start them."""
    try:
        program = program_of(inputs)
    except EvidenceError:
        return frozenset(), frozenset()
    started = [os.path.realpath(path) for path in program.started]
    commands = zip(started, (argv[1:] for argv in program.commands), strict=False)
    return frozenset((*started, *((os.path.realpath(program.path),) if program.path else ()))), frozenset(commands)


def code_folders(inputs: JobInputs) -> tuple[str, ...]:
    """List the folders with a job's own code: its repository, and the environments of the programs that were decided.

    The repository is watched as `resource.code`, the environment as `resource.environment`. A folder on PATH is none
    of them: the submitter chooses PATH, and nothing measures what it names.
    """
    try:
        program = program_of(inputs)
        started = (*program.started, program.interpreter)
    except EvidenceError:
        started = ()
    prefixes = dict.fromkeys(prefix for path in started for prefix in installations(path))
    folders = [folder for prefix in prefixes for folder in _folders_of_prefix(prefix)]
    root = code_root(inputs)
    return (*(() if root is None else (root, os.path.realpath(root))), *folders)


def measured_libraries(inputs: JobInputs, bound: Mapping[str, Value]) -> tuple[str, ...]:
    """List the folders on a job's LD_LIBRARY_PATH whose content the decision binds.

    Args:
        inputs: the job.
        bound: the facts of the decision.
    """
    digests = bound.get(INJECTED_FILES)
    if not isinstance(digests, FrozenMap):
        return ()
    folders = paths_of(inputs.environment.get("LD_LIBRARY_PATH", ""), inputs.directory)
    measured = [path for path in folders if printable_name(inputs.recorded(path)) in digests]
    return tuple(os.path.realpath(os.path.join(inputs.directory, path)) for path in measured)


def _folders_of_prefix(prefix: str) -> tuple[str, ...]:
    """List the code folders of an installation; never the whole prefix, which may be a home folder."""
    if not os.path.isabs(prefix):
        return ()
    folders = [os.path.join(prefix, name) for name in ("bin", "lib", "lib64", "libexec")]
    return tuple(dict.fromkeys(path for folder in folders for path in (folder, os.path.realpath(folder))))


def _caches(environment: Mapping[str, str]) -> tuple[str, ...]:
    home = environment.get("HOME", "")
    named = [environment[name] for name in CACHE_VARIABLES if os.path.isabs(environment.get(name, ""))]
    usual = [home + path[1:] if path.startswith("~") else path for path in CACHES if home or not path.startswith("~")]
    return (*named, *usual)


def _lies_in(path: str, folders: tuple[str, ...]) -> bool:
    for folder in folders:
        if folder.endswith("*"):
            if path.startswith(folder[:-1]):
                return True
        elif is_below(path, folder):
            return True
    return False


def _is_device(running: Process, mapped: Mapped) -> bool:
    """Return True for a device file, as drivers map them."""
    try:
        return stat.S_ISCHR(os.stat(b"/proc/%d/root%s" % (running.pid, mapped.path)).st_mode)
    except OSError:
        return False


def _is_private(running: Process, mapped: Mapped) -> bool:
    """Return True if only the job's own account, or root, can have written this cache file."""
    path = b"/proc/%d/root%s" % (running.pid, mapped.path)
    try:
        file, folder = os.stat(path), os.stat(os.path.dirname(path))
    except OSError:
        return False
    return all(status.st_uid in (running.uid, 0) and not status.st_mode & 0o022 for status in (file, folder))


def _name(mapped: Mapped) -> str:
    return os.fsdecode(mapped.path) + (" (deleted)" if mapped.deleted and not mapped.is_memory else "")


def _summary(findings: Mapping[str, None]) -> str:
    named = list(findings)
    more = f"; and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return "; ".join(named[:MAX_NAMED]) + more
