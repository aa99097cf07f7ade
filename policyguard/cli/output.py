"""Output of the verbs: plain text, colour on a terminal, one JSON object for programs."""

from __future__ import annotations

import re
from typing import Any

import click

from policyguard.text import printable_json, printable_lines

_COLOURS: dict[str, dict[str, Any]] = {
    "ALLOW": {"fg": "green", "bold": True},
    "DENY": {"fg": "red", "bold": True},
    "ALERT": {"fg": "red", "bold": True},
    "must": {"fg": "yellow"},
    "reason": {"fg": "cyan"},
    "because": {"fg": "cyan"},
    "missing": {"fg": "cyan"},
    "remedy": {"fg": "yellow"},
    "ask": {"fg": "yellow"},
    "policy": {"dim": True},
    "trace": {"fg": "cyan"},
}
_FIRST_WORD = re.compile(r"(\w+)(?=\s|$)")


def echo(text: str | bytes, *, nl: bool = True, err: bool = False) -> None:
    """Print a text as it is; a reader that closed its end of the pipe changes no exit code.

    Args:
        text: the text.
        nl: end the line.
        err: print on standard error.
    """
    try:
        click.echo(text, nl=nl, err=err)
    except BrokenPipeError:
        pass  # The verb goes on to its own exit code.


def say(text: str = "", *, nl: bool = True, err: bool = False, **style: Any) -> None:
    """Print a text, with colour only on a terminal and if NO_COLOR is not set.

    Args:
        text: the text.
        nl: end the line.
        err: print on standard error.
        style: colours, as of `click.style`.
    """
    echo(click.style(printable_lines(text), **style), nl=nl, err=err)


def say_explanation(text: str, *, err: bool = False) -> None:
    """Print an explanation, with the first word of each line coloured."""
    for line in printable_lines(text).split("\n"):
        match = _FIRST_WORD.match(line)
        style = _COLOURS.get(match[1]) if match else None
        if match and style:
            line = click.style(match[1], **style) + line[match.end() :]
        echo(line, err=err)


def say_json(data: Any) -> None:
    """Print a value as one line of JSON."""
    echo(printable_json(data))
