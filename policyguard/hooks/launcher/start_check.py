"""Checks right after the start of a job that what was started is what was measured.

After the last measurement, and before the kernel and then an interpreter read a file, its owner can replace it. A file
that is replaced or written to gets another inode or change time (ctime), which only root can set. So the files of the
program are compared before the last measurement and after the start, and what was put back is noticed, too.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TypeAlias

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.injection import injection_variables
from policyguard.evidence.job import program_files, program_of, resolve_executable
from policyguard.evidence.processes import read_of, variables_in
from policyguard.fs.safe_open import version_of
from policyguard.hooks.watch.processes import SYSTEM_FOLDERS, code_folders
from policyguard.text import printable_name, quoted
from policyguard.values import format_instant

DELAYS_S = (0.02, 0.03, 0.05, 0.15, 0.25)
"""Times between the checks after the first: an interpreter reads its script some milliseconds after it was started."""

MAX_LINKS = 40

_TICK_NS = 20_000_000
"""More than a tick of the kernel's clock, of which files get their times."""
_TRIES = 10

_BETWEEN = "between the measurement and the start"

_Version: TypeAlias = tuple[int, ...] | None
"""What identifies a file's content: device, inode, size, times; device and inode of a folder; None if it is gone."""


class StartCheck:
    """What a job's program was just before its last measurement; make one before that, and close it at the end.

    `directory` is a name of the job's folder that stays the same folder, whatever is renamed.

    Args:
        inputs: the job.

    Raises:
        EvidenceError: there is no such program.
    """

    def __init__(self, inputs: JobInputs) -> None:
        self._inputs = inputs
        self._programs = tuple(dict.fromkeys(_programs(inputs)))
        named = [os.path.join(inputs.directory, name) for name in inputs.files]
        self._versions = _settled((*self._programs, inputs.directory))
        self._named = _settled(named)
        self._descriptor, self.directory = _pinned(inputs.directory)

    def close(self) -> None:
        """Close the job's folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def first_problem(self, pid: int, environment: Mapping[str, str]) -> str:
        """Compare what runs, right after the start; return the first difference, or an empty text.

        Args:
            pid: of the job's first process.
            environment: the variables that it was started with.
        """
        return self.problem() or _changed(self._named) or self._problem_of_process(pid, environment)

    def problem(self) -> str:
        """Compare the files of the program; return the first difference, or an empty text."""
        changed = _changed(self._versions)
        if not changed and self._descriptor >= 0:
            # What is measured is found by its name, and the job starts in the folder that is open.
            status = os.fstat(self._descriptor)
            real = os.path.realpath(self._inputs.directory)
            if _version(real) != (status.st_dev, status.st_ino):
                changed = f"`{printable_name(real)}` was replaced {_BETWEEN}"
        return changed

    def _problem_of_process(self, pid: int, environment: Mapping[str, str]) -> str:
        argv = b"".join(os.fsencode(argument) + b"\0" for argument in self._inputs.argv)
        # What cannot be read has ended, or belongs to another account since it was started.
        with suppress(OSError):
            # A process that has become the next program, as wrappers and scripts do, is not compared.
            if read_of(pid, "cmdline") == argv:
                program, variables = os.readlink(f"/proc/{pid}/exe"), variables_in(read_of(pid, "environ"))
                is_ours = _version(f"/proc/{pid}/exe") in {_version(os.path.realpath(path)) for path in self._programs}
                if read_of(pid, "cmdline") == argv:
                    return self._foreign(program, is_ours=is_ours) or _other_variables(environment, variables)
        return ""

    def _foreign(self, program: str, *, is_ours: bool) -> str:
        # Wrappers of some package managers keep the name that they were started by.
        if is_ours or any(
            program.startswith(folder + "/") for folder in (*SYSTEM_FOLDERS, *code_folders(self._inputs))
        ):
            return ""
        return f"`{printable_name(program)}` runs, expected `{printable_name(self._programs[0])}`"


def _pinned(directory: str) -> tuple[int, str]:
    """Open a folder, and return the descriptor with a name that leads through it; -1 where there is no such name."""
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return -1, directory
    name = f"/proc/self/fd/{descriptor}"
    if not os.path.isdir(name):
        os.close(descriptor)
        return -1, directory
    return descriptor, name


def _programs(inputs: JobInputs) -> Iterator[str]:
    """Yield the files that the command executes, its own executable first."""
    yield resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    with suppress(EvidenceError):
        program = program_of(inputs)
        yield from program.started
        if program.path:
            yield program.path
    for name in program_files(inputs):
        yield os.path.join(inputs.directory, name)


def _ways(paths: Iterable[str]) -> Iterator[str]:
    """Yield each path, and every folder and link on the way to its file."""
    for path in paths:
        pending = [os.path.abspath(path)]
        for _ in range(MAX_LINKS):
            if not pending:
                break
            way = pending.pop()
            parts = way.split("/")
            for end in range(2, len(parts) + 1):
                prefix = "/".join(parts[:end])
                yield prefix
                if os.path.islink(prefix):
                    target = os.path.join(os.path.dirname(prefix), os.readlink(prefix))
                    pending.append(os.path.normpath(os.path.join(target, *parts[end:])))
                    break


def _settled(paths: Iterable[str]) -> dict[str, _Version]:
    """Return the versions of files on all ways there, once none of them was changed a moment ago.

    Two changes within one tick of the kernel's clock have the same time.
    """
    ways = tuple(_ways(paths))
    for _ in range(_TRIES):
        versions = {path: _version(path) for path in ways}
        newest = max(
            (version[-1] for version in versions.values() if version is not None and len(version) > 2), default=0
        )
        if not 0 <= time.time_ns() - newest < _TICK_NS:
            break
        time.sleep(_TICK_NS / 1e9)
    return versions


def _version(path: str) -> _Version:
    try:
        status = os.stat(path) if path.startswith("/proc/") else os.lstat(path)
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        # What is in a folder changes its times; a job writes into its own.
        return (status.st_dev, status.st_ino)
    return version_of(status)


def _changed(versions: Mapping[str, _Version]) -> str:
    for path, before in versions.items():
        now = _version(path)
        if now != before:
            return f"`{printable_name(path)}` {_difference(before, now)} {_BETWEEN}"
    return ""


def _difference(before: _Version, now: _Version) -> str:
    if now is None:
        return "was removed"
    if before is None:
        return "was created"
    if before[:2] != now[:2]:
        return "was replaced"
    return f"was changed at {format_instant(now[-1])}"


def _other_variables(environment: Mapping[str, str], variables: Mapping[str, str]) -> str:
    expected, actual = injection_variables(environment), injection_variables(variables)
    for name in sorted({*expected, *actual}):
        if expected.get(name) != actual.get(name):
            return (
                f"`{name}` is {quoted(actual.get(name, 'not set'))}, expected {quoted(expected.get(name, 'not set'))}"
            )
    return ""
