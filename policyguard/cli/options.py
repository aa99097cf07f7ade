"""Options that several verbs share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from policyguard.config.file import SYSTEM_FILE
from policyguard.model.decision import AUDIENCE, is_audience
from policyguard.model.ids import ref_problem
from policyguard.text import quoted
from policyguard.values import Instant, parse_instant

F = TypeVar("F", bound=Callable[..., Any])

_CONFIG = "policyguard.config"
ENFORCING = frozenset({"run"})
"""Verbs that read no configuration of the current folder."""

_MACHINE = f"The configuration; by default {SYSTEM_FILE}. The current folder has none."
_MACHINE_OR_HERE = "The configuration; by default that of the machine or, for some verbs, of the current folder."
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NO_SECONDS = re.compile(r"(T\d\d:\d\d)(Z|[+-]\d\d:\d\d)$")


class FilePath(click.Path):
    """A path that is not empty: an unset variable of a shell would name the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("found empty text, expected a path", param, ctx)
        return super().convert(value, param, ctx)


_FILE = FilePath(path_type=Path)


def _audience(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not is_audience(text):
        raise click.BadParameter(f"found {quoted(text)}, expected {AUDIENCE}")
    return text


policies_option = click.option("--policies", type=_FILE, help="Policy folder or compiled snapshot.")
key_option = click.option("--key", type=_FILE, help="Private key file that signs.")
log_option = click.option("--log", type=_FILE, help="Decision log, an SQLite file.")
state_dir_option = click.option("--state-dir", type=_FILE, help="Folder of the log's head file.")
trust_option = click.option("--trust", type=_FILE, help="What a verifier accepts, trust.yaml.")
audience_option = click.option("--audience", callback=_audience, help="The cluster or host that decisions are for.")
observed_option = click.option(
    "--observed", multiple=True, metavar="PATH", help="An attribute that the calling platform itself saw."
)
checkpoint_option = click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=_FILE,
    help="A checkpoint kept from earlier; the log must still contain that tree.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for machines.")


def parse_account(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """Check the value of `--subject`.

    Args:
        text: the value; None without the option.

    Raises:
        click.BadParameter: it is no `type:id`.
    """
    problem = None if text is None else ref_problem(text)
    if problem is not None:
        raise click.BadParameter(problem)
    return text


def start_options(command: F) -> F:
    """Add the options that say how a job is started to a command."""
    for option in (
        click.option("--data", multiple=True, metavar="NAME=PATH", help="A file or folder that the job reads."),
        click.option("--output", "outputs", multiple=True, metavar="NAME=DIR", help="A folder that the job writes."),
        click.option("--from-commit", is_flag=True, help="Start CMD from a private export of the commit."),
        click.option("--confine", is_flag=True, help="Start CMD under Landlock: the kernel refuses all but its own."),
    ):
        command = option(command)
    return command


def take_start(chosen: dict[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """Take the options of `start_options` out of the others, and check the command; see `check_command`.

    Raises:
        click.UsageError: a value or the command is malformed.
    """
    check_command(argv)
    for option in ("outputs", "data"):
        for text in chosen[option]:
            name, equals, path = text.partition("=")
            if not (name and equals and path):
                word = f"--{option.removesuffix('s')}"
                raise click.UsageError(f"{word}: found {quoted(text)}, expected NAME=PATH such as `weights=/scratch/x`")
    return {name: chosen.pop(name) for name in ("confine", "from_commit", "outputs", "data")}


def check_command(argv: Sequence[str]) -> None:
    """Refuse a command that begins like an option: it is a misspelt option, and no program is called so.

    Raises:
        click.UsageError: it does.
    """
    if argv and argv[0].startswith("-"):
        raise click.UsageError(f"found {quoted(argv[0])} before CMD, expected an option of this verb, or a program")


def parse_moment(text: str, *, of_date: int = 0) -> Instant:
    """Parse a time of an option: RFC 3339 with or without seconds, or a date, which is its first moment in UTC.

    Args:
        text: the text of the option.
        of_date: nanoseconds that are added to a date.

    Raises:
        click.BadParameter: it is neither.
    """
    try:
        if _DATE.fullmatch(text):
            return parse_instant(f"{text}T00:00:00Z") + of_date
        return parse_instant(_NO_SECONDS.sub(r"\1:00\2", text))
    except ValueError:
        raise click.BadParameter(
            f"found {quoted(text)}, expected a date such as `2027-01-05` or a time such as `2027-01-05T09:30:00Z`"
        ) from None


def guard_options(command: F) -> F:
    """Add the options that describe a guard to a command."""
    for option in (audience_option, log_option, key_option, policies_option):
        command = option(command)
    return command


def add_config_option(command: click.Command) -> click.Command:
    """Add `--config` to a verb and to every subcommand; `configured_file` returns its value."""
    if isinstance(command, click.Group):
        for verb in command.commands.values():
            add_config_option(verb)
    elif not any(parameter.name == "config" for parameter in command.params):
        command.params.append(
            click.Option(
                ["--config"],
                type=_FILE,
                expose_value=False,
                callback=_remember,
                help=_MACHINE if command.name in ENFORCING else _MACHINE_OR_HERE,
            )
        )
    return command


def _remember(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:  # noqa: ARG001
    context.meta[_CONFIG] = value
    return value


def configured_file() -> Path | None:
    """Return the file that `--config` names; None if the option is missing."""
    context = click.get_current_context(silent=True)
    file: Path | None = context.meta.get(_CONFIG) if context is not None else None
    return file
