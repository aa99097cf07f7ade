"""Reads casbin's `model.conf` and CSV policies, with the position of every character.

Reads what casbin reads and refuses, with file, line and column, what casbin silently accepts: a kind of row that the
model does not have (H2), brackets that swallow or split columns (H8), a `#` inside a text (H6), unknown sections and
keys. Does not import casbin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policyguard.errors import PolicyError
from policyguard.text import quoted_list
from policyguard.values import Span

SECTIONS = {
    "request_definition": "r",
    "policy_definition": "p",
    "role_definition": "g",
    "policy_effect": "e",
    "matchers": "m",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A value in a model file, with the position of each of its characters."""

    text: str
    spans: tuple[Span, ...]

    def at(self, offset: int) -> Span:
        """Return the position of a character; past the end, that of the last character."""
        return self.spans[min(offset, len(self.spans) - 1)]


@dataclass(frozen=True, slots=True)
class Conf:
    """A parsed model file: the keys of each section, in order."""

    r: dict[str, Text]
    p: dict[str, Text]
    g: dict[str, Text]
    e: dict[str, Text]
    m: dict[str, Text]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a policy file."""

    kind: str
    values: tuple[str, ...]
    span: Span


def read_conf(text: str, file: str) -> Conf:
    """Parse the sections of a model file.

    Raises:
        PolicyError: a line, section or key is wrong; its span says which.
    """
    definitions: dict[str, dict[str, Text]] = {letter: {} for letter in SECTIONS.values()}
    letter: str | None = None
    for line in _logical_lines(text, file):
        stripped = line.text.strip()
        if stripped.startswith("[") and stripped.endswith("]"):
            letter = SECTIONS.get(stripped[1:-1])
            if letter is None:
                raise PolicyError(
                    f"unknown section `{stripped}`, "
                    f"expected one of {quoted_list(f'[{section}]' for section in SECTIONS)}",
                    span=line.at(0),
                    code="PG003",
                )
            continue
        key, equals, _ = line.text.partition("=")
        name = key.strip()
        if not equals or letter is None or not name.startswith(letter) or not (name[1:] or "2").isdigit():
            raise PolicyError(
                f"found `{stripped[:60]}`, expected a section or `{letter or 'r'} = ...`", span=line.at(0), code="PG003"
            )
        if name in definitions[letter]:
            raise PolicyError(f"key `{name}` is written twice", span=line.at(0), code="PG002")
        definitions[letter][name] = _stripped(_without_comment(_text_from(line, len(key) + 1)))
    return Conf(**definitions)


def _logical_lines(text: str, file: str) -> Iterator[Text]:
    """Yield the non-empty lines; a line that ends in a backslash is joined with the next, as casbin does."""
    characters: list[str] = []
    spans: list[Span] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        start = raw.find(line) + 1
        if not line or line[0] in "#;":
            continue
        goes_on = line.endswith("\\")
        content = line[:-1].rstrip() + " " if goes_on else line
        characters.append(content)
        spans += [Span(file, number, start + i) for i in range(len(content))]
        if not goes_on:
            yield Text("".join(characters), tuple(spans))
            characters, spans = [], []
    if characters:
        yield Text("".join(characters), tuple(spans))


def _text_from(line: Text, start: int) -> Text:
    return Text(line.text[start:], line.spans[start:] or line.spans[-1:])


def _stripped(value: Text) -> Text:
    indent = len(value.text) - len(value.text.lstrip())
    stripped = value.text.strip()
    return Text(stripped, value.spans[indent : indent + len(stripped)] or value.spans[:1])


def _without_comment(value: Text) -> Text:
    quote = ""
    for i, character in enumerate(value.text):
        if character == "#" and quote:
            raise PolicyError("found `#` inside a text, where casbin cuts the matcher", span=value.at(i), code="PG109")
        if character == "#":
            return Text(value.text[:i], value.spans[: max(i, 1)])
        if character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
    return value


def read_rows(text: str, file: str, widths: dict[str, int]) -> tuple[list[Row], list[PolicyError]]:
    """Parse the rows of a policy file and report every mistake; `widths` maps each kind of row to its columns.

    Args:
        text: the text of the file.
        file: its name, for errors.
        widths: the number of columns of each kind of row.
    """
    rows: list[Row] = []
    errors: list[PolicyError] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        span = Span(file, number, raw.find(line) + 1)
        try:
            kind, *values = _columns(line, span)
            rows.append(_row(kind, values, widths, span))
        except PolicyError as error:
            errors.append(error)
    return rows, errors


def _row(kind: str, values: list[str], widths: dict[str, int], span: Span) -> Row:
    if kind not in widths:
        raise PolicyError(
            f"found a `{kind}` row, which the model does not have: casbin drops it in silence", span=span, code="PG010"
        )
    if len(values) != widths[kind]:
        raise PolicyError(
            f"found {len(values)} columns after `{kind}`, expected {widths[kind]}", span=span, code="PG010"
        )
    for value in values:
        if not value or any(c.isspace() or c in "\"'\\" or not c.isprintable() for c in value):
            raise PolicyError(
                f"found the value `{value}`, expected one without quotes, spaces or backslashes, and not empty",
                span=span,
                code="PG011",
            )
    return Row(kind, tuple(values), span)


def _columns(line: str, span: Span) -> list[str]:
    columns = [""]
    depth = 0
    for i, character in enumerate(line):
        depth += (character in "([") - (character in ")]")
        if depth < 0:
            raise PolicyError(
                f"found `{character}` without its opening bracket",
                span=Span(span.file, span.line, span.column + i),
                code="PG010",
            )
        if character == "," and not depth:
            columns.append("")
        else:
            columns[-1] += character
    if depth:
        raise PolicyError(
            "found a bracket that is not closed, so that casbin reads the rest as one column", span=span, code="PG010"
        )
    return [column.strip() for column in columns]
