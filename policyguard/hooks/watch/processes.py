"""The running processes of a job: code that came into them, who is attached, and doors opened on the way.

What is patched in memory cannot be seen from outside. What brings the patch in often can: a library that is mapped for
execution and comes from nowhere a job's code comes from, one that has no name any more, a debugger. What was found
stays found: a library that is unloaded again, or a debugger that went, did not undo what it did.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.job import injection_variables, resolve_executable
from policyguard.evidence.processes import Mapped, Process, describe, family_of, process
from policyguard.hooks.watch.drift import PROCESS, PROCESS_UNSEEN, Drift
from policyguard.text import printable_name

SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/opt", "/nix/store", "/dev")
"""Where a machine keeps code that only administrators write. GPU drivers map devices; /dev/shm holds none."""

CACHE_VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME")
CACHES = ("~/.cache", "~/.triton", "~/.nv", "/tmp/torchinductor_*")
"""Where compilers of kernels put libraries while a job runs. They belong only if nobody else can have written them."""

INJECTING = frozenset(
    {"LD_PRELOAD", "LD_AUDIT", "GCONV_PATH", "BASH_ENV", "PYTHONSTARTUP", "PYTHONHOME", "PYTHON_EXEC"}
)
"""Doors that no framework opens for the processes it starts; paths it does (PYTHONPATH, LD_LIBRARY_PATH)."""

UNSEEN_LOOKS = 2
MOST_NAMED = 5


class JobProcesses:
    """Looks at one job's processes once it `began`; `look` is one look and returns all that was ever found.

    Args:
        mark: text of the job's environment, by which a process is known that left its family.
        libraries: folders of the operator's where code of jobs lies besides.
    """

    def __init__(self, inputs: JobInputs, mark: str = "", libraries: Sequence[str] = ()) -> None:
        self._root, self._mark = 0, os.fsencode(mark)
        self._doors = injection_variables(inputs.environment, inputs.argv)
        self._folders = (*SYSTEM_FOLDERS, *code_folders(inputs), *map(os.path.realpath, libraries))
        self._caches = _caches(inputs.environment)
        self._known: set[tuple[bytes, bytes, int]] = set()
        self._first = True
        self._found: dict[str, None] = {}
        self._unseen: dict[int, int] = {}

    def began(self, pid: int) -> None:
        """Remember the job's first process."""
        self._root = pid

    def look(self) -> tuple[Drift, ...]:
        """Look at every process of the job now."""
        if not self._root:
            return ()
        try:
            family = family_of(self._root, self._mark)
        except OSError as problem:
            words = f"cannot be looked at: {(problem.strerror or '').lower()}"
            return (Drift("resource.process_unseen", PROCESS_UNSEEN, words, words),)
        for pid in family:
            try:
                seen = process(pid)
            except PermissionError:
                self._unseen[pid] = self._unseen.get(pid, 0) + 1
                continue
            if seen is not None:
                self._judge(seen, family)
        self._first = self._first and not family
        found = [Drift("resource.process", PROCESS, _words(self._found), "\n".join(self._found))] if self._found else []
        hidden = sorted(pid for pid, looks in self._unseen.items() if looks >= UNSEEN_LOOKS)
        if hidden:
            words = f"cannot be looked at: {', '.join(f'pid {pid}' for pid in hidden[:MOST_NAMED])}"
            found.append(Drift("resource.process_unseen", PROCESS_UNSEEN, words, str(hidden)))
        return tuple(found)

    def _judge(self, seen: Process, family: list[int]) -> None:
        if self._first:
            self._folders += _folders_of_prefix(_prefix(os.fsdecode(seen.executable)))
        for mapped in seen.mapped:
            # A file that a job uses keeps its right to be there when somebody deletes it.
            file = (mapped.path, mapped.device, mapped.inode)
            if file in self._known:
                continue
            if self._belongs(seen, mapped):
                self._known.add(file)
            elif mapped.is_elf or not (mapped.is_memory or mapped.deleted):
                self._tell(f"+ {_name(mapped)} (in {os.path.basename(os.fsdecode(seen.executable))})")
        # INVARIANT I15: whoever is attached to a job and does not belong to it is told.
        if seen.tracer and seen.tracer not in family:
            self._tell(f"traced by {describe(seen.tracer)}")
        for name in sorted(INJECTING & seen.doors.keys()):
            if seen.doors[name] != self._doors.get(name):
                self._tell(f"{name}={seen.doors[name][:80]} (in {os.path.basename(os.fsdecode(seen.executable))})")

    def _belongs(self, seen: Process, mapped: Mapped) -> bool:
        # INVARIANT I15: code without a name, in memory or deleted, never belongs where it was not seen before.
        if mapped.is_memory or mapped.deleted:
            return False
        path = os.fsdecode(mapped.path)
        if path.startswith("/dev/shm/"):
            return False
        if _lies_in(path, self._folders):
            return True
        return _lies_in(path, self._caches) and _is_private(seen, mapped)

    def _tell(self, words: str) -> None:
        self._found.setdefault(printable_name(words))


