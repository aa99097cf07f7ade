"""Command lines of interpreters: CPython's by the grammar of its own Python/getopt.c, and POSIX shells."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping

from policyguard.fs.safe_open import names_in
from policyguard.program.grammar import NotFollowed, Options, grammar, read_options

PYTHON = re.compile(r"(?:python|pypy)(?:[0-9]+(?:\.[0-9]+)?t?)?\Z")
WITHOUT_PREFIX = re.compile(r"pypy|python2|python3\.[0-7](?![0-9])")
"""Interpreters that may not know `PYTHONPYCACHEPREFIX`, which is new in CPython 3.8."""

SHELL = re.compile(r"(?:ba|da|k|a)?sh\Z")
"""Without zsh, which runs files of the home folder before every script."""

CPYTHON = grammar(
    "-b -B -d -E -h -i -I -O -P -q -R -s -S -t -u -v -V -x -? --help --help-all --help-env --help-xoptions --version",
    "-W -X --check-hash-based-pycs",
    "-c -m",
)
"""SHORT_OPTS of Python/getopt.c; `-J` is reserved there, and so unknown here."""

_SHELL_LETTERS = frozenset("cefpuvx")
_SHELL_WORDS = frozenset(("--norc", "--noprofile", "--posix", "--verbose", "--noediting"))
_SHELL_NAMES = frozenset(("errexit", "noglob", "nounset", "pipefail", "privileged", "verbose", "xtrace"))
"""Those of `-o`. Options of shells are listed only where they change nothing of what a command means.

`-k` makes arguments variables, `-l` and `-i` run files of the home folder, and `-norc` is a long option of bash.
"""

_SHELL_VARIABLES = ("BASH_ENV", "BASHOPTS", "FPATH", "PS4", "SHELLOPTS")
"""Variables by which a shell runs a file, sets options, or runs commands (`PS4` with `-x`)."""

_PLAIN = re.compile(r"[\w ,./:@+^=-]*\Z", re.ASCII)
"""Text of a shell without quotes, variables, redirections, lists and patterns: words that mean themselves."""

_ASSIGNMENT = re.compile(r"\w+\+?=", re.ASCII)


def read_python(argv: tuple[str, ...]) -> Options:
    """Read the options of `python`; the rest are the script and its arguments, or those of `-c` and `-m`.

    Raises:
        NotFollowed: an option is not CPython's.
    """
    return read_options(argv, CPYTHON)


def python_problem(options: Options) -> str | None:
    """Say which option makes `python` run something else beside its program; None if none does."""
    if options.value("-i") is not None:
        return "`-i` reads more of the program from standard input"
    for name, value in options.read:
        if name == "-X" and value.partition("=")[0] not in X_OPTIONS:
            return f"`-X {value}` is not known, or takes code from another folder"
        if name == "-W" and "." in value:
            return f"`-W {value}` imports a module"
    return None


def located(folder: str, name: str) -> tuple[str, str]:
    """Find a module in a folder by the rules of importlib's FileFinder.

    A package comes before a file of that name, an extension module before source, source before byte code. The suffixes
    are those of every version, because the interpreter may be another one.

    Returns:
        The module's file, "" for a namespace package; and the package's folder, "" for a plain module. Twice "" if the
        folder has no such module.
    """
    if not folder:
        return "", ""
    package = os.path.join(folder, name)
    is_folder = os.path.isdir(package)
    file = _module_file(package, "__init__") if is_folder else ""
    if file:
        return file, package
    file = _module_file(folder, name)
    return (file, "") if file or not is_folder else ("", package)


def _module_file(folder: str, name: str) -> str:
    extension = re.compile(rf"{re.escape(name)}\.(?:[\w-]+\.)?(?:so|pyd|dylib)")
    names = (*sorted(filter(extension.fullmatch, names_in(folder))), f"{name}.py", f"{name}.pyc")
    return next((path for path in (os.path.join(folder, file) for file in names) if os.path.isfile(path)), "")


def may_be_installed(name: str, program: str, home: str, *, is_namespace: bool) -> bool:
    """Return True if `python -m` may run an installed module although the job's folder has one of that name.

    Args:
        name: of the module, without what follows a dot.
        program: an executable of the environment, the interpreter for example.
        home: the home folder of the job's account.
        is_namespace: the job's folder has only a folder of that name, without `__init__`; any other module wins.
    """
    if name in LOADED_FIRST or (is_namespace and name in sys.stdlib_module_names):
        return True
    programs = {os.path.abspath(program), os.path.realpath(program)}
    prefixes = {os.path.dirname(os.path.dirname(path)) for path in programs} | {"/usr", "/usr/local"}
    prefixes |= {os.path.join(home, ".local")} if home else set()
    patterns = [f"lib*/python*/{folder}-packages" for folder in ("site", "dist")]
    folders = [
        os.path.join(prefix, folder)
        for prefix in prefixes
        for pattern in patterns
        for folder in glob.iglob(pattern, root_dir=prefix)
    ]
    return is_namespace and any(located(folder, name)[0] for folder in folders)


LOADED_FIRST = frozenset(
    (
        *("abc", "codecs", "collections", "encodings", "functools", "importlib", "io", "os", "pkgutil", "runpy"),
        *("site", "stat", "types", "warnings", "zipimport"),
    )
)
"""Modules that are frozen into an interpreter or imported before `-m`: no folder comes before them."""


X_OPTIONS = frozenset(
    (
        *(
            "faulthandler",
            "showrefcount",
            "tracemalloc",
            "int_max_str_digits",
            "importtime",
            "dev",
            "utf8",
            "gil",
            "perf",
        ),
        *("warn_default_encoding", "no_debug_ranges", "frozen_modules", "perf_jit", "cpu_count"),
    )
)
"""Those of CPython without `pycache_prefix`, which takes byte code from elsewhere, and `presite`, which imports."""


def shell_command(argv: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Read the arguments of a shell.

    Returns:
        The path of a script, or None and the one plain command of a `-c` text.

    Raises:
        NotFollowed: an option is unknown, commands come from standard input, or the text is more than plain words.
    """
    is_text, operands = shell_operands(argv)
    return (None, plain_command(operands[0])) if is_text else (operands[0], ())


