"""Whether a command hands its work to a process outside the job, such as a scheduler's or an engine of containers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from policyguard.program.counts import tokens_of
from policyguard.program.follow import Program
from policyguard.program.grammar import NotFollowed, read_options
from policyguard.program.interpreters import SHELL
from policyguard.program.launchers import ALWAYS, LAUNCHERS
from policyguard.program.wrappers import MODULES, WRAPPERS

_PRECEDING = "; ;; & && | || |& ( { ! $ do then else elif if while until exec command nohup setsid time env eval xargs"
_BEFORE_A_COMMAND = frozenset(_PRECEDING.split())
"""The words of a shell after which a command begins."""


def hands_over(argv: Sequence[str], program: Program, environment: Mapping[str, str], script: str = "") -> str:
    """Name the part of a command that hands the work to a process outside; empty if none is known to.

    Args:
        argv: the command.
        program: what it runs in the end.
        environment: its variables.
        script: the text of the script that it runs, if it does.
    """
    paths = (*program.started, program.path)
    started = {os.path.basename(name): None for path in paths for name in (path, os.path.realpath(path))}
    for name in started:
        if name in LAUNCHERS and LAUNCHERS[name].outside == ALWAYS:
            return name
    commands = [*_started(tokens_of(argv), started)]
    if any(SHELL.match(name) for name in started):
        commands += [command for text in argv for command in _of_text(text)]
    if program.started and SHELL.match(os.path.basename(os.path.realpath(program.started[-1]))):
        commands += _of_text(script)
    return next((name for name, arguments in commands if _leaves(name, arguments, environment)), "")


def _started(tokens: list[str], started: Mapping[str, None]) -> Iterator[tuple[str, list[str]]]:
    """Yield the programs of a command line that were followed, and the modules, with their arguments."""
    for position, word in enumerate(tokens):
        module = word[2:] if word.startswith("-m") else word if tokens[position - 1 : position] == ["-m"] else ""
        if module and (module in MODULES or "." in module):
            yield module, tokens[position + 1 :]
        elif os.path.basename(word) in started:
            yield os.path.basename(word), tokens[position + 1 :]


def _of_text(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what begins like a command in the text of a shell, with the rest of its line."""
    for line in text.replace("\\\n", " ").splitlines():
        tokens = tokens_of((line,))[1:] or line.split()
        is_command = True
        for position, word in enumerate(tokens):
            name = os.path.basename(word.strip("`$(){}"))
            if is_command:
                yield name, tokens[position + 1 :]
            is_assigned = is_command and "=" in word and word.partition("=")[0].isidentifier()
            is_command = word in _BEFORE_A_COMMAND or is_assigned or word.endswith((";", "`", "$("))


def _leaves(name: str, arguments: list[str], environment: Mapping[str, str]) -> bool:
    outside = LAUNCHERS[name].outside if name in LAUNCHERS else ""
    if outside in ("", ALWAYS):
        return bool(outside)
    conditions = outside.split()
    if any(environment.get(condition[1:]) for condition in conditions if condition.startswith("$")):
        return True
    if any(os.path.exists(condition) for condition in conditions if condition.startswith("/")):
        return True
    return _has_option(name, arguments, [condition for condition in conditions if condition.startswith("-")])


def _has_option(name: str, arguments: list[str], options: Sequence[str]) -> bool:
    """Find one of the options by the program's grammar, or, where that fails, whatever resembles one."""
    wrapper = WRAPPERS.get(name) or MODULES.get(name)
    if wrapper is not None:
        try:
            read = read_options(arguments[1 if wrapper.subcommand else 0 :], wrapper.options).read
        except NotFollowed:
            pass
        else:
            return any(option in options for option, _ in read)
    for word in arguments:
        written = word.partition("=")[0].replace("_", "-")
        for option in options:
            if option.startswith(written) and len(written) > 3 if option.startswith("--") else word.startswith(option):
                return True
    return False