def code_folders(inputs: JobInputs) -> tuple[str, ...]:
    """Return the folders below which a job's own code lies: its repository, its environment, those on its PATH.

    The repository is watched as `resource.code`, the environment as `resource.environment`.
    """
    prefixes = [os.path.dirname(folder.rstrip("/")) for folder in inputs.environment.get("PATH", "").split(os.pathsep)]
    try:
        executable = resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    except EvidenceError:
        executable = ""
    prefixes += [_prefix(executable), _prefix(os.path.realpath(executable))]
    folders = [folder for prefix in prefixes for folder in _folders_of_prefix(prefix)]
    named = [each for each in inputs.environment.get("LD_LIBRARY_PATH", "").split(os.pathsep) if os.path.isabs(each)]
    return (*_repository(inputs.directory), *folders, *named)


def _prefix(executable: str) -> str:
    """Return the folder above the `bin` that a program lies in, "" if it lies in none."""
    folder = os.path.dirname(executable)
    return os.path.dirname(folder) if os.path.basename(folder) in ("bin", "sbin") else ""


def _folders_of_prefix(prefix: str) -> tuple[str, ...]:
    """Return where an installation keeps code; never the whole prefix, which may be somebody's home or /tmp."""
    if not os.path.isabs(prefix):
        return ()
    found = [os.path.join(prefix, name) for name in ("bin", "lib", "lib64", "libexec")]
    return tuple(dict.fromkeys(each for folder in found for each in (folder, os.path.realpath(folder))))


def _repository(directory: str) -> tuple[str, ...]:
    folder = os.path.realpath(directory)
    while not os.path.lexists(os.path.join(folder, ".git")):
        if folder == "/":
            return ()
        folder = os.path.dirname(folder)
    return (folder,)


def _caches(environment: Mapping[str, str]) -> tuple[str, ...]:
    home = environment.get("HOME", "")
    named = [environment[name] for name in CACHE_VARIABLES if os.path.isabs(environment.get(name, ""))]
    usual = [home + each[1:] if each.startswith("~") else each for each in CACHES if home or not each.startswith("~")]
    return (*named, *usual)


def _lies_in(path: str, folders: tuple[str, ...]) -> bool:
    for folder in folders:
        if folder.endswith("*"):
            if path.startswith(folder[:-1]):
                return True
        elif path.startswith(folder.rstrip("/") + "/"):
            return True
    return False


def _is_private(seen: Process, mapped: Mapped) -> bool:
    """Return whether only the job's own user, or root, can have written this file of a cache."""
    path = b"/proc/%d/root%s" % (seen.pid, mapped.path)
    try:
        file, folder = os.stat(path), os.stat(os.path.dirname(path))
    except OSError:
        return False
    return all(each.st_uid in (seen.uid, 0) and not each.st_mode & 0o022 for each in (file, folder))


def _name(mapped: Mapped) -> str:
    return os.fsdecode(mapped.path) + (" (deleted)" if mapped.deleted and not mapped.is_memory else "")


def _words(found: Mapping[str, None]) -> str:
    named = list(found)
    more = f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return "; ".join(named[:MOST_NAMED]) + more
