"""The top-level command, and the one place where an error becomes a line of text and an exit code."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from policyguard import __version__
from policyguard import exit_codes as codes
from policyguard.cli.output import echo
from policyguard.errors import (
    PolicyErrors,
    PolicyGuardError,
)
from policyguard.fs.write import discard_output
from policyguard.hooks.former_options import BY_VERB, rename_former_options
from policyguard.text import printable, printable_lines, quoted, quoted_list
from policyguard.values import MAX_INTEGER

VERBS = {
    "init": "Create example policies, a key, a trust file and a configuration.",
    "demo": "Run a job in a temporary lab, with real processes.",
    "compile": "Compile a folder of policies into one signed snapshot.",
    "lint": "Find mistakes and dangerous rules in policies.",
    "test": "Run the tests of policies.",
    "decide": "Decide a request; sign, log and explain the decision.",
    "explain": "Explain how a request would be decided, without signing or logging.",
    "who-can": "Say who may do an action, and under which conditions.",
    "can-i": "Say whether an action is allowed, and under which conditions.",
    "list": "List what a subject may do, and under which conditions.",
    "run": "Decide about a job, and start it only if it is allowed.",
    "hook": "Answer a JSON request on standard input; for other programs.",
    "repo": "Decide on pushes to a git repository, and install its hooks.",
    "verify": "Check a signed decision against trust, request and audience.",
    "approve": "Approve a job, a request or an artifact with your own key, or list approvals.",
    "grant": "Grant a subject more GPUs than its role's limit, signed and for a limited time.",
    "revoke": "Revoke a decision, a key, an approver, a grant or an approval before it expires.",
    "keys": "Create keys, show their ids, and hand a log over to a new key.",
    "scan": "Scan checkpoints for code that loading them would run.",
    "manifest": "Sign and verify which run wrote a checkpoint.",
    "env": "Compare an installed environment with its signed baseline.",
    "audit": "Verify, show, export, prove or follow the decision log.",
    "import": "Translate a casbin model and policy.",
    "check-engine": "Compare the engine with a second opinion on your policies.",
    "doctor": "Check that this installation works.",
}
"""Verb to its one line of help; `cli/verbs/<verb>_.py`, or a folder of that name, holds the command."""

WITHOUT_CONFIG = frozenset({"init", "demo", "keys", "import", "hook"})
"""Verbs that read no configuration; `hook` has `--config` among its own options."""

_NO_NUMBER = re.compile(r"'?(.*?)'? is not (?:a valid|in the range)", re.DOTALL)

DEBUG_VARIABLE = "POLICYGUARD_DEBUG"


class VerbGroup(click.Group):
    """A click group that imports only the verb that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"policyguard.cli.verbs.{cmd_name.replace('-', '_')}_")
        command: click.Command = module.command
        if cmd_name in WITHOUT_CONFIG:
            return command
        with_config: click.Command = import_module("policyguard.cli.options").add_config_option(command)
        return with_config

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a verb from its first letters without importing any verb."""
        verbs = [CompletionItem(verb, help=text) for verb, text in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"found {quoted(args[0])}, expected a verb{_near(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="policyguard")
def group() -> None:
    """Signed allow/deny decisions for training jobs and shared repositories."""


def run(argv: Sequence[str]) -> int:
    """Run a command line and return its exit code; an error prints one line on standard error."""
    _make_streams_lenient()
    code = _run(argv)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except BrokenPipeError:
            discard_output(number)
        except OSError as problem:
            discard_output(number)
            print_error(_of_system(problem))
            code = code or codes.UNAVAILABLE
    return code


def _run(argv: Sequence[str]) -> int:
    # INVARIANT I20: whatever fails here, and however, the exit code is not 0 and the user sees one line.
    try:
        return _run_verb(argv)
    except PolicyErrors as problems:
        for error in problems.errors:
            print_error(str(error), error.help, prefix="")
        return codes.code_of_error(problems)
    except PolicyGuardError as problem:
        print_error(str(problem), problem.help)
        return codes.code_of_error(problem)
    except OSError as problem:
        discard_output(1)
        print_error(_of_system(problem))
    except Exception as problem:
        if DEBUG_VARIABLE in os.environ:
            raise
        print_error(
            f"stopped by a mistake in policyguard: {type(problem).__name__}: {problem}",
            f"please report it, with what {DEBUG_VARIABLE}=1 adds",
        )
    return codes.UNAVAILABLE


def _run_verb(argv: Sequence[str]) -> int:
    """Run a verb with click; turn click's usage errors into an exit code."""
    argv, warnings = rename_former_options(argv, BY_VERB.get(argv[0] if argv else "", {}))
    for warning in warnings:
        print_error(warning)
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    try:
        code = group.main(argv, prog_name="policyguard", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.exceptions.NoArgsIsHelpError as problem:
        echo(problem.format_message(), err=True)
        return codes.USAGE
    except click.Abort:
        print_error("stopped")
        return 130
    except click.ClickException as problem:
        print_error(_message(problem), _usage_help(problem))
        return codes.USAGE
    return code if isinstance(code, int) else codes.OK


def print_error(message: str, help: str | None = None, *, prefix: str = "policyguard: ") -> None:
    """Print an error on standard error as one line, followed by its help line, if any.

    Args:
        message: what is wrong.
        help: what to do next.
        prefix: precedes the message.
    """
    echo(printable(f"{prefix}{message}"), err=True)
    if help:
        echo(printable_lines(f"  help: {help}"), err=True)


def _of_system(problem: OSError) -> str:
    reason = (problem.strerror or str(problem)).lower()
    if problem.filename is None:
        return f"standard output cannot be written: {reason}"
    name = os.fsdecode(problem.filename) if isinstance(problem.filename, bytes) else problem.filename
    return f"{name}: {reason}"


def _make_streams_lenient() -> None:
    """Escape what a stream cannot encode, such as bytes in a file name, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usage_help(problem: click.ClickException) -> str | None:
    context = getattr(problem, "ctx", None)
    return f"see `{context.command_path} --help`" if context is not None else None


def _near(name: str, names: Iterable[str]) -> str:
    from difflib import get_close_matches  # Only a misspelled name pays for this import.

    close = get_close_matches(name[:80], list(names), n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _message(problem: click.ClickException) -> str:
    """Write an error of click in the words of policyguard: what was found, and what is expected."""
    if isinstance(problem, click.exceptions.NoSuchCommand):
        verbs = list(getattr(getattr(problem.ctx, "command", None), "commands", ()))
        near = _near(problem.command_name, verbs)
        return f"found {quoted(problem.command_name)}, expected one of {quoted_list(verbs)}{near}"
    kind = getattr(getattr(problem, "param", None), "type", None)
    match, detail = _NO_NUMBER.match(problem.message), problem.format_message()
    if match is not None and isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        noun = "a number" if isinstance(kind, click.types.FloatParamType) else "a whole number"
        minimum, maximum = getattr(kind, "min", None), getattr(kind, "max", None)
        bounds = [] if minimum is None else [f"of at least {minimum}"]
        bounds += [] if maximum is None or maximum >= MAX_INTEGER else [f"of at most {maximum}"]
        expected = f"found {quoted(match[1])}, expected {noun} {' and '.join(bounds)}".rstrip()
        detail = detail.replace(problem.message, expected)
    return _first_lower(detail)


def _first_lower(message: str) -> str:
    line = " ".join(message.split()).rstrip(".")
    return line[:1].lower() + line[1:]
