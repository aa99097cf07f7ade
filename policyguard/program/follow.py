"""Follows a command line through interpreters and common wrappers to the program that finally runs."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

import msgspec

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import open_plain
from policyguard.program.grammar import NotFollowed, grammar, read_options
from policyguard.program.interpreters import (
    PYTHON,
    SHELL,
    WITHOUT_PREFIX,
    located,
    may_be_installed,
    plain_text,
    python_problem,
    read_python,
    script_command,
    shell_command,
    shell_variable,
)
from policyguard.program.launchers import RANK_LAUNCHERS
from policyguard.program.wrappers import FOLDER_OPTIONS, MODULES, ONLY, OPTION_VARIABLES, WRAPPERS, Wrapper

MAX_STEPS = 16
"""More wrappers around wrappers than this nobody needs."""

Resolve = Callable[[tuple[str, ...], str, Mapping[str, str]], str]
"""Finds the executable file of a command, in a folder, with an environment."""

_MAGIC = (b"\x0c", b"\x0d", b"\x0e")
"""The second byte of CPython's byte code, by which `python FILE` knows it, whatever the name."""

_PREFIX = "PYTHONPYCACHEPREFIX"
"""The launcher sets it (`hooks/launcher/launch.py`); so it is followed through what changes variables."""

_OURS = "\0"
"""Its value, which no argument can have."""

_INTERPRETER_LINE = re.compile(rb"#![ \t]*([^ \t\0]+)[ \t]*(.*?)[ \t]*\Z", re.DOTALL)
"""As the kernel reads it (fs/binfmt_script.c): all that follows the interpreter is one argument."""

MAX_LINE_BYTES = 256
MAX_SCRIPT_BYTES = 65_536

