"""Reads TOML and INI as trees of sections and `name = value` entries."""

from __future__ import annotations

import re
import tomllib

from policyguard.scan.settings.tree import Map

_LINE = re.compile(r"[ \t]*(?:\[+[^\]\n]+\]+[ \t]*|[\w.\"'$@()/-]+[ \t]*[=:][^\n]*|[#;][^\n]*|)(?:\r?\n|\Z)")
_ENTRY = re.compile(r"^[ \t]*(?:export[ \t]+)?([\w.\"'$@()/-]+)[ \t]*[=:]([^\n]*)$", re.MULTILINE)
_HAS_ENTRY = re.compile(r"^[ \t]*(?:export[ \t]+)?[\w.\"'-]+[ \t]*=", re.MULTILINE)
_HAS_SECTION = re.compile(r"^\[[^\]\n]+\][ \t]*\r?\n[ \t]*[\w.]+[ \t]*:", re.MULTILINE)
MAX_CHARS = 2**22


def toml_tree(text: str) -> object | None:
    """Parse TOML; None if the text is not TOML."""
    if len(text) > MAX_CHARS or not _HAS_ENTRY.search(text):
        return None
    try:
        return _tree(tomllib.loads(text))
    except (ValueError, RecursionError):
        return None


def ini_tree(text: str) -> object | None:
    """Parse `name = value` lines under section headings; None if an early line is neither.

    The key of an entry is its last dotted part, and quotes around a value are dropped.
    """
    if len(text) > MAX_CHARS or not (_HAS_ENTRY.search(text) or _HAS_SECTION.search(text)):
        return None
    first = text.lstrip("\r\n")
    if _LINE.match(first) is None or not first.strip():
        return None
    entries = Map()
    for match in _ENTRY.finditer(text):
        key, value = match[1].strip("\"'").rpartition(".")[2], match[2].strip(" \t\r")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        entries.append((key, value[1:-1] if quoted else value))
    return entries


def _tree(value: object) -> object:
    if isinstance(value, dict):
        return Map((str(key), _tree(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return value
