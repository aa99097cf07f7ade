"""Sparse tensors: torch uses their indexes as memory offsets without checking them at load time.

    coo = indices ( dimensions x values ), values, size
    csr, csc = compressed indices, plain indices, values, size

Source: torch 2.13 `_rebuild_sparse_tensor`; CVE-2025-62164 wrote to memory by an index beyond the size.
"""

from __future__ import annotations

import array
import itertools
import sys
from collections.abc import Callable

from policyguard.scan.findings import Findings
from policyguard.scan.pickles.values import Abstract, Import, Made, Stored
from policyguard.scan.source import Source

_INDEXES = {"LongStorage": ("q", 8), "IntStorage": ("i", 4)}
_MAX_BYTES = 256 * 2**20
_MAX_DIMENSIONS = 64

StorageOf = Callable[[str], Source | None]


def check_indexes(tensor: Made, storage_of: StorageOf, findings: Findings) -> None:
    """Add a finding unless every index of this tensor is read and lies within its size.

    Args:
        tensor: what a function of torch made of a layout and its parts.
        storage_of: returns the bytes of a storage, or None.
        findings: takes what is found.
    """
    problem = _problem(tensor, storage_of)
    if problem:
        # INVARIANT I18: an index that was not read may lead anywhere.
        findings.add("ckpt.sparse_index", problem)


def _problem(tensor: Made, storage_of: StorageOf) -> str:
    values = tensor.args if isinstance(tensor.args, tuple) else ()
    layout = values[0].args if len(values) == 2 and isinstance(values[0], Made) else None
    data = values[1] if len(values) == 2 else None
    if tensor.callee == Import("torch._utils", "_rebuild_nested_tensor"):
        return "the offsets of a nested tensor are not read"
    if not isinstance(layout, tuple) or len(layout) != 1 or not isinstance(data, tuple):
        return f"{tensor.callee} is not read here"
    match layout[0], data:
        case "torch.sparse_coo", (indices, _, size, *_):
            return _coordinates(_rows(indices, storage_of), _sizes(size))
        case "torch.sparse_csr", (compressed, plain, _, size):
            return _compressed(_rows(compressed, storage_of), _rows(plain, storage_of), _sizes(size), -1)
        case "torch.sparse_csc", (compressed, plain, _, size):
            return _compressed(_rows(compressed, storage_of), _rows(plain, storage_of), _sizes(size), -2)
    return f"the layout {layout[0]} is not read here"


def _coordinates(rows: list[array.array[int]] | None, sizes: tuple[int, ...] | None) -> str:
    if rows is None or sizes is None or len(rows) > len(sizes):
        return "computed or unreadable indexes"
    for row, size in zip(rows, sizes, strict=False):
        if row and not (min(row) >= 0 and max(row) < size):
            return f"an index {max(row) if max(row) >= size else min(row)} in a dimension of {size}"
    return ""


def _compressed(
    ends: list[array.array[int]] | None,
    plain: list[array.array[int]] | None,
    sizes: tuple[int, ...] | None,
    by: int,
) -> str:
    if ends is None or plain is None or sizes is None or len(ends) != 1 or len(plain) != 1 or len(sizes) != 2:
        return "computed or unreadable indexes"
    counts, row = ends[0], plain[0]
    if len(counts) != sizes[-1 if by == -2 else -2] + 1 or counts[0] != 0 or counts[-1] != len(row):
        return "compressed indexes that do not fit the size"
    if any(later < earlier for earlier, later in itertools.pairwise(counts)):
        return "compressed indexes that go back"
    return _coordinates(plain, (sizes[by],))


def _sizes(value: Abstract) -> tuple[int, ...] | None:
    if isinstance(value, Made) and value.callee == Import("torch", "Size") and isinstance(value.args, tuple):
        value = value.args[0] if len(value.args) == 1 else None
    if not isinstance(value, tuple) or not all(type(size) is int and size >= 0 for size in value):
        return None
    return tuple(size for size in value if type(size) is int)


def _rows(value: Abstract, storage_of: StorageOf) -> list[array.array[int]] | None:
    """Return the rows of an index tensor of one or two dimensions; None if they cannot be read."""
    if not isinstance(value, Made) or not isinstance(value.callee, Import) or not isinstance(value.args, tuple):
        return None
    known = value.callee.module == "torch._utils" and value.callee.name.startswith("_rebuild_tensor")
    if not known or len(value.args) < 4 or value.state is not None:
        return None
    stored, offset, shape, steps = value.args[0], value.args[1], _sizes(value.args[2]), _sizes(value.args[3])
    if not isinstance(stored, Stored) or type(offset) is not int or offset < 0 or shape is None or steps is None:
        return None
    items = _items(stored, storage_of)
    if items is None or len(shape) != len(steps) or not 1 <= len(shape) <= 2:
        return None
    if len(shape) == 1:
        shape, steps = (1, *shape), (0, *steps)
    if shape[0] > _MAX_DIMENSIONS:
        return None
    rows = [_row(items, offset + row * steps[0], shape[1], steps[1]) for row in range(shape[0])]
    whole = [row for row in rows if row is not None]
    return whole if len(whole) == len(rows) else None


def _row(items: array.array[int], start: int, count: int, step: int) -> array.array[int] | None:
    if not count:
        return items[:0]
    if step <= 0:
        return None if count > 1 or start >= len(items) else items[start : start + 1]
    row = items[start : start + (count - 1) * step + 1 : step]
    return row if len(row) == count else None


def _items(stored: Stored, storage_of: StorageOf) -> array.array[int] | None:
    code, width = _INDEXES.get(stored.storage_class, ("", 0))
    source = storage_of(stored.key) if width else None
    if source is None or source.size > _MAX_BYTES or source.size % width:
        return None
    items = array.array(code)
    items.frombytes(source.read(0, source.size))
    if sys.byteorder == "big":
        items.byteswap()
    return items
