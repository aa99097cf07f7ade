"""Parses tables that are kept as text: lists of names, and fields of protobuf messages and Thrift structs.

    table = *( name ":" fields ); fields = [ field *( "," field ) ]; field = [ number ] name kind

A field without a number has the next one; the first is 1. A line that begins with white space continues the line
before.
"""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^(\w+):(.*(?:\n .*)*)$", re.MULTILINE)


def names(text: str) -> frozenset[str]:
    """Split a table into names at white space."""
    return frozenset(text.split())


def parse_fields(table: str) -> dict[str, dict[int, tuple[str, str]]]:
    """Parse a table of fields: for each message, field number to name and kind."""
    return {entry[1]: _fields(entry[2]) for entry in _ENTRY.finditer(table)}


def _fields(text: str) -> dict[int, tuple[str, str]]:
    fields: dict[int, tuple[str, str]] = {}
    number = 0
    for field in text.split(",") if text.strip() else ():
        *explicit, name, kind = field.split()
        number = int(explicit[0]) if explicit else number + 1
        fields[number] = (name, kind)
    return fields
