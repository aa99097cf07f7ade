"""The trees and heaps of HDF5 files, where groups and text of variable length are stored.

Source: HDF5 File Format Specification 3.0, sections III.A to III.H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from policyguard.scan.findings import Exhausted, Findings, LayoutProblem
from policyguard.scan.source import Source, Truncated

UNDEFINED = 2**64 - 1
MAX_BLOCK = 64 * 2**20
MAX_LEVELS = 32


@dataclass(slots=True)
class Hdf5File:
    """The bytes of one file by address; reading outside raises `LayoutProblem`."""

    source: Source
    findings: Findings
    blocks: int = 0
    heaps: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def read(self, at: int, length: int, signature: bytes = b"") -> bytes:
        """Read `length` bytes at `at`; they must begin with the signature.

        Args:
            at: the address.
            length: how many bytes.
            signature: the expected first bytes.

        Raises:
            LayoutProblem: the bytes are outside the file or begin differently.
            Exhausted: too much was read.
        """
        self.blocks += 1
        if self.blocks > self.findings.limits.members:
            raise Exhausted("ckpt.too_large", "HDF5 blocks")
        self.findings.check_time()
        if not 0 <= length <= MAX_BLOCK or at + length > self.source.size:
            raise LayoutProblem(f"{length} bytes at {at}, outside of the file")
        data = self.source.read(at, length)
        if len(data) < length:
            raise Truncated
        if not data.startswith(signature):
            raise LayoutProblem(f"no {signature.decode('ascii')} at {at}")
        return data

    def check(self, at: int, length: int, what: str) -> None:
        """Check that `length` bytes at `at` are inside the file.

        The undefined address passes: nothing was written there.

        Args:
            at: the address.
            length: how many bytes.
            what: names them in errors.

        Raises:
            LayoutProblem: they are outside the file.
        """
        if at != UNDEFINED and at + length > self.source.size:
            raise LayoutProblem(f"{what} of {length} bytes at {at}, outside of the file")

    def global_object(self, at: int, index: int) -> bytes:
        """Read an object in a global heap, which holds text of variable length.

        Raises:
            LayoutProblem: the heap has no such object.
        """
        if at not in self.heaps:
            size = number(self.read(at, 16, b"GCOL"), 8, 8)
            self.heaps[at] = _objects(self.read(at, size))
        if index not in self.heaps[at]:
            raise LayoutProblem(f"no object {index} in the heap at {at}")
        return self.heaps[at][index]


def number(data: bytes, at: int, width: int) -> int:
    """Read a little-endian number; raises `LayoutProblem` past the end of the data.

    Args:
        data: the bytes.
        at: the offset.
        width: the number of bytes.
    """
    if at + width > len(data):
        raise LayoutProblem("a structure that ends too early")
    return int.from_bytes(data[at : at + width], "little")


def _objects(data: bytes) -> dict[int, bytes]:
    objects, at = dict[int, bytes](), 16
    while at + 16 <= len(data):
        index, size = number(data, at, 2), number(data, at + 8, 8)
        if not index:
            break
        if at + 16 + size > len(data) or index in objects:
            raise LayoutProblem("a global heap whose objects do not fit")
        objects[index] = data[at + 16 : at + 16 + size]
        at += 16 + (size + 7) // 8 * 8
    return objects


def group_entries(file: Hdf5File, tree: int, heap: int) -> Iterator[bytes]:
    """Yield each 40-byte entry of a group stored as a symbol table; the names are in its heap.

    Args:
        file: the file.
        tree: the address of the group's tree.
        heap: the address of its heap.

    Raises:
        LayoutProblem: a name is outside its heap.
    """
    head = file.read(heap, 32, b"HEAP")
    names = file.read(number(head, 24, 8), number(head, 8, 8))
    for node in tree_children(file, tree, 0, 8):
        count = number(file.read(node, 8, b"SNOD"), 6, 2)
        data = file.read(node, 8 + 40 * count)
        for at in range(8, len(data), 40):
            start = number(data, at, 8)
            if start >= len(names) or names.find(b"\0", start) < 0:
                raise LayoutProblem("a name outside of its heap")
            yield data[at : at + 40]


def tree_children(
    file: Hdf5File, at: int, kind: int, key_bytes: int, visit: Callable[[bytes, int], None] | None = None
) -> Iterator[int]:
    """Yield the addresses in the leaves of a version 1 B-tree; `visit` gets each key with its address.

    Args:
        file: the file.
        at: the address of the root.
        kind: the kind of node.
        key_bytes: the size of a key.
        visit: is called with each key of a leaf and its address.

    Raises:
        LayoutProblem: a node is of another kind or level.
    """
    pending = [(at, MAX_LEVELS)] if at != UNDEFINED else []
    while pending:
        node, level_above = pending.pop()
        head = file.read(node, 24, b"TREE")
        level, count = head[5], number(head, 6, 2)
        if head[4] != kind or level >= level_above:
            raise LayoutProblem(f"a tree node at {node} of another kind or level")
        data = file.read(node + 24, count * (key_bytes + 8) + key_bytes)
        for index in range(count):
            key = data[index * (key_bytes + 8) :][:key_bytes]
            child = number(data, index * (key_bytes + 8) + key_bytes, 8)
            if level:
                pending.append((child, level))
                continue
            if visit:
                visit(key, child)
            yield child


def dense_objects(file: Hdf5File, heap_at: int, tree_at: int, kind: int, id_at: int) -> Iterator[bytes]:
    """Yield the heap objects that a version 2 B-tree lists; `id_at` is the id's position in a record.

    Args:
        file: the file.
        heap_at: the address of the heap.
        tree_at: the address of the tree.
        kind: the kind of record.
        id_at: the offset of the heap id in a record.
    """
    heap = _FractalHeap(file, file.read(heap_at, 142, b"FRHP"))
    for record in _records(file, tree_at, kind):
        yield heap.object(record[id_at : id_at + heap.id_bytes])


def _width(limit: int) -> int:
    return max(limit.bit_length() - 1, 0) // 8 + 1


def _records(file: Hdf5File, at: int, kind: int) -> Iterator[bytes]:
    head = file.read(at, 38, b"BTHD")
    node_bytes, size, depth = number(head, 6, 4), number(head, 10, 2), number(head, 12, 2)
    if head[5] != kind or depth > MAX_LEVELS or not size or node_bytes < 64:
        raise LayoutProblem("a tree of another kind")
    capacities = [(node_bytes - 10) // size]
    total, widths = capacities[0], [0]
    for _ in range(depth):
        pointer = 8 + _width(capacities[0]) + widths[-1]
        capacities.append((node_bytes - 10 - pointer) // (size + pointer))
        total = (capacities[-1] + 1) * total + capacities[-1]
        widths.append(_width(total))
    pending = [(number(head, 16, 8), number(head, 24, 2), depth)] if number(head, 16, 8) != UNDEFINED else []
    while pending:
        node, count, level = pending.pop()
        if count > capacities[level]:
            raise LayoutProblem("a tree node of too many records")
        data = file.read(node, node_bytes, b"BTIN" if level else b"BTLF")
        yield from (data[6 + index * size :][:size] for index in range(count))
        pointers, step = 6 + count * size, 8 + _width(capacities[0]) + (widths[level - 1] if level else 0)
        for index in range(count + 1 if level else 0):
            child = pointers + index * step
            pending.append((number(data, child, 8), number(data, child + 8, _width(capacities[0])), level - 1))


class _FractalHeap:
    """The objects in a fractal heap, located through its doubling table of blocks."""

    def __init__(self, file: Hdf5File, head: bytes) -> None:
        self.file = file
        self.id_bytes = number(head, 5, 2)
        if number(head, 7, 2):
            raise LayoutProblem("a heap that is packed")
        self.width, self.first, self.largest = number(head, 110, 2), number(head, 112, 8), number(head, 120, 8)
        self.offset_bytes = (number(head, 128, 2) + 7) // 8
        self.root, self.rows = number(head, 132, 8), number(head, 140, 2)
        self.length_bytes = _width(min(self.largest, number(head, 10, 4)))
        if not self.width or not self.first or self.rows > 64:
            raise LayoutProblem("a heap without blocks")

    def object(self, key: bytes) -> bytes:
        if len(key) < self.id_bytes or not key or key[0] & 0xF0:
            raise LayoutProblem("a heap object that is not kept in a block")
        offset = number(key, 1, self.offset_bytes)
        length = number(key, 1 + self.offset_bytes, self.length_bytes)
        start, size, inside = self._block(offset) if self.rows else (self.root, self.first, offset)
        if inside + length > size:
            raise LayoutProblem("a heap object that leaves its block")
        self.file.read(start, 5, b"FHDB")
        return self.file.read(start + inside, length)

    def _block(self, offset: int) -> tuple[int, int, int]:
        """Return address and size of the direct block with this offset, and the offset inside it."""
        row, base = 0, 0
        while row < self.rows:
            size = self.first << max(row - 1, 0)
            if size > self.largest:
                break
            if offset < base + size * self.width:
                column = (offset - base) // size
                at = 13 + self.offset_bytes + 8 * (row * self.width + column)
                table = self.file.read(self.root, at + 8, b"FHIB")
                return number(table, at, 8), size, (offset - base) % size
            base += size * self.width
            row += 1
        raise LayoutProblem("a heap of more levels than are read")
