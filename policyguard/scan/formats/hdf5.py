"""HDF5 files: reads every reachable object, header message and attribute; does not decode values.

    file = superblock object-header; object-header = *( message / continuation )

Reads the layouts that h5py writes by default and with `track_order`: symbol tables, compact and dense groups and
attributes, contiguous, compact and chunked data. Text in attributes is checked, because Keras stores a model there and
PyTables unpickles it. Filters beyond the library's are loaded as plugins, and links and data may be in other files.

Source: HDF5 File Format Specification 3.0, sections II and IV.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from policyguard.scan.findings import Findings, LayoutProblem
from policyguard.scan.formats.external_files import check_location
from policyguard.scan.formats.hdf5_attributes import check_attribute, value_count
from policyguard.scan.formats.hdf5_trees import (
    UNDEFINED,
    Hdf5File,
    dense_objects,
    group_entries,
    number,
    tree_children,
)
from policyguard.scan.source import Source

MAGIC = b"\x89HDF\r\n\x1a\n"
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
"""Deflate, shuffle, Fletcher 32, szip, n-bit and scale-offset of the library, and h5py's own LZF."""
_HARD, _SOFT, _EXTERNAL = 0, 1, 64
_SHARED = 2
_SPACE, _TYPE, _LAYOUT = 0x01, 0x03, 0x08


def scan_hdf5(source: Source, findings: Findings) -> str:
    """Scan an HDF5 file; return `hdf5`."""
    file = Hdf5File(source, findings)
    try:
        walk = _Walk(file)
        walk.superblock()
        while walk.pending:
            walk.object(walk.pending.pop())
    except LayoutProblem as problem:
        findings.add("ckpt.hdf5_layout", str(problem))
    return "hdf5"


