"""The command that is about to start: its program, code-injecting variables, and the files that the job names.

Everything here is measured and bound: the worker measures it again and must get the same values (step V7).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress

from policyguard.confinement.profile import SYSTEM_PREFIXES
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.collector import Collected, JobInputs
from policyguard.evidence.injection import injection_variables
from policyguard.fs.ownership import is_below
from policyguard.fs.safe_open import file_record, read_start
from policyguard.git.directory import repository_root
from policyguard.model.facts import Assurance, Fact
from policyguard.model.request import Request
from policyguard.program.follow import Program, follow
from policyguard.text import printable_name
from policyguard.values import FrozenMap, Instant, Value

ARGV, DIRECTORY, EXECUTABLE = "resource.argv", "resource.directory", "resource.executable"
INJECTED, FILES = "resource.code_injecting_env", "resource.files"

MAX_FILES = 1_000
"""The maximum number of files that a job can name; more are a dataset."""

INSTALLED = (
    *("bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "etc", "ssl"),
    *("nvvm", "targets", "conda-meta", "pyvenv.cfg"),
)
"""What an interpreter needs of an installation. Other files and folders in it are not of the installation."""

_INTERPRETER = re.compile(r"(?:python|pypy|(?:ba|da|z|k)?sh|perl|ruby|node|julia|torchrun|deepspeed)[0-9.]*\Z")
_PROGRAM_TEXT = re.compile(r".\.(?:py|pyw|pyc|pyz|sh|bash|pl|rb|lua|jl|R)\Z")


class JobCollector:
    """Supplies argv, working directory, executable, code-injecting variables, and digests of the job's files."""

    name = "job"
    measures_contributors = False
    declares = (ARGV, DIRECTORY, EXECUTABLE, INJECTED, FILES)

    def collect(self, request: Request, inputs: JobInputs, now: Instant) -> Collected:  # noqa: ARG002
        """Measure the command; a part that cannot be measured is missing, with a reason."""
        measures: Mapping[str, Callable[[JobInputs], Value]] = {
            ARGV: _argv,
            DIRECTORY: _directory,
            EXECUTABLE: _executable,
            INJECTED: _injected,
            FILES: _files,
        }
        entries, missing = {}, {}
        for path, measure in measures.items():
            try:
                entries[path] = Fact(measure(inputs), Assurance.MEASURED, self.name, now, bound=True)
            except EvidenceError as problem:
                missing[path] = str(problem)
        return Collected(entries=entries, missing=missing)


def resolve_executable(argv: tuple[str, ...], directory: str, environment: Mapping[str, str]) -> str:
    """Return the absolute path that starting `argv` in `directory` with this PATH would run.

    Relative entries of PATH, and the empty one, mean the working directory, as execvp takes them.

    Args:
        argv: the command.
        directory: where it runs.
        environment: its environment.

    Raises:
        EvidenceError: there is no command, or nothing executable by that name.
    """
    if not argv or not argv[0]:
        raise EvidenceError("no command is given, expected a program and its arguments")
    command = argv[0]
    if "/" in command:
        path = shutil.which(os.path.join(directory, command))
    else:
        folders = environment.get("PATH", os.defpath).split(os.pathsep)
        path = shutil.which(command, path=os.pathsep.join(os.path.join(directory, folder) for folder in folders))
    if path is None:
        raise EvidenceError(f"`{printable_name(command)}`: found no executable program by this name")
    return os.path.abspath(path)


def program_of(inputs: JobInputs) -> Program:
    """Follow a job's command to the program that finally runs.

    Raises:
        EvidenceError: there is no such program.
    """
    return follow(inputs.argv, inputs.directory, inputs.environment, resolve_executable)


def code_root(inputs: JobInputs) -> str | None:
    """Return the top folder of a job's code: of the exported commit, else of its repository; None without either."""
    return inputs.export.folder if inputs.export is not None else repository_root(inputs.directory)


def installations(executable: str) -> tuple[str, ...]:
    """List the folders of the interpreters that a program runs with: its virtual environment and what that is built on.

    Only folders with `pyvenv.cfg`, `conda-meta` or a standard library count: a home folder with a `bin` is none.
    """
    prefixes: dict[str, None] = {}
    for path in (executable, os.path.realpath(executable)):
        folder = os.path.dirname(path)
        prefix = os.path.dirname(folder)
        if os.path.basename(folder) == "bin" and _is_installation(prefix):
            prefixes.setdefault(prefix)
            if (home := _built_on(prefix)) is not None and _is_installation(home):
                prefixes.setdefault(home)
    return tuple(prefixes)


