"""Attributes of HDF5 objects: checks text and opaque bytes, which some readers interpret.

Source: HDF5 File Format Specification 3.0, sections IV.A.2.b, d and m.
"""

from __future__ import annotations

import math

from policyguard.scan.findings import LayoutProblem
from policyguard.scan.formats.hdf5_trees import Hdf5File, number
from policyguard.scan.formats.keras import check_config_text
from policyguard.scan.pickles.files import probe, scan_whole
from policyguard.scan.pickles.machine import Dialect
from policyguard.scan.source import BytesSource

_TEXT, _OPAQUE, _VARIABLE = 3, 5, 9
_CONFIGS = (b"model_config", b"training_config", b"layer_config")
MAX_VALUES = 100_000


def check_attribute(file: Hdf5File, data: bytes) -> None:
    """Check the values of one attribute message for code; raise `LayoutProblem` if it is inconsistent."""
    version, flags = number(data, 0, 1), number(data, 1, 1)
    if version not in (1, 2, 3) or (version > 1 and flags):
        raise LayoutProblem("an attribute of another version, or of a type kept elsewhere")
    sizes, at, parts = [number(data, offset, 2) for offset in (2, 4, 6)], 9 if version == 3 else 8, list[bytes]()
    for size in sizes:
        parts.append(data[at : at + size])
        at += (size + 7) // 8 * 8 if version == 1 else size
    name, kind, space = parts
    count = value_count(space)
    if number(kind, 4, 4) * count > len(data) - at or at > len(data):
        raise LayoutProblem("an attribute larger than its message")
    for value in _texts(file, kind, count, data[at:]):
        _check_value(file, name.split(b"\0")[0], value)


def value_count(space: bytes) -> int:
    """Return the number of values in a dataspace.

    Raises:
        LayoutProblem: a dataspace of another version.
    """
    version, rank = number(space, 0, 1), number(space, 1, 1)
    if version not in (1, 2) or rank > 32:
        raise LayoutProblem("a dataspace that is not known")
    if version == 2 and number(space, 3, 1) == 2:
        return 0
    start = 8 if version == 1 else 4
    return math.prod(number(space, start + 8 * index, 8) for index in range(rank))


def _texts(file: Hdf5File, kind: bytes, count: int, data: bytes) -> list[bytes]:
    """Return the values of a text or opaque attribute; none for numbers."""
    size, what = number(kind, 4, 4), kind[0] & 15
    if what in (_TEXT, _OPAQUE):
        if count > MAX_VALUES:
            raise LayoutProblem(f"an attribute of {count} texts")
        return [data[size * index : size * (index + 1)] for index in range(count)]
    if what != _VARIABLE or kind[1] & 15 != 1:
        return []
    if count > MAX_VALUES or size != 16:
        raise LayoutProblem(f"an attribute of {count} texts")
    values = []
    for at in range(0, size * count, size):
        length, heap, index = number(data, at, 4), number(data, at + 4, 8), number(data, at + 12, 4)
        text = file.global_object(heap, index) if length else b""
        if length > len(text):
            raise LayoutProblem("a text longer than its object")
        values.append(text[:length])
    return values


def _check_value(file: Hdf5File, name: bytes, value: bytes) -> None:
    if name in _CONFIGS:
        check_config_text(value.rstrip(b"\0"), file.findings)
    elif name == b"PSEUDOATOM" and value.startswith(b"object"):
        file.findings.add("ckpt.hdf5_pickles", "a table of pickled objects")
    elif value[:1] == b"\x80" or probe(BytesSource(value), file.findings):
        scan_whole(BytesSource(value.rstrip(b"\0")), file.findings, Dialect())