def shell_operands(argv: tuple[str, ...]) -> tuple[bool, tuple[str, ...]]:
    """Read the options of a shell: whether it runs text (`-c`), and its operands: that or a script, and arguments.

    Raises:
        NotFollowed: an option is unknown, or commands come from standard input.
    """
    position, is_text = 0, False
    while position < len(argv) and argv[position][:1] in ("-", "+") and argv[position] not in ("-", "--"):
        word = argv[position]
        position += 1
        if word in _SHELL_WORDS:
            continue
        for letter in word[1:]:
            is_harmless = letter in _SHELL_LETTERS and (letter != "c" or word[0] == "-")
            if letter == "o":
                is_harmless = argv[position : position + 1] != () and argv[position] in _SHELL_NAMES
                position += 1
            if not is_harmless:
                raise NotFollowed(f"option `{letter}` in `{word}` of a shell is not known to be harmless")
            is_text = is_text or letter == "c"
    rest = argv[position + 1 if argv[position : position + 1] in (("-",), ("--",)) else position :]
    if not rest:
        raise NotFollowed("a shell reads its commands from standard input")
    return is_text, rest


def shell_variable(environment: Mapping[str, str]) -> str | None:
    """Return a variable that makes a shell run more than its command; None if there is none."""
    return next((name for name in _SHELL_VARIABLES if name in environment), None)


def plain_text(text: str) -> tuple[str, ...]:
    """Split a text at spaces.

    Raises:
        NotFollowed: a character has a meaning of its own, for a shell or for `env -S`.
    """
    if not _PLAIN.match(text):
        raise NotFollowed("the text has quotes, variables or other characters that are not followed")
    return tuple(text.split())


def plain_command(text: str) -> tuple[str, ...]:
    """Split the text of a shell into its one command and the arguments, `exec` left out.

    Raises:
        NotFollowed: it is more than plain words, or its command is the shell's own.
    """
    argv = plain_text(text)
    if argv[:1] == ("exec",):
        argv = argv[1:]
    if not argv or argv[0] in _BUILTINS or _ASSIGNMENT.match(argv[0]) or argv[0].startswith("-"):
        raise NotFollowed("the text of a shell is more than one plain command")
    return argv


def script_command(text: str) -> tuple[str, ...]:
    """Split the one command of a shell's script; comments, `set -e` and a last `"$@"` are left out.

    Raises:
        NotFollowed: the script has no command, another one, or more than plain words.
    """
    commands, line = [], ""
    for part in text.split("\n"):
        # A backslash does not continue a comment.
        if not line and part.lstrip(" \t").startswith("#"):
            continue
        line += part
        if line.endswith("\\"):
            line = line[:-1] + " "
            continue
        line, command = "", line.strip(" \t")
        if command and not _SET.fullmatch(command):
            commands.append(command)
    if line or len(commands) != 1:
        raise NotFollowed("the script of a shell has more than one command")
    return plain_command(commands[0].removesuffix(' "$@"'))


_SET = re.compile(r"set(?: -[euvx]+(?:o pipefail)?| -o pipefail)+")

_BUILTINS = frozenset(
    (
        *(
            ".",
            ":",
            "alias",
            "bg",
            "bind",
            "break",
            "builtin",
            "case",
            "cd",
            "command",
            "coproc",
            "declare",
            "do",
            "done",
        ),
        *(
            "elif",
            "else",
            "enable",
            "esac",
            "eval",
            "exec",
            "exit",
            "export",
            "false",
            "fc",
            "fg",
            "fi",
            "for",
            "function",
        ),
        *(
            "getopts",
            "hash",
            "help",
            "history",
            "if",
            "jobs",
            "kill",
            "let",
            "local",
            "logout",
            "mapfile",
            "popd",
            "printf",
        ),
        *("pushd", "pwd", "read", "readonly", "return", "select", "set", "shift", "shopt", "source", "suspend", "test"),
        *("then", "time", "times", "trap", "true", "type", "typeset", "ulimit", "umask", "unalias", "unset", "until"),
        *("wait", "while", "echo", "caller", "chdir", "compgen", "complete", "compopt", "dirs", "disown", "readarray"),
    )
)
