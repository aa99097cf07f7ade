"""Headers of data-only formats: numpy's `.npy` and safetensors. An inconsistent header is a finding."""

from __future__ import annotations

import ast
import json
import math
import re
from typing import Any

from policyguard.scan.findings import Findings
from policyguard.scan.settings.judge import judge_embedded
from policyguard.scan.source import Source, window
from policyguard.text import printable_ascii
from policyguard.values import name_of

MAX_SAFETENSORS_HEADER = 100_000_000
"""The limit of the safetensors reader, `MAX_HEADER_SIZE` in safetensors/src/tensor.rs."""

_DTYPES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "C64 F64 I64 U64",
}
_DTYPE_BITS = {name: bits for bits, names in _DTYPES_BY_BITS.items() for name in names.split()}
NPY_MAGIC = b"\x93NUMPY"
_MAX_NPY_HEADER = 10_000
"""The header size that `numpy.load` accepts from an untrusted file, `max_header_size`."""
_NPY_KIND = re.compile(r"[<>|=]?([?bBhHiIlLqQefdgFDGSaUVmMOc])(\d*)(\[[\w/]+\])?")


class HeaderProblem(ValueError):
    """The header is inconsistent; the text says how."""


def is_safetensors(source: Source, head: bytes) -> bool:
    """Return True if the bytes begin with a plausible length and the brace of a JSON header."""
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and 2 <= length <= max(source.size, MAX_SAFETENSORS_HEADER)


def scan_safetensors(source: Source, findings: Findings) -> str:
    """Check the header, and that the tensors fill the rest of the file; record the first problem.

    file = u64-length header-json tensors; offsets tile the rest of the file.
    Source: the format description in the safetensors README, and `Metadata::validate`.
    """
    try:
        _check_safetensors(source, findings)
    except HeaderProblem as problem:
        findings.add("ckpt.safetensors_header", str(problem))
    return "safetensors"


def _check_safetensors(source: Source, findings: Findings) -> None:
    length = int.from_bytes(source.read(0, 8), "little")
    if source.size < 8 or length > MAX_SAFETENSORS_HEADER or 8 + length > source.size:
        raise HeaderProblem(f"header of {length} bytes in a file of {source.size}")
    header = _strict_json(source.read(8, length))
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(text) is str for text in metadata.values()):
        raise HeaderProblem("metadata that is not text")
    for key, text in metadata.items():
        judge_embedded(key, text, findings, "$.__metadata__")
    spans = sorted(_span(name, entry) for name, entry in header.items())
    at = 0
    for start, stop, name in spans:
        if start != at:
            raise HeaderProblem(f"`{printable_ascii(name, 60)}` starts at {start}, expected {at}")
        at = stop
    if 8 + length + at != source.size:
        raise HeaderProblem(f"{source.size - 8 - length} bytes of tensors, expected {at}")


def _span(name: str, entry: object) -> tuple[int, int, str]:
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise HeaderProblem(f"`{printable_ascii(name, 60)}` has other fields than dtype, shape and data_offsets")
    bits, shape, offsets = _DTYPE_BITS.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if bits is None:
        raise HeaderProblem(f"`{printable_ascii(name, 60)}` has an unknown dtype")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise HeaderProblem(f"`{printable_ascii(name, 60)}` has a malformed shape or offsets")
    start, stop = offsets
    if start > stop or (stop - start) * 8 != math.prod(shape) * bits:
        raise HeaderProblem(f"`{printable_ascii(name, 60)}` takes {stop - start} bytes, which its shape does not")
    return start, stop, name


def _naturals(value: object) -> bool:
    return type(value) is list and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _strict_json(data: bytes) -> dict[str, Any]:
    if data[:1] != b"{":
        raise HeaderProblem("header does not begin with `{`")
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except HeaderProblem:
        raise
    except (ValueError, RecursionError) as problem:
        raise HeaderProblem(f"not JSON: {str(problem)[:60]}") from None
    if type(header) is not dict:
        raise HeaderProblem(f"found {name_of(header)}, expected a map")
    return header


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise HeaderProblem("a key twice in one map")
    return members


def _no_constant(name: str) -> object:
    raise HeaderProblem(f"found {name}")


def npy_data(source: Source) -> tuple[Source, bool]:
    """Return an `.npy` file's data, and True if that is a pickle; raises `HeaderProblem`.

    file = magic version header-length header data
    Source: numpy.lib.format, versions 1.0 to 3.0.
    """
    version = source.read(6, 2)
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(version)
    if width is None:
        raise HeaderProblem("npy of another version")
    length = int.from_bytes(source.read(8, width), "little")
    start = 8 + width + length
    if length > _MAX_NPY_HEADER or start > source.size:
        raise HeaderProblem(f"npy header of {length} bytes")
    descr, shape = _npy_header(source.read(8 + width, length).decode("utf-8", "replace"))
    item_bytes, is_object = _descr(descr)
    data = window(source, start, source.size - start)
    if not is_object and math.prod(shape) * item_bytes != data.size:
        raise HeaderProblem(f"{data.size} bytes of data, expected {math.prod(shape) * item_bytes}")
    return data, is_object


def _npy_header(text: str) -> tuple[object, tuple[int, ...]]:
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise HeaderProblem("npy header that is no literal") from None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise HeaderProblem("npy header of other fields")
    shape = header["shape"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise HeaderProblem("npy header without a shape")
    return header["descr"], shape


def _descr(descr: object, depth: int = 8) -> tuple[int, bool]:
    """Parse numpy's notation of a dtype; return the item size in bytes, and True if it contains objects."""
    if type(descr) is str:
        match = _NPY_KIND.fullmatch(descr)
        if match is None:
            raise HeaderProblem(f"npy dtype `{printable_ascii(descr, 40)}`")
        kind, count = match[1], int(match[2] or "1")
        return (count * 4 if kind == "U" else count), kind == "O"
    if isinstance(descr, list) and depth and all(isinstance(f, tuple) and len(f) in (2, 3) for f in descr):
        size, objects = 0, False
        for field in descr:
            item, is_object = _descr(field[1], depth - 1)
            size, objects = size + item * _repeat(field), objects or is_object
        return size, objects
    if isinstance(descr, tuple) and len(descr) == 2 and depth:
        item, is_object = _descr(descr[0], depth - 1)
        return item * _repeat(("", "", descr[1])), is_object
    raise HeaderProblem("npy dtype that is not read here")


def _repeat(field: tuple[Any, ...]) -> int:
    if len(field) < 3:
        return 1
    counts = field[2] if isinstance(field[2], tuple) else (field[2],)
    if not all(type(n) is int and n >= 0 for n in counts):
        raise HeaderProblem("npy dtype of a malformed shape")
    return math.prod(counts)
