"""GGUF files: reads every key and value; the tensors must fill the rest of the file.

    file = magic u32-version u64-tensors u64-keys *key-value *tensor-info padding *( tensor padding )

Source: docs/gguf.md of ggml; block sizes of ggml's types as its `gguf-py` lists them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from policyguard.scan.findings import Exhausted, Findings, LayoutProblem
from policyguard.scan.formats.chat_template import check_template
from policyguard.scan.settings.judge import judge_embedded
from policyguard.scan.source import Cursor, Source, Truncated

MAGIC = b"GGUF"
MAX_ITEMS = 2**24
"""The maximum number of array items read one by one; vocabularies have some 500,000."""
MAX_DEPTH = 4
MAX_VALUE_BYTES = 2**21
_BLOCK = 2**20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
}
"""Values in a block and bytes of a block, by ggml's number of the type."""
_TEMPLATE = b"tokenizer.chat_template"
_TEMPLATE_WORD = b"template"


def scan_gguf(source: Source, findings: Findings) -> str:
    """Scan a GGUF model; return `gguf`."""
    try:
        _scan(source, findings)
    except LayoutProblem as problem:
        findings.add("ckpt.gguf_layout", str(problem))
    return "gguf"


def _scan(source: Source, findings: Findings) -> None:
    little = source.read(4, 4)
    versions = {struct.pack(f"{order}I", version): order for version in (2, 3) for order in "<>"}
    if little not in versions:
        raise LayoutProblem(f"version {int.from_bytes(little, 'little')}, expected 2 or 3")
    walk = _Walk(Cursor(source, 8), findings, versions[little])
    tensors, keys = walk.number("Q"), walk.number("Q")
    if max(tensors, keys) > findings.limits.members:
        raise Exhausted("ckpt.too_large", f"{tensors} tensors, {keys} keys")
    alignment, names = 32, set[bytes]()
    for _ in range(keys):
        key = walk.text("a key")
        _once(key, names, findings)
        kind = walk.number("I")
        start = walk.cursor.position
        value = walk.value(kind, MAX_DEPTH)
        name = key.decode("utf-8", "replace")
        if key == b"general.alignment":
            alignment = value if type(value) is int else 0
        elif key.startswith(_TEMPLATE) and kind == _STRING:
            template = value.decode("utf-8", "replace") if isinstance(value, bytes) else None
            check_template(template, findings, f"$.{name}")
        elif _TEMPLATE_WORD in key.lower() and kind == _ARRAY:
            _check_templates(_Walk(Cursor(source, start), findings, walk.order), kind, f"$.{name}", MAX_DEPTH)
        elif isinstance(value, bytes):
            judge_embedded(name, value.decode("utf-8", "replace"), findings, "$")
    if alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
        raise LayoutProblem(f"alignment {alignment}")
    _check_tensors([_tensor(walk, findings) for _ in range(tensors)], walk.cursor.position, alignment, source, findings)


def _check_templates(walk: _Walk, kind: int, location: str, depth: int) -> None:
    """Check each text of an array, at any depth, as a template."""
    if kind == _ARRAY and depth:
        inner, count = walk.number("I"), walk.number("Q")
        if inner in (_STRING, _ARRAY):
            for index in range(count):
                _check_templates(walk, inner, f"{location}[{index}]", depth - 1)
        else:
            walk.cursor.skip(count * struct.calcsize(f"<{_SCALARS[inner]}"))
    elif kind == _STRING:
        value = walk.value(kind, depth)
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else None
        check_template(text, walk.findings, location)


def _once(name: bytes, seen: set[bytes], findings: Findings) -> None:
    if name in seen:
        findings.add("ckpt.metadata_duplicate", name.decode("utf-8", "replace"))
    seen.add(name)


