"""Which code a running interpreter was started with, by its command line: the kernel sees scripts only as data.

A program that comes from elsewhere, or that the command line does not determine, is reported. Text (`-c`) is not: the
workers of data loaders and compilers are started with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from policyguard.evidence.processes import Process
from policyguard.program.counts import tokens_of
from policyguard.program.grammar import NotFollowed
from policyguard.program.interpreters import PYTHON, SHELL, X_OPTIONS, read_python, shell_operands

IsOurs = Callable[[str], bool]
"""Whether a resolved path is the decided program, or in a folder of the job's measured code."""

_LINKER = re.compile(r"ld(?:-linux[\w-]*|-musl-\w+|64|-[0-9.]+)?\.so(?:\.[0-9]+)*\Z")
"""The names of dynamic linkers, which run any file that they are given: `ld.so FILE`."""

_OTHERS = re.compile(
    r"(?:perl|ruby|node|nodejs|bun|deno|php|luajit|lua|julia|tclsh|wish|expect|Rscript|guile|zsh|fish|t?csh|mksh|"
    r"busybox|pwsh)[0-9.]*\Z"
)
"""Other interpreters: the first argument that is a file is their program, unless text is given before."""

_TEXT = re.compile(r"-[0-9lnpaiswWtT]*[ecE]\Z|--eval\Z|-r\Z")


def foreign_code(running: Process, executable: str, directory: str, is_ours: IsOurs) -> str:
    """Describe the code from elsewhere that a process was started with; empty if there is none.

    Args:
        running: the process.
        executable: its program.
        directory: the folder of the job: where a relative name was meant if the process has changed its folder.
        is_ours: tells the job's own code.
    """
    name = os.path.basename(executable)
    line = " ".join(running.argv)[:200]
    if _LINKER.match(name):
        return f"runs a file by the dynamic linker: {line}"
    follow = _python if PYTHON.match(name) else _shell if SHELL.match(name) else _other if _OTHERS.match(name) else None
    if follow is None or not running.argv:
        return ""
    try:
        paths = [*follow(running.argv[1:], running.directory)]
    except NotFollowed as problem:
        return "" if _is_retitled(running, is_ours) else f"a program that cannot be followed, {problem}: {line}"
    for path in paths:
        if foreign := _foreign(path, running.directory or directory, directory, is_ours):
            return f"+ {foreign} (run by {name})"
    return ""


def _python(arguments: tuple[str, ...], directory: str) -> Iterator[str]:
    options = read_python(arguments)
    for option, value in options.read:
        if option == "-X" and value.partition("=")[0] not in X_OPTIONS:
            raise NotFollowed(f"`-X {value}` is not known, or takes code from another folder")
        if option == "-i":
            raise NotFollowed("`-i` reads more of the program from standard input")
    if options.value("-c") is not None:
        return
    module = options.value("-m")
    if module is not None:
        if options.value("-I", "-P") is None:
            yield from _modules(module, directory)
    elif not any(options.rest) or options.rest[0] == "-":
        raise NotFollowed("the interpreter reads its program from standard input")
    else:
        yield options.rest[0]


def _modules(module: str, directory: str) -> Iterator[str]:
    """Yield the files by which `python -m` would take a module from the folder that it runs in."""
    first, full = os.path.join(directory, module.partition(".")[0]), os.path.join(directory, *module.split("."))
    files = [f"{path}{end}" for path in (first, full) for end in (".py", ".pyc", "/__init__.py", "/__init__.pyc")]
    for path in (*files, f"{full}/__main__.py", f"{full}/__main__.pyc"):
        if os.path.isfile(path):
            yield path
    try:
        names = os.listdir(directory)
    except OSError:
        return
    stem = os.path.basename(first) + "."
    yield from (os.path.join(directory, name) for name in names if name.startswith(stem) and name.endswith(".so"))


def _shell(arguments: tuple[str, ...], directory: str) -> Iterator[str]:  # noqa: ARG001
    is_text, operands = shell_operands(arguments)
    if not is_text:
        yield operands[0]
        return
    tokens = tokens_of((operands[0],))[1:]
    for word, name in pairwise(tokens):
        # Where a variable leads is not known here; what such a file starts is inspected all the same.
        if word in (".", "source") and "$" not in name and not name.startswith("/etc/"):
            yield name


def _other(arguments: tuple[str, ...], directory: str) -> Iterator[str]:
    for word in arguments:
        if _TEXT.match(word):
            return
        name = word.partition("=")[2] if word.startswith("-") else word
        if name and os.path.isfile(os.path.join(directory, name)):
            yield name
            return


def _foreign(path: str, directory: str, job: str, is_ours: IsOurs) -> str:
    full = os.path.normpath(os.path.join(directory, path))
    # What such a name leads to is another file in each process.
    if full.startswith(("/proc/", "/dev/")):
        return full
    real = os.path.realpath(full)
    if is_ours(real):
        return ""
    if not os.path.isabs(path) and not os.path.exists(full):
        meant = os.path.realpath(os.path.join(job, path))
        if os.path.exists(meant) and is_ours(meant):
            return ""
    return real


def _is_retitled(running: Process, is_ours: IsOurs) -> bool:
    """Return True if a process has put a title in place of its command line, and gets no file as standard input."""
    name = os.path.basename(running.argv[0]).removeprefix("-")
    if any(running.argv[1:]) or PYTHON.match(name) or SHELL.match(name):
        return False
    try:
        source = os.readlink(f"/proc/{running.pid}/fd/0")
    except OSError:
        return True
    return (
        not source.startswith("/")
        or (source.startswith("/dev/") and not source.startswith("/dev/shm/"))
        or is_ours(source)
    )
