"""Reads Thrift compact structs strictly by a table: every field must be listed, occur once and have its type.

    struct = *( field-header value ) stop

Source: the compact protocol page of Apache Thrift; the tables are those of `parquet.thrift`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policyguard.scan.findings import LayoutProblem
from policyguard.scan.formats.varints import read_varint

Kind = str | tuple[str]
"""A scalar or struct by name, or a list as a tuple of what it holds."""
Structs = Mapping[str, Mapping[int, tuple[str, Kind]]]

MAX_DEPTH = 16
_STOP, _TRUE, _FALSE, _LIST, _STRUCT = 0, 1, 2, 9, 12
_TYPE_OF = {"bool": 1, "byte": 3, "i16": 4, "i32": 5, "i64": 6, "double": 7, "binary": 8}
_BITS = {"byte": 8, "i16": 16, "i32": 32, "i64": 64}


class OutOfBytes(LayoutProblem):
    """The struct is longer than the bytes that were read."""


@dataclass(slots=True)
class ThriftReader:
    """Reads structs from `data`, starting at `at`; calls `check_time` once per struct."""

    data: bytes
    structs: Structs
    check_time: Callable[[], None]
    at: int = 0

    def read(self, name: str, depth: int = MAX_DEPTH) -> dict[str, Any]:
        """Return the fields of the struct that begins here, by name; raises `LayoutProblem`."""
        if not depth:
            raise LayoutProblem(f"{name} nested too deep")
        self.check_time()
        fields, values, number = self.structs[name], dict[str, Any](), 0
        while True:
            head = self._byte()
            kind = head & 15
            if kind == _STOP and not head:
                return values
            number = number + (head >> 4) if head >> 4 else self._signed(16)
            # INVARIANT I18: a field that its table does not name, or that comes twice, is never passed over.
            if number not in fields or fields[number][0] in values:
                raise LayoutProblem(f"field {number} of {name}")
            label, expected = fields[number]
            values[label] = self._field(kind, expected, f"{name}.{label}", depth)

    def _field(self, kind: int, expected: Kind, where: str, depth: int) -> object:
        if expected == "bool" and kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind != self._type(expected) or expected == "bool":
            raise LayoutProblem(f"{where} of type {kind}")
        return self._list(expected[0], where, depth) if isinstance(expected, tuple) else self._value(expected, depth)

    def _type(self, expected: Kind) -> int:
        return _LIST if isinstance(expected, tuple) else _TYPE_OF.get(expected, _STRUCT)

    def _list(self, item: str, where: str, depth: int) -> Sequence[object]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        kinds = (_TRUE, _FALSE) if item == "bool" else (self._type(item),)
        if count and head & 15 not in kinds:
            raise LayoutProblem(f"{where} of items of type {head & 15}")
        if count > len(self.data) - self.at:
            raise OutOfBytes(f"{where} of {count} items")
        return [self._value(item, depth) for _ in range(count)]

    def _value(self, kind: str, depth: int) -> object:
        if kind == "binary":
            return self._take(self._varint())
        if kind == "byte":
            return int.from_bytes(self._take(1), signed=True)
        if kind in _BITS:
            return self._signed(_BITS[kind])
        if kind == "bool":
            return self._byte() == _TRUE
        if kind == "double":
            return struct.unpack("<d", self._take(8))[0]
        return self.read(kind, depth - 1)

    def _signed(self, bits: int) -> int:
        number = self._varint()
        if number >> bits:
            raise LayoutProblem(f"a number of more than {bits} bits")
        return number >> 1 ^ -(number & 1)

    def _varint(self) -> int:
        return read_varint(self._byte(), self._byte)

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise OutOfBytes("the struct does not end")
        self.at += 1
        return self.data[self.at - 1]

    def _take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise OutOfBytes("text behind the end")
        self.at += count
        return part
