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


def say(text: str = "", *, err: bool = False, **style: Any) -> None:
    """Print a text, with colour only on a terminal and if NO_COLOR is not set."""
    click.secho(printable_lines(text), err=err, **style)


def say_explanation(text: str, *, err: bool = False) -> None:
    """Print an explanation, with the first word of each line coloured."""
    for line in printable_lines(text).split("\n"):
        match = _FIRST_WORD.match(line)
        style = _COLOURS.get(match[1]) if match else None
        if match and style:
            line = click.style(match[1], **style) + line[match.end() :]
        click.echo(line, err=err)


def say_json(data: Any) -> None:
    """Print a value as one line of JSON."""
    click.echo(printable_json(data))
