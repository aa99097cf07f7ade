"""How the command line speaks: plain text, colour on a terminal, one JSON object for machines."""

from __future__ import annotations

import json
import re
from typing import Any

import click

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
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FIRST_WORD = re.compile(r"(\w+)(?=\s|$)")


def visible(text: str) -> str:
    """Return the text with control and direction characters spelled out.

    File names, ids and values come from strangers; printed as they are they could rewrite what a terminal shows.
    """
    # INVARIANT I182: nothing that others wrote reaches a terminal as a command to it.
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def flat(text: str) -> str:
    """Return the text as one line: a name with a line feed must not look like a second line of ours."""
    # INVARIANT I217: what others named, a file or a run, stays on the line that tells of it.
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def say(text: str = "", *, err: bool = False, **style: Any) -> None:
    """Print one text; colour is dropped where the stream is no terminal or NO_COLOR is set."""
    click.secho(visible(text), err=err, **style)


def say_explanation(text: str, *, err: bool = False) -> None:
    """Print an explanation with its leading words coloured."""
    for line in visible(text).split("\n"):
        match = _FIRST_WORD.match(line)
        style = _COLOURS.get(match[1]) if match else None
        if match and style:
            line = click.style(match[1], **style) + line[match.end() :]
        click.echo(line, err=err)


def say_json(data: Any) -> None:
    """Print one JSON object on one line."""
    click.echo(visible(json.dumps(data, ensure_ascii=False, separators=(", ", ": "))))