@dataclass(slots=True)
class _Walk:
    cursor: Cursor
    findings: Findings
    order: str
    items: int = 0

    def number(self, code: str) -> int:
        width = struct.calcsize(f"{self.order}{code}")
        return int(struct.unpack(f"{self.order}{code}", self.cursor.take(width))[0])

    def text(self, what: str) -> bytes:
        length = self.number("Q")
        if length > 65_535:
            raise LayoutProblem(f"{what} of {length} bytes")
        return self.cursor.take(length)

    def value(self, kind: int, depth: int) -> object:
        """Read a number, a text (for a long one, its position) or, for an array, None; raises `LayoutProblem`."""
        if kind == _STRING:
            length = self.number("Q")
            return self.cursor.take(length) if length <= MAX_VALUE_BYTES else self.cursor.skip(length)
        if kind == _ARRAY and depth:
            self._array(self.number("I"), self.number("Q"), depth)
            return None
        if kind not in _SCALARS:
            raise LayoutProblem(f"a value of type {kind}")
        return struct.unpack(self.order + _SCALARS[kind], self.cursor.take(struct.calcsize(f"<{_SCALARS[kind]}")))[0]

    def _array(self, kind: int, count: int, depth: int) -> None:
        if kind in _SCALARS:
            self.cursor.skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
            return
        self.items += count
        if self.items > MAX_ITEMS:
            raise Exhausted("ckpt.too_large", f"{self.items} items of arrays")
        if kind == _STRING:
            self._skip_texts(count)
            return
        for _ in range(count):
            self.findings.check_time()
            self.value(kind, depth - 1)

    def _skip_texts(self, count: int) -> None:
        """Skip `count` texts.

        A vocabulary has half a million, so lengths are read in blocks.
        """
        unpack, source = struct.Struct(f"{self.order}Q").unpack_from, self.cursor.source
        while count:
            self.findings.check_time()
            block = source.read(self.cursor.position, _BLOCK)
            used, last = 0, len(block) - 8
            while count and used <= last:
                used += 8 + unpack(block, used)[0]
                count -= 1
            if not used:
                raise Truncated
            self.cursor.skip(used)


def _tensor(walk: _Walk, findings: Findings) -> tuple[bytes, int, int]:
    """Read name, offset and size in bytes of one tensor."""
    findings.check_time()
    name, rank = walk.text("a tensor's name"), walk.number("I")
    if not 0 <= rank <= 8:
        raise LayoutProblem(f"a tensor of {rank} dimensions")
    shape = [walk.number("Q") for _ in range(rank)]
    values, size = _BLOCKS.get(walk.number("I"), (0, 0))
    if not values or (shape and shape[0] % values):
        raise LayoutProblem("a tensor whose type is unknown or does not fit its shape")
    return name, walk.number("Q"), math.prod(shape) // values * size


def _check_tensors(
    tensors: Sequence[tuple[bytes, int, int]], header_end: int, alignment: int, source: Source, findings: Findings
) -> None:
    start = _padded(header_end, alignment) if tensors else header_end
    at, names = 0, set[bytes]()
    _check_padding(source, header_end, start)
    for name, offset, size in tensors:
        _once(name, names, findings)
        # INVARIANT I18: tensors lie one behind the other; there is no room between and behind them.
        if offset != at:
            raise LayoutProblem(f"a tensor at {offset}, expected {at}")
        at = _padded(offset + size, alignment)
        _check_padding(source, start + offset + size, start + at)
    if source.size > start + at:
        findings.add("ckpt.trailing_bytes", f"{source.size - start - at} bytes after the tensors")
    if tensors and source.size < start + tensors[-1][1] + tensors[-1][2]:
        findings.add("ckpt.truncated", "inside the tensors")


def _padded(at: int, alignment: int) -> int:
    return (at + alignment - 1) // alignment * alignment


def _check_padding(source: Source, at: int, stop: int) -> None:
    if source.read(at, stop - at).strip(b"\0"):
        raise LayoutProblem(f"padding at {at} that is not zeros")
