"""Reads flatbuffers strictly by a table: every slot must be in the table, and every offset inside.

    buffer = u32-offset-of-root ...; table = i32-offset-of-vtable fields; vtable = u16-size u16-table-size *u16-offset

Source: the FlatBuffers internals page; the tables are those of Arrow's `Message.fbs`, `Schema.fbs` and `File.fbs`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyguard.scan.findings import LayoutProblem

Kind = str | tuple[str] | Mapping[int, str]
"""A scalar, `text` or table by name; a vector as a tuple of its item type; a union as its tables by number."""
Tables = Mapping[str, Sequence[tuple[str, Kind]]]

MAX_DEPTH = 64
MIN_TABLE_BYTES = 8
"""The minimum bytes of a table with its reference.

A shared table counts again, because a small buffer can describe an enormous tree.
"""

_SCALARS = {"bool": "B", "u8": "B", "i8": "b", "i16": "h", "i32": "i", "i64": "q"}
_STRUCTS = {"pair": "<2q", "block": "<qi4xq"}


@dataclass(slots=True)
class FlatReader:
    """Reads tables from `data`; calls `check_time` once per table."""

    data: bytes
    tables: Tables
    check_time: Callable[[], None]
    visited: int = 0

    def root(self, name: str) -> dict[str, Any]:
        """Return the root table's present fields by name; raises `LayoutProblem`."""
        return self._table(self._number("I", 0), name, MAX_DEPTH)

    def _table(self, at: int, name: str, depth: int) -> dict[str, Any]:
        self.visited += 1
        if not depth or self.visited * MIN_TABLE_BYTES > len(self.data):
            raise LayoutProblem(f"{name} nested too deep or too often")
        self.check_time()
        vtable = at - self._number("i", at)
        size, table_size = self._number("H", vtable), self._number("H", vtable + 2)
        if size < 4 or size % 2 or at + table_size > len(self.data):
            raise LayoutProblem(f"vtable of {name}")
        slots = [self._number("H", offset) for offset in range(vtable + 4, vtable + size, 2)]
        if any(slot >= table_size for slot in slots):
            raise LayoutProblem(f"a slot behind {name}")
        return self._fields(at, name, slots, depth)

    def _fields(self, at: int, name: str, slots: Sequence[int], depth: int) -> dict[str, Any]:
        values, number, union = dict[str, Any](), 0, 0
        for label, kind in self.tables[name]:
            slot = slots[number] if number < len(slots) else 0
            number += 1
            if slot:
                values[label] = (
                    self._union(at + slot, kind, union, depth)
                    if isinstance(kind, Mapping)
                    else (self._value(at + slot, kind, depth))
                )
            elif isinstance(kind, Mapping) and union:
                raise LayoutProblem(f"{name}.{label} without its value")
            union = values.get(label, 0) if kind == "u8" else 0
        if any(slots[number:]):
            raise LayoutProblem(f"a field of {name} that is not known")
        return values

    def _union(self, at: int, kinds: Mapping[int, str], chosen: int, depth: int) -> object:
        if chosen not in kinds:
            raise LayoutProblem(f"a union of kind {chosen}")
        return self._table(self._target(at), kinds[chosen], depth - 1)

    def _value(self, at: int, kind: str | tuple[str], depth: int) -> object:
        if isinstance(kind, tuple):
            return self._vector(self._target(at), kind[0], depth)
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], at)
        if kind == "text":
            start = self._target(at)
            length = self._number("I", start)
            return self._bytes(start + 4, length)
        return self._table(self._target(at), kind, depth - 1)

    def _vector(self, at: int, item: str, depth: int) -> Sequence[object]:
        count = self._number("I", at)
        layout = _STRUCTS.get(item) or ("<" + _SCALARS[item] if item in _SCALARS else None)
        width = struct.calcsize(layout) if layout else 4
        data = self._bytes(at + 4, count * width)
        if layout:
            values = struct.iter_unpack(layout, data)
            return [value if item in _STRUCTS else value[0] for value in values]
        return [self._value(at + 4 + 4 * index, item, depth) for index in range(count)]

    def _target(self, at: int) -> int:
        return at + self._number("I", at)

    def _number(self, code: str, at: int) -> int:
        width = struct.calcsize("<" + code)
        return int(struct.unpack("<" + code, self._bytes(at, width))[0])

    def _bytes(self, at: int, length: int) -> bytes:
        if at < 0 or at + length > len(self.data):
            raise LayoutProblem("an offset leaves the buffer")
        return self.data[at : at + length]
