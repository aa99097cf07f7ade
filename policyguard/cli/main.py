"""The entry point of the command: imports only the verb that is called, and runs `hook` without click.

`exit_codes.py` has the exit codes. `hook` never goes through click, so that it starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from policyguard.cli.streams import open_closed

# `typing` would be imported before the hook can turn off the collector; checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, NoReturn


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    open_closed()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if argv[:2] == ["hook", "git"]:
        from policyguard.hooks.git.main import main as git_hook

        sys.exit(git_hook(argv[2:]))
    if argv[:1] == ["hook"] and not {"--help", "-h", "--json"} & set(argv):
        if arguments is None:
            _hook_process(argv[1:])
        from policyguard.hooks.stdio import main as hook

        sys.exit(hook(argv[1:]))
    from policyguard.cli.group import run

    sys.exit(run(argv))


def _hook_process(argv: Sequence[str]) -> NoReturn:
    """Answer one request of `policyguard hook`, and end the process.

    Three things a process of one answer can do without, together a third of its time: collecting cycles, imports that
    only other uses of msgspec need, and taking the interpreter apart piece by piece. The answer is written and flushed,
    the log's transaction durable and its file closed before `hook` returns.
    """
    import gc
    import os

    gc.disable()
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    # None makes an import fail (importlib documents it). msgspec then takes the same names from `typing`, which has
    # them all since Python 3.11, and inspect, ast, dis and tokenize stay out.
    placeholders: dict[str, ModuleType | None] = {"typing_extensions": None}
    placeholders |= {name: _Placeholder(name) for name in _LATER}
    # `uuid`, which msgspec imports, asks for the system's name and nothing else.
    placeholders["platform"].__dict__["system"] = lambda: os.uname().sysname
    placeholders = {name: module for name, module in placeholders.items() if name not in modules}
    modules.update(placeholders)
    from policyguard.hooks.stdio import main as hook

    for name in placeholders:
        del modules[name]
    code = hook(argv)
    sys.stderr.flush()
    os._exit(code)


_LATER = ("msgspec.inspect", "msgspec.toml", "msgspec.yaml", "platform", "textwrap")
"""Modules that `import msgspec` imports and our use of it never calls; they cost a hook time."""


class _Placeholder(type(sys)):  # type: ignore[misc]
    """Takes the place of a module until one of its names is used, then imports it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from importlib import import_module

        return getattr(import_module(self.__name__), name)
