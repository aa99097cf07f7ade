"""Reads TOML and INI as trees of sections and `name = value` entries."""

from __future__ import annotations

import re
import tomllib

from policyguard.scan.settings.tree import Map

_LINE = re.compile(
    r"[ \t]*(?:\[[^\n]*\][^\n]*|(?:export[ \t]+)?[\w.\"'$@()/-]+[ \t]*[=:][^\n]*|[#;][^\n]*|)(?:\r?\n|\Z)"
)
_ENTRY = re.compile(r"(?:export[ \t]+)?([\w.\"'$@()/-]+)[ \t]*[=:][ \t]*(.*)")
_SPACED = re.compile(r"([^=:\s][^=:]{0,80}?)\s*[=:]\s*(.*)")
_HAS_ENTRY = re.compile(r"^[ \t]*(?:export[ \t]+)?[\w.\"'-]+[ \t]*=", re.MULTILINE)
_HAS_SECTION = re.compile(r"^\[[^\n]*\][^\n]*\r?\n[ \t]*[\w.][^\n=:]*[=:]", re.MULTILINE)
MAX_CHARS = 2**22
MAX_DOTS = 10**6
"""The sum of the squares of dots in a line: `tomllib` compares each part of a dotted key with all before it."""


def toml_tree(text: str) -> object | None:
    """Parse TOML; None if the text is not TOML."""
    if len(text) > MAX_CHARS or not _HAS_ENTRY.search(text):
        return None
    if sum(line.count(".") ** 2 for line in text.split("\n")) > MAX_DOTS:
        return None
    try:
        return _tree(tomllib.loads(text))
    except (ValueError, RecursionError):
        return None


def begins_as_section(text: str) -> bool:
    """Return True if the first line that is not a comment opens a section, which every INI reader requires."""
    lines = (line.strip() for line in text.split("\n"))
    return next((line for line in lines if line and line[0] not in "#;"), "").startswith("[")


def ini_tree(text: str) -> object | None:
    """Parse `name = value` lines under section headings; None if an early line is neither.

    The key of an entry is its last dotted part, and quotes around a value are dropped. A line that is indented goes on
    with the value before it, and may be an entry of its own.

    Source: `configparser`, which takes what follows a heading for nothing, and keys with spaces in them.
    """
    if len(text) > MAX_CHARS or not (_HAS_ENTRY.search(text) or _HAS_SECTION.search(text)):
        return None
    first = text.lstrip("\r\n")
    if _LINE.match(first) is None or not first.strip():
        return None
    entry = _SPACED if begins_as_section(text) else _ENTRY
    entries, values = Map(), list[str]()
    for raw in text.split("\n"):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if match := entry.fullmatch(line):
            _close(entries, values)
            entries.append((match[1].strip("\"' ").rpartition(".")[2], ""))
            values = [match[2]]
        elif line[0] == "[" and raw[0] not in " \t":
            _close(entries, values)
            values = []
        elif values and raw[0] in " \t":
            values.append(line)
    _close(entries, values)
    return entries


def _close(entries: Map, values: list[str]) -> None:
    """Give the last entry its value; a value of several lines also adds an entry for each line."""
    if not values:
        return
    key, _ = entries.pop()
    value = "\n".join(values).strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    entries.append((key, value[1:-1] if quoted else value))
    entries.extend((key, line) for line in (values[1:] and values) if line)


def _tree(value: object) -> object:
    if isinstance(value, dict):
        return Map((str(key), _tree(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return value
