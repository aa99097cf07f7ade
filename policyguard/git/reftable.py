"""Reads references from a reftable: a stack of binary tables, each of which adds, changes or removes some.

Reads every record of the ref blocks, in order. Object and log blocks, indexes and restart points are skipped. Like a
file under `refs/`, a table is not verified.

Source: git, Documentation/technical/reftable, versions 1 and 2.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from typing import NoReturn

from policyguard.errors import EvidenceError
from policyguard.fs.safe_open import read_small
from policyguard.text import printable_name

MAX_TABLE_BYTES = 64 << 20
MAX_TABLES = 1_000
MAX_LIST_BYTES = 65_536

LIST = "tables.list"
_NAME = re.compile(rb"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,120}")
_MAGIC = b"REFT"
_HEADER_BYTES, _FOOTER_BYTES = {1: 24, 2: 28}, {1: 68, 2: 72}
_HASH_BYTES = {b"sha1": 20, b"s256": 32}
_ATTEMPTS = 5


def stacked_refs(folder: str) -> dict[bytes, bytes]:
    """Read every reference of the stack in a folder, by name: an object id in hex, or `ref: NAME`.

    Raises:
        EvidenceError: a table is missing, damaged, larger than `MAX_TABLE_BYTES` or of a version not known here.
    """
    for attempt in range(_ATTEMPTS):
        names = _listed(folder)
        try:
            tables = [read_small(os.path.join(folder, os.fsdecode(name)), MAX_TABLE_BYTES) for name in names]
        except EvidenceError:
            # Git merges tables and removes the old ones; the list then names others.
            if attempt + 1 < _ATTEMPTS and _listed(folder) != names:
                continue
            raise
        return _merged(folder, names, tables)
    raise EvidenceError(f"`{printable_name(folder)}`: changes faster than it can be read")


def _listed(folder: str) -> list[bytes]:
    names = read_small(os.path.join(folder, LIST), MAX_LIST_BYTES).split()
    if len(names) > MAX_TABLES or not all(_NAME.fullmatch(name) for name in names):
        raise EvidenceError(
            f"`{printable_name(folder)}`: found {len(names)} names in {LIST}, expected {MAX_TABLES} plain ones"
        )
    return names


def _merged(folder: str, names: list[bytes], tables: list[bytes]) -> dict[bytes, bytes]:
    merged: dict[bytes, bytes] = {}
    for name, table in zip(names, tables, strict=True):
        try:
            for ref, value in records(table):
                # A newer table overrides older ones; a record without a value removes the reference.
                if value is None:
                    merged.pop(ref, None)
                else:
                    merged[ref] = value
        except (IndexError, _Malformed) as problem:
            where = f"`{printable_name(folder)}/{printable_name(name)}`"
            raise EvidenceError(f"{where}: found a damaged reftable ({problem}), expected one of git's") from None
    return merged


class _Malformed(ValueError):
    pass


def records(table: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield name and value of every reference in one table; None if the table removes it.

    table = header ref_block* ... footer;  block = type uint24(length) record+ restart+ uint16(restarts) [padding]
    """
    header, end, oid_bytes, block_bytes = _frame(table)
    start, name = 0, b""
    while start < end:
        at = start + (header if start == 0 else 0)
        if table[at : at + 1] != b"r":
            return  # Indexes, objects and logs come after the references.
        length = int.from_bytes(table[at + 1 : at + 4], "big")
        stop = start + length
        restarts = int.from_bytes(table[stop - 2 : stop], "big")
        last = stop - 2 - 3 * restarts
        if not at + 4 < last <= stop <= end or not restarts:
            _refuse("the length of a block is wrong")
        at, previous = at + 4, b""
        while at < last:
            at, previous, value = _record(table, at, last, previous, oid_bytes)
            if previous <= name:
                _refuse("names are not in order")
            name = previous
            yield name, value
        start = _next_block(table, start, stop, block_bytes, end)


def _frame(table: bytes) -> tuple[int, int, int, int]:
    """Parse header and footer: header length, start of the footer, lengths of an object id and of a block."""
    version = table[4] if table[:4] == _MAGIC and len(table) > 4 else 0
    if version not in _HEADER_BYTES:
        _refuse(f"version {version}")
    header, end = _HEADER_BYTES[version], len(table) - _FOOTER_BYTES[version]
    footer = table[end:]
    if end < header or footer[:header] != table[:header]:
        _refuse("header and footer differ")
    if zlib.crc32(footer[:-4]) != int.from_bytes(footer[-4:], "big"):
        _refuse("the checksum is wrong")
    oid_bytes = _HASH_BYTES.get(table[24:28], 0) if version == 2 else 20
    if not oid_bytes:
        _refuse("the hash is not known")
    return header, end, oid_bytes, int.from_bytes(table[5:8], "big")


def _record(table: bytes, at: int, last: int, previous: bytes, oid_bytes: int) -> tuple[int, bytes, bytes | None]:
    """Parse one record; return the position of the next one, the name and the value."""
    prefix, at = _varint(table, at)
    word, at = _varint(table, at)
    suffix, kind = word >> 3, word & 7
    if prefix > len(previous) or at + suffix > last:
        _refuse("a name is longer than its block")
    name, at = previous[:prefix] + table[at : at + suffix], at + suffix
    _, at = _varint(table, at)  # which update wrote it
    value: bytes | None = None
    if kind in (1, 2):  # an object id, and for a tag the id of its target
        value, at = table[at : at + oid_bytes].hex().encode(), at + kind * oid_bytes
    elif kind == 3:
        length, at = _varint(table, at)
        value, at = b"ref: " + table[at : at + length], at + length
    elif kind != 0:
        _refuse(f"a record of type {kind}")
    if at > last:
        _refuse("a record is longer than its block")
    return at, name, value


def _next_block(table: bytes, start: int, stop: int, block_bytes: int, end: int) -> int:
    """Return the start of the next block; blocks are padded with zeros if the header says so."""
    if not block_bytes or stop >= end or table[stop] != 0:
        return stop
    return max(stop, start + block_bytes)


def _varint(table: bytes, at: int) -> tuple[int, int]:
    """Parse a number in git's offset encoding; return it and the position after it."""
    byte = table[at]
    value = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = table[at]
        value = ((value + 1) << 7) | (byte & 0x7F)
        if value >= 1 << 32:
            _refuse("a number is too large")
    return value, at + 1


def _refuse(reason: str) -> NoReturn:
    raise _Malformed(reason)