@dataclass(slots=True)
class _Walk:
    file: Hdf5File
    pending: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    tables: set[bytes] = field(default_factory=set)

    def superblock(self) -> None:
        """Queue everything that the superblock points to, such as the root group."""
        size = self.file.source.size
        head = self.file.read(0, min(100, size), MAGIC)
        version = number(head, 8, 1)
        if version in (0, 1):
            at = 24 + 4 * version
            sizes, base, end, driver = head[13:15], *(number(head, at + step, 8) for step in (0, 16, 24))
            self.entry(head[at + 32 : at + 72])
        elif version in (2, 3):
            sizes, base, driver, end, root = head[9:11], *(number(head, at, 8) for at in (12, 20, 28, 36))
            self.pending += [root] if driver == UNDEFINED else [root, driver]
            driver = UNDEFINED
        else:
            raise LayoutProblem(f"superblock of version {version}")
        if sizes != b"\x08\x08" or base or driver != UNDEFINED:
            raise LayoutProblem("addresses of another width, not from the beginning, or in other files")
        if end != size:
            raise LayoutProblem(f"a file of {end} bytes in {size}")

    def object(self, at: int) -> None:
        """Process every message of an object header; raises `LayoutProblem` for an unsupported one."""
        if at in self.seen:
            return
        self.seen.add(at)
        messages = _messages(self.file, at)
        self.check_size({kind: data for kind, _, data in messages})
        for kind, flags, data in messages:
            # INVARIANT I18: a message that is not known here is never passed over.
            if kind in _PASSED:
                continue
            if kind not in _READ or flags & _SHARED:
                if kind == 3 and flags & _SHARED:
                    self.pending.append(number(data, 8 if data[:1] == b"\1" else 2, 8))
                    continue
                raise LayoutProblem(f"a message of type {kind:#x}")
            _READ[kind](self, data)

    def check_size(self, messages: Mapping[int, bytes]) -> None:
        """Add a finding if a dataset's shape needs far more memory than the file has bytes."""
        if _SPACE not in messages or _LAYOUT not in messages:
            return
        item = number(messages[_TYPE], 4, 4) if len(messages.get(_TYPE, b"")) >= 8 else 8
        size, limits = value_count(messages[_SPACE]) * item, self.file.findings.limits
        if size > max(limits.free_ratio_bytes, limits.ratio * self.file.source.size):
            self.file.findings.add("ckpt.too_compressed", f"a dataset of {size} bytes")

    def link(self, data: bytes) -> None:
        flags = number(data, 1, 1)
        kind, at = (number(data, 2, 1), 3) if flags & 8 else (_HARD, 2)
        at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        at += width + number(data, at, width)
        if kind == _HARD:
            self.pending.append(number(data, at, 8))
        elif kind == _EXTERNAL:
            name = data[at + 3 : at + 2 + number(data, at, 2)].split(b"\0")[0]
            check_location(name.decode("utf-8", "replace"), self.file.findings)
        elif kind != _SOFT:
            raise LayoutProblem(f"a link of type {kind}")

    def links(self, data: bytes) -> None:
        for link in _dense(self.file, data, 8, ((5, 4), (6, 8))):
            self.link(link)

    def table(self, data: bytes) -> None:
        if data[:16] not in self.tables:
            self.tables.add(data[:16])
            for entry in group_entries(self.file, number(data, 0, 8), number(data, 8, 8)):
                self.entry(entry)

    def entry(self, entry: bytes) -> None:
        """Follow a group entry through its object header and through its cached copy of the group's table."""
        cached = number(entry, 16, 4)
        if cached not in (0, 1, 2):
            raise LayoutProblem(f"a group entry of type {cached}")
        if cached != 2:
            self.pending.append(number(entry, 8, 8))
        if cached == 1:
            self.table(entry[24:40])

    def attribute(self, data: bytes) -> None:
        check_attribute(self.file, data)

    def attributes(self, data: bytes) -> None:
        for attribute in _dense(self.file, data, 2, ((8, 0), (9, 0))):
            check_attribute(self.file, attribute)

    def filters(self, data: bytes) -> None:
        version, count, at = number(data, 0, 1), number(data, 1, 1), 8
        at = 8 if version == 1 else 2
        for _ in range(count):
            kind = number(data, at, 2)
            named = version == 1 or kind >= 256
            name = number(data, at + 2, 2) if named else 0
            values = number(data, at + (6 if named else 4), 2)
            at += (8 if named else 6) + ((name + 7) // 8 * 8 if version == 1 else name) + 4 * values
            at += 4 if version == 1 and values % 2 else 0
            if kind not in _FILTERS:
                self.file.findings.add("ckpt.hdf5_plugin", f"filter {kind}")
        if version not in (1, 2) or at > len(data):
            raise LayoutProblem("a filter pipeline that does not fit")

    def external(self, data: bytes) -> None:
        used, heap = number(data, 6, 2), number(data, 8, 8)
        names = self.file.read(heap, 32, b"HEAP")
        text = self.file.read(number(names, 24, 8), number(names, 8, 8))
        for index in range(used):
            start = number(data, 16 + 24 * index, 8)
            check_location(text[start:].split(b"\0")[0].decode("utf-8", "replace"), self.file.findings)

    def layout(self, data: bytes) -> None:
        version, kind = number(data, 0, 1), number(data, 1, 1)
        if version not in (3, 4):
            raise LayoutProblem(f"a data layout of version {version}")
        if kind == 0:
            if 4 + number(data, 2, 2) > len(data):
                raise LayoutProblem("compact data that does not fit")
        elif kind == 1:
            self.file.check(number(data, 2, 8), number(data, 10, 8), "data")
        elif kind == 2 and version == 3:
            self.chunks(data)
        elif kind == 3:
            self.file.findings.add("ckpt.external_data", "a virtual dataset")
        else:
            raise LayoutProblem("chunks with an index that is not read")

    def chunks(self, data: bytes) -> None:
        rank = number(data, 2, 1)
        if not 1 <= rank <= 33 or not math.prod(number(data, 11 + 4 * index, 4) for index in range(rank)):
            raise LayoutProblem(f"chunks of {rank - 1} dimensions")

        def visit(key: bytes, at: int) -> None:
            self.file.check(at, number(key, 0, 4), "a chunk")

        for _ in tree_children(self.file, number(data, 3, 8), 1, 8 + 8 * rank, visit):
            pass


_PASSED = {0x00, 0x01, 0x04, 0x05, 0x0A, 0x0D, 0x0E, 0x12, 0x13, 0x16}
"""Messages that are only data: nothing, dataspace, fill values, group information, comment, times, tree sizes,
reference count."""
_READ: Mapping[int, Callable[[_Walk, bytes], None]] = {
    0x02: _Walk.links,
    0x03: lambda _, data: _check_type(data),
    0x06: _Walk.link,
    0x07: _Walk.external,
    0x08: _Walk.layout,
    0x0B: _Walk.filters,
    0x0C: _Walk.attribute,
    0x11: _Walk.table,
    0x15: _Walk.attributes,
}


def _dense(file: Hdf5File, data: bytes, counter_bytes: int, indexes: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    """Yield the content of a dense group or attribute set by each of its indexes; a reader may use any."""
    flags = number(data, 1, 1)
    at = 2 + (counter_bytes if flags & 1 else 0)
    heap = number(data, at, 8)
    if heap != UNDEFINED:
        for index, (kind, id_at) in enumerate(indexes[: 2 if flags & 2 else 1]):
            yield from dense_objects(file, heap, number(data, at + 8 + 8 * index, 8), kind, id_at)


def _check_type(data: bytes) -> None:
    if number(data, 0, 1) & 15 > 11 or len(data) < 8:
        raise LayoutProblem("a datatype that is not known")


def _messages(file: Hdf5File, at: int) -> list[tuple[int, int, bytes]]:
    """List type, flags and body of every message in an object header and its continuations."""
    head = file.read(at, 16)
    modern = head[:4] == b"OHDR"
    if modern:
        flags, start = head[5], 6 + (16 if head[5] & 32 else 0) + (4 if head[5] & 16 else 0)
        width = 1 << (flags & 3)
        size = number(file.read(at + start, width), 0, width)
        blocks, step = [(at + start + width, size)], 6 if flags & 4 else 4
    elif head[0] == 1:
        blocks, step = [(at + 16, number(head, 8, 4))], 8
    else:
        raise LayoutProblem(f"no object header at {at}")
    messages: list[tuple[int, int, bytes]] = []
    for index, (start, size) in enumerate(blocks):
        block = file.read(start, size)
        if modern and index:
            block = file.read(start, size, b"OCHK")[4:-4]
        for kind, flags, data in _split(block, modern, step):
            if kind == 0x10:
                blocks.append((number(data, 0, 8), number(data, 8, 8)))
            else:
                messages.append((kind, flags, data))
        if len(blocks) > 1_000:
            raise LayoutProblem("an object header without end")
    return messages


def _split(block: bytes, modern: bool, step: int) -> list[tuple[int, int, bytes]]:
    messages, at = [], 0
    while at + step <= len(block):
        kind, size, flags = (
            (block[at], number(block, at + 1, 2), block[at + 3])
            if modern
            else (number(block, at, 2), number(block, at + 2, 2), block[at + 4])
        )
        if at + step + size > len(block):
            raise LayoutProblem("a message that leaves its block")
        messages.append((kind, flags, block[at + step : at + step + size]))
        at += step + size
    return messages