def _is_installation(prefix: str) -> bool:
    # `/bin` is a link to `/usr/bin` on most systems, and the whole disk is nobody's environment.
    if prefix in ("/", *SYSTEM_PREFIXES):
        return False
    if any(os.path.exists(os.path.join(prefix, name)) for name in ("pyvenv.cfg", "conda-meta")):
        return True
    try:
        names = os.listdir(os.path.join(prefix, "lib"))
    except OSError:
        return False
    return any(
        name.startswith("python") and os.path.exists(os.path.join(prefix, "lib", name, "os.py")) for name in names
    )


def _built_on(prefix: str) -> str | None:
    """Read from pyvenv.cfg which installation a virtual environment takes its standard library from."""
    try:
        lines = os.fsdecode(read_start(os.path.join(prefix, "pyvenv.cfg"), 65_536)).splitlines()
    except ConfigurationError:
        return None
    values = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    home = values.get("home", "")
    return os.path.dirname(os.path.realpath(home)) if os.path.isabs(home) and "\0" not in home else None


def program_files(inputs: JobInputs) -> tuple[str, ...]:
    """List the arguments that name an existing program file, such as `train.py`, in order.

    For an interpreter its first argument that is a file counts as well, whatever its name, unless it runs a module or
    text (`-m`, `-c`).
    """
    arguments = inputs.argv[1:]
    existing = [name for name in arguments if os.path.lexists(os.path.join(inputs.directory, name))]
    programs = [name for name in existing if _PROGRAM_TEXT.search(name)]
    if inputs.argv and _INTERPRETER.match(os.path.basename(inputs.argv[0])) and not {"-m", "-c"} & set(arguments):
        files = [name for name in existing if not os.path.isdir(os.path.join(inputs.directory, name))]
        programs += [name for name in files if not name.startswith("-")][:1]
    return tuple(dict.fromkeys(programs))


def _argv(inputs: JobInputs) -> Value:
    if not inputs.argv:
        raise EvidenceError("no command is given, expected a program and its arguments")
    return tuple(printable_name(inputs.recorded(argument)) for argument in inputs.argv)


def _directory(inputs: JobInputs) -> Value:
    resolved = os.path.realpath(inputs.directory)
    if not os.path.isabs(inputs.directory) or not os.path.isdir(resolved):
        raise EvidenceError(
            f"`{printable_name(inputs.directory)}`: found no such folder, expected an absolute path to one"
        )
    return printable_name(inputs.recorded(resolved))


def _executable(inputs: JobInputs) -> Value:
    path = resolve_executable(inputs.argv, inputs.directory, inputs.environment)
    return file_record(path, printable_name(inputs.recorded(path)))


def injected_by(inputs: JobInputs) -> dict[str, str]:
    """List the variables and options of a job that can inject code; see `injection_variables`."""
    options: tuple[tuple[str, str], ...] = ()
    with suppress(EvidenceError):
        options = program_of(inputs).options
    return injection_variables(inputs.environment, inputs.argv, options)


def _injected(inputs: JobInputs) -> Value:
    variables = injected_by(inputs)
    return FrozenMap({name: inputs.recorded(value) for name, value in variables.items()})


def _files(inputs: JobInputs) -> Value:
    root = os.path.realpath(inputs.directory)
    names = {_location(root, name) for name in (*inputs.files, *program_files(inputs))}
    if len(names) > MAX_FILES:
        raise EvidenceError(f"the job names {len(names)} files, expected at most {MAX_FILES}")
    return tuple(file_record(os.path.join(root, name), printable_name(inputs.recorded(name))) for name in sorted(names))


def _location(root: str, name: str) -> str:
    """Return a file's name for the record: relative inside the job's folder, else absolute and resolved."""
    if not name or "\0" in name:
        raise EvidenceError(f"`{printable_name(name)}`: found no file name")
    resolved = os.path.realpath(os.path.join(root, name))
    if resolved != root and is_below(resolved, root):
        return os.path.relpath(resolved, root)
    # INVARIANT I15: a relative name that leads out of the job's folder is refused, an absolute one stays visible.
    if not os.path.isabs(name):
        raise EvidenceError(
            f"`{printable_name(name)}`: leads to `{printable_name(resolved)}`, expected a file inside the job's folder"
        )
    return resolved