_ENV = grammar(
    "-i --ignore-environment -0 --null -v --debug --list-signal-handling",
    "-u --unset -C --chdir",
    "-S --split-string",
    optional="--default-signal --ignore-signal --block-signal",
)


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The program that a command line finally runs.

    `kind` is script, module, inline, binary, shell or unknown. `path` is the absolute path of its file, "" for a module
    of the environment and for text; `module` is the name after `-m`. `reason` says why it is unknown. `started` are the
    executables on the way, `options` what the Pythons among them got, also where the program is unknown; `commands` are
    the command lines that start the first of them. `interpreter` is the last, or that of the one command of a shell's
    script. `keeps_prefix` says that `PYTHONPYCACHEPREFIX`, if the command has it, certainly holds for the Python that
    runs the program.
    """

    kind: str
    path: str = ""
    module: str = ""
    reason: str = ""
    started: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    keeps_prefix: bool = False
    interpreter: str = ""


def follow(argv: Sequence[str], directory: str, environment: Mapping[str, str], resolve: Resolve) -> Program:
    """Follow a command line to the program that finally runs.

    Args:
        argv: the command.
        directory: the folder that it runs in.
        environment: its variables.
        resolve: finds executables; what it raises is raised here.
    """
    return _followed(_Following(tuple(argv), directory, environment, resolve), MAX_STEPS)


def _followed(following: _Following, scripts: int) -> Program:
    try:
        program = following.run()
    except NotFollowed as problem:
        program = Program(kind="unknown", reason=str(problem))
    interpreter = following.started[-1] if following.started else ""
    if program.path and scripts and SHELL.match(os.path.basename(os.path.realpath(interpreter))):
        with suppress(NotFollowed, EvidenceError):
            inner = _followed(following.in_script(program.path), scripts - 1)
            interpreter = inner.interpreter if inner.kind != "unknown" else interpreter
    return msgspec.structs.replace(
        program,
        started=tuple(following.started),
        options=tuple(following.options),
        commands=tuple(following.commands),
        interpreter=interpreter,
    )


class _Following:
    def __init__(self, argv: tuple[str, ...], directory: str, environment: Mapping[str, str], resolve: Resolve) -> None:
        self._argv, self._directory, self._resolve = argv, directory, resolve
        self._environment = {**environment, _PREFIX: _OURS}
        self._may_lose_prefix = False
        self.started: list[str] = []
        self.options: list[tuple[str, str]] = []
        self._script_of_line = ""
        self.commands: list[tuple[str, ...]] = []

    def run(self) -> Program:
        for _ in range(MAX_STEPS):
            program = self._step()
            if program is not None:
                is_python = program.kind in ("script", "module") and bool(program.path)
                keeps = is_python and not self._may_lose_prefix and self._environment.get(_PREFIX) == _OURS
                program = msgspec.structs.replace(program, keeps_prefix=keeps)
                return self._of_line(program) if self._script_of_line else program
        raise NotFollowed(f"more than {MAX_STEPS} programs start each other")

    def in_script(self, path: str) -> _Following:
        """Prepare to follow the one command of a shell's script."""
        with _opened(path) as file:
            text = file.read(MAX_SCRIPT_BYTES + 1)
        if len(text) > MAX_SCRIPT_BYTES:
            raise NotFollowed(f"`{path}` is longer than {MAX_SCRIPT_BYTES} bytes")
        command = script_command(os.fsdecode(text))
        return _Following(command, self._directory, self._environment, self._resolve)

    def _of_line(self, program: Program) -> Program:
        """Name the program of a file that names its interpreter a script, whatever interprets it."""
        if program.kind == "binary":
            name = os.path.basename(program.path)
            raise NotFollowed(f"`{self._script_of_line}` is run by `{name}`, whose options and files are not followed")
        return msgspec.structs.replace(program, kind="script") if program.kind == "shell" else program

    def _step(self) -> Program | None:
        """Follow one program; None if it starts another one, which `_argv` then is."""
        if not self._argv:
            raise NotFollowed("a wrapper has no command")
        executable = self._resolve(self._argv, self._directory, self._environment)
        self.started.append(executable)
        self.commands.append(self._argv)
        # What a program does depends on what the link leads to, not on its name.
        name, arguments = os.path.basename(os.path.realpath(executable)), self._argv[1:]
        if PYTHON.match(name):
            self._may_lose_prefix |= bool(WITHOUT_PREFIX.match(name))
            return self._python(arguments)
        if SHELL.match(name):
            return self._shell(arguments)
        if name == "env":
            return self._env(arguments)
        if name in WRAPPERS:
            return self._wrapper(name, WRAPPERS[name], arguments)
        return self._file(executable, arguments)

    def _python(self, arguments: tuple[str, ...]) -> Program | None:
        options = read_python(arguments)
        self.options += options.read
        self._may_lose_prefix |= options.value("-E", "-I") is not None
        problem = python_problem(options)
        if problem is not None:
            raise NotFollowed(problem)
        if options.value("-c") is not None:
            return Program(kind="inline", reason="`-c` runs text")
        module = options.value("-m")
        if module is not None:
            # With `-E` Python reads no variables.
            by_variable = options.value("-E") is None and self._has_safe_path()
            safe = options.value("-I", "-P") is not None or by_variable
            return self._module(module, options.rest, in_folder=not safe)
        if not options.rest or options.rest[0] == "-":
            raise NotFollowed("the interpreter reads its program from standard input")
        return self._script(options.rest[0])

    def _has_safe_path(self) -> bool:
        return bool(self._environment.get("PYTHONSAFEPATH"))

    def _module(self, module: str, rest: tuple[str, ...], *, in_folder: bool) -> Program | None:
        if not all(part.isidentifier() for part in module.split(".")):
            raise NotFollowed(f"`{module}` is no name of a module")
        path = self._in_folder(module) if in_folder else ""
        if path:
            if os.path.realpath(path) != os.path.join(
                os.path.realpath(self._directory), os.path.relpath(path, self._directory)
            ):
                raise NotFollowed(f"module `{module}` is a link, and would import what is beside the link")
            return Program(kind="module", path=path, module=module)
        wrapper = MODULES.get(module)
        if wrapper is None:
            return Program(kind="module", module=module)
        return self._wrapper(module, wrapper, rest, in_folder=in_folder)

    def _in_folder(self, module: str) -> str:
        """Find a module's file in the folder that the command runs in; "" if it is not there."""
        first, *inner = module.split(".")
        file, package = located(self._directory, first)
        if not (file or package):
            return ""
        home = self._environment.get("HOME", "")
        if may_be_installed(first, self.started[-1], home, is_namespace=not file):
            raise NotFollowed(f"`{first}` is in the job's folder, and may be installed as well: rename it")
        files = [file]
        for part in inner:
            file, package = located(package, part)
            files.append(file)
        if package:
            file, package = located(package, "__main__")
            files.append(file)
        foreign = next((file for file in files if file and not file.endswith(".py")), None)
        if foreign is not None:
            raise NotFollowed(f"`{foreign}` is byte code or an extension module, expected source")
        if not file or package:
            raise NotFollowed(f"module `{module}` has no file in the job's folder, which has `{first}`")
        return os.path.abspath(file)

    def _script(self, name: str, *, may_be_link: bool = True) -> Program:
        path = os.path.abspath(os.path.join(self._directory, name))
        if os.path.isdir(path):
            # Python imports from the folder that is named, but from that of the file where a link to a script is.
            path, may_be_link = located(path, "__main__")[0] or os.path.join(path, "__main__.py"), False
        if not may_be_link and os.path.dirname(os.path.realpath(path)) != os.path.realpath(os.path.dirname(path)):
            raise NotFollowed(f"`{path}` is a link, and would take files from beside the link: name the file itself")
        if not os.path.isfile(path):
            raise NotFollowed(f"`{name}` is no file")
        with _opened(path) as file:
            start = file.read(4)
            is_bytecode = path.endswith((".pyc", ".so")) or (start[1:2] in _MAGIC and start[2:4] == b"\r\n")
            if is_bytecode or start[:2] == b"PK" or zipfile.is_zipfile(file):
                raise NotFollowed(f"`{name}` is byte code or an archive, expected source")
        return Program(kind="script", path=path)

    def _shell(self, arguments: tuple[str, ...]) -> Program | None:
        variable = shell_variable(self._environment)
        if variable is not None:
            raise NotFollowed(f"`{variable}` gives a shell options or commands")
        script, command = shell_command(arguments)
        if script is None:
            if f"BASH_FUNC_{command[0]}%%" in self._environment:
                raise NotFollowed(f"`BASH_FUNC_{command[0]}%%` is what a shell runs for `{command[0]}`")
            self._argv = command
            return None
        program = self._script(script, may_be_link=False)
        return msgspec.structs.replace(program, kind="shell")

    def _env(self, arguments: tuple[str, ...]) -> Program | None:
        directory = self._directory
        options = read_options(arguments, _ENV)
        while True:
            for name, value in options.read:
                if name in ("-i", "--ignore-environment"):
                    self._environment = {}
                elif name in ("-u", "--unset"):
                    self._environment.pop(value, None)
                elif name in FOLDER_OPTIONS:
                    self._directory = os.path.join(directory, value)
            if not options.read or options.read[-1][0] not in _ENV.ending:
                break
            # GNU env puts the words of the string where its option was, and goes on reading options.
            options = read_options((*plain_text(options.read[-1][1]), *options.rest), _ENV)
        argv = list(options.rest)
        if argv[:1] == ["-"]:
            self._environment, argv = {}, argv[1:]
        while argv and "=" in argv[0]:
            name, _, value = argv.pop(0).partition("=")
            self._environment[name] = value
        if argv[:1] == ["exec"]:
            raise NotFollowed("`env` has no `exec`")
        self._argv = tuple(argv)
        return None

    def _wrapper(
        self, name: str, wrapper: Wrapper, arguments: tuple[str, ...], *, in_folder: bool = True
    ) -> Program | None:
        if wrapper.subcommand:
            if arguments[:1] != (wrapper.subcommand,):
                raise NotFollowed(f"`{name}` is not followed, expected `{name} {wrapper.subcommand}`")
            arguments = arguments[1:]
        beginnings = OPTION_VARIABLES.get(name, ())
        for variable in self._environment:
            if variable.startswith(beginnings):
                raise NotFollowed(f"`{variable}` gives `{name}` options")
        options = read_options(arguments, wrapper.options)
        directory = self._directory
        # DeepSpeed reads variables for other nodes from `.deepspeed_env`, in the home folder as well.
        self._may_lose_prefix |= any("deepspeed" in text for text in (name, *(option for option, _ in options.read)))
        for option, value in options.read:
            if value not in ONLY.get(option, (value,)):
                raise NotFollowed(f"`{name} {option}={value}` is not followed")
            if name == "srun" and option in FOLDER_OPTIONS[1:]:
                self._directory = os.path.join(directory, value)
            if (option, value) == ("--export", "NONE"):
                self._environment = {name: self._environment[name] for name in ("PATH",) if name in self._environment}
        is_launcher = name in RANK_LAUNCHERS
        # A launcher starts Pythons of its own, without the options `-I` and `-P`.
        in_folder = not self._has_safe_path() if is_launcher else in_folder
        if (module := options.value(*(wrapper.options.ending & {"-m"}))) is not None:
            return self._module(module, options.rest, in_folder=in_folder)
        rest = options.rest[wrapper.operands :]
        if not rest:
            raise NotFollowed(f"`{name}` has no command")
        if wrapper.starts == "module" or options.value(*wrapper.module_flags) is not None:
            return self._module(rest[0], rest[1:], in_folder=in_folder)
        if wrapper.starts == "python" and options.value(*wrapper.command_flags) is None:
            return self._script(rest[0], may_be_link=is_launcher)
        self._argv = rest
        return None

    def _file(self, executable: str, arguments: tuple[str, ...]) -> Program | None:
        with _opened(executable) as file:
            start = file.read(MAX_LINE_BYTES)
        if start.startswith(b"\x7fELF"):
            return Program(kind="binary", path=executable)
        if not start.startswith(b"#!"):
            raise NotFollowed(f"`{executable}` is neither a program of this system nor a script")
        line, end, _ = start.partition(b"\n")
        match = _INTERPRETER_LINE.match(line)
        interpreter = os.fsdecode(match[1]) if match is not None else ""
        if match is None or not os.path.isabs(interpreter) or not (end or len(start) < MAX_LINE_BYTES):
            raise NotFollowed(f"`{executable}` names no interpreter by its path, in a line of {MAX_LINE_BYTES} bytes")
        name = os.path.basename(os.path.realpath(interpreter))
        if not (PYTHON.match(name) or SHELL.match(name) or name == "env"):
            raise NotFollowed(f"`{executable}` is run by `{name}`, whose options and start files are not followed")
        self._script_of_line = executable
        self._argv = (interpreter, *((os.fsdecode(match[2]),) if match[2] else ()), executable, *arguments)
        return None


def _opened(path: str) -> BinaryIO:
    """Open a regular file without blocking on a FIFO."""
    try:
        descriptor, _ = open_plain(path, follow_links=True)
    except OSError as problem:
        raise NotFollowed(f"`{path}` cannot be read: {problem.strerror}") from problem
    return os.fdopen(descriptor, "rb")
