"""Reads TOML and INI as trees of sections and `name = value` entries."""

from __future__ import annotations

import re
import tomllib

from policyguard.scan.settings.tree import Map

_ENTRY = re.compile(r"(?:export[ \t]+)?([\w.\"'$@()/-]+)[ \t]*[=:][ \t]*(.*)")
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


def ini_tree(text: str, *, is_named: bool = False) -> object | None:
    """Parse `name = value` lines under section headings; None if the text is something else.

    The key of an entry is its last dotted part, and quotes around a value are dropped. A line that is indented goes on
    with the value before it, and may be an entry of its own.

    Source: `configparser`, which ignores what follows a heading, takes keys with spaces in them, and refuses a text
    with any other line. Readers of a file that is named as settings may skip such a line.

    Args:
        text: the text.
        is_named: the file is named as settings.
    """
    if len(text) > MAX_CHARS or not (_HAS_ENTRY.search(text) or _HAS_SECTION.search(text)):
        return None
    has_section = begins_as_section(text)
    pending: list[tuple[str, list[str]]] = []
    opened: list[str] | None = None
    for raw in text.split("\n"):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        is_indented = raw[0] in " \t"
        if line[0] == "[" and not is_indented:
            opened = None
            continue
        goes_on = is_indented and opened is not None
        if goes_on and opened is not None:
            opened.append(line)
        if entry := _entry(line, has_section):
            pending.append((entry[0], [entry[1]]))
            opened = opened if goes_on else pending[-1][1]
        elif not goes_on and not is_named:
            return None
    return Map(item for key, values in pending for item in _values(key, values))


def _entry(line: str, has_section: bool) -> tuple[str, str] | None:
    if not has_section:
        match = _ENTRY.fullmatch(line)
        return (match[1].strip("\"'").rpartition(".")[2], match[2]) if match else None
    ends = [at for at in (line.find("="), line.find(":")) if at > 0]
    if not ends:
        return None
    key, value = line[: min(ends)], line[min(ends) + 1 :]
    return key.strip().strip("\"'").rpartition(".")[2], value.strip()


def _values(key: str, lines: list[str]) -> list[tuple[str, object]]:
    """List the value of an entry, and each line of a value that has several."""
    value = "\n".join(lines).strip()
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    whole = value[1:-1] if quoted else value
    return [(key, whole), *((key, line) for line in (lines[1:] and lines) if line)]


def _tree(value: object) -> object:
    if isinstance(value, dict):
        return Map((str(key), _tree(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return value
