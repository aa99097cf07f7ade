"""Arrow IPC files (Feather 2) and streams: reads every message, and reports column types that carry code.

    file = magic *message end-of-stream footer i32-length magic; stream = *message [ end-of-stream ]
    message = continuation i32-length flatbuffer padding body

The name of a column type decides what a reader does: pyarrow before 14.0.1 unpickled the metadata of
`arrow.py_extension_type` (CVE-2023-47248), and other libraries register their own types.

Source: the Arrow columnar format page, `Message.fbs`, `Schema.fbs` and `File.fbs` of Arrow 24.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policyguard.scan.findings import Exhausted, Findings, LayoutProblem
from policyguard.scan.formats.flatbuffer import FlatReader
from policyguard.scan.formats.key_value_metadata import check_metadata
from policyguard.scan.pickles.files import probe
from policyguard.scan.source import BytesSource, Source

FILE_MAGIC = b"ARROW1"
CONTINUATION = b"\xff\xff\xff\xff"
MAX_MESSAGE = 64 * 2**20
_TYPES = (
    "Null",
    "Int",
    "FloatingPoint",
    "Binary",
    "Utf8",
    "Bool",
    "Decimal",
    "Date",
    "Time",
    "Timestamp",
    "Interval",
    "List",
    "Struct",
    "Union",
    "FixedSizeBinary",
    "FixedSizeList",
    "Map",
    "Duration",
    "LargeBinary",
    "LargeUtf8",
    "LargeList",
    "RunEndEncoded",
    "BinaryView",
    "Utf8View",
    "ListView",
    "LargeListView",
)
_NOTES = ("custom_metadata", ("KeyValue",))
TABLES: Mapping[str, Sequence[tuple[str, Any]]] = {
    **dict.fromkeys(_TYPES, ()),
    "Int": (("bits", "i32"), ("signed", "bool")),
    "FloatingPoint": (("precision", "i16"),),
    "Decimal": (("precision", "i32"), ("scale", "i32"), ("bits", "i32")),
    "Date": (("unit", "i16"),),
    "Time": (("unit", "i16"), ("bits", "i32")),
    "Timestamp": (("unit", "i16"), ("timezone", "text")),
    "Interval": (("unit", "i16"),),
    "Union": (("mode", "i16"), ("type_ids", ("i32",))),
    "FixedSizeBinary": (("width", "i32"),),
    "FixedSizeList": (("size", "i32"),),
    "Map": (("sorted", "bool"),),
    "Duration": (("unit", "i16"),),
    "KeyValue": (("key", "text"), ("value", "text")),
    "Dictionary": (("id", "i64"), ("index", "Int"), ("ordered", "bool"), ("kind", "i16")),
    "Field": (
        ("name", "text"),
        ("nullable", "bool"),
        ("type_type", "u8"),
        ("type", dict(enumerate(_TYPES, 1))),
        ("dictionary", "Dictionary"),
        ("children", ("Field",)),
        _NOTES,
    ),
    "Schema": (("endianness", "i16"), ("fields", ("Field",)), _NOTES, ("features", ("i64",))),
    "Compression": (("codec", "i8"), ("method", "i8")),
    "RecordBatch": (
        ("length", "i64"),
        ("nodes", ("pair",)),
        ("buffers", ("pair",)),
        ("compression", "Compression"),
        ("variadic", ("i64",)),
    ),
    "DictionaryBatch": (("id", "i64"), ("data", "RecordBatch"), ("is_delta", "bool")),
    "Message": (
        ("version", "i16"),
        ("header_type", "u8"),
        ("header", {1: "Schema", 2: "DictionaryBatch", 3: "RecordBatch"}),
        ("body_length", "i64"),
        _NOTES,
    ),
    "Footer": (
        ("version", "i16"),
        ("schema", "Schema"),
        ("dictionaries", ("block",)),
        ("batches", ("block",)),
        _NOTES,
    ),
}

_UNPICKLED = {"arrow.py_extension_type", "ray.data.arrow_pickled_object"}
"""Types whose reader unpickles: pyarrow before 14.0.1, and Ray's column of Python objects."""
_LISTED = {
    "arrow.bool8",
    "arrow.fixed_shape_tensor",
    "arrow.json",
    "arrow.opaque",
    "arrow.timestamp_with_offset",
    "arrow.uuid",
    "arrow.variable_shape_tensor",
    "arrow.parquet.variant",
    "pandas.interval",
    "pandas.period",
    *(f"datasets.features.features.Array{size}DExtensionType" for size in range(2, 6)),
    *(
        f"geoarrow.{kind}"
        for kind in (
            "box",
            "linestring",
            "multilinestring",
            "multipoint",
            "multipolygon",
            "point",
            "polygon",
            "wkb",
            "wkt",
        )
    ),
}
"""Types whose readers parse JSON or nothing: Arrow's canonical ones, pandas', Hugging Face datasets', GeoArrow's."""


def scan_arrow(source: Source, findings: Findings) -> str:
    """Scan an Arrow IPC file or stream; return `arrow`."""
    try:
        if source.read(0, 6) == FILE_MAGIC:
            _scan_file(source, findings)
        else:
            _messages(source, 0, source.size, findings, ends=True)
    except LayoutProblem as problem:
        findings.add("ckpt.arrow_layout", str(problem))
    return "arrow"


def check_schema_message(data: bytes, findings: Findings) -> None:
    """Check the schema message that Parquet stores under `ARROW:schema`.

    Raises:
        LayoutProblem: the bytes are not one schema message.
    """
    messages = list(_messages(BytesSource(data), 0, len(data), findings))
    if len(messages) != 1:
        raise LayoutProblem(f"{len(messages)} Arrow messages, expected a schema")


def _scan_file(source: Source, findings: Findings) -> None:
    size = source.size
    if size < 24 or source.read(size - 6, 6) != FILE_MAGIC or source.read(6, 2) != b"\0\0":
        raise LayoutProblem("no magic at both ends")
    length = int.from_bytes(source.read(size - 10, 4), "little", signed=True)
    start = size - 10 - length
    if not 8 <= start < size - 10 or length > MAX_MESSAGE:
        raise LayoutProblem(f"a footer of {length} bytes")
    footer = FlatReader(source.read(start, length), TABLES, findings.check_time).root("Footer")
    check_schema(footer.get("schema", {}), findings)
    check_metadata(_pairs(footer), findings)
    bare = _bare_schema(source, footer, start, findings)
    messages = _messages(source, bare[1] if bare else 8, start, findings, schema_first=bare is None)
    # INVARIANT I18: a file reader trusts the footer, a stream reader the messages; both must name the same.
    if footer.get("schema") != (bare[0] if bare else messages[0][2]["header"]):
        findings.add("ckpt.arrow_mismatch", "two schemas")
    for label, kind in (("dictionaries", 2), ("batches", 3)):
        here = [(at, head, message["body_length"]) for at, head, message in messages if message["header_type"] == kind]
        if sorted(footer.get(label, ())) != here:
            findings.add("ckpt.arrow_mismatch", label)


def _bare_schema(
    source: Source, footer: dict[str, Any], end: int, findings: Findings
) -> tuple[dict[str, Any], int] | None:
    """Parse a schema message that polars writes without its length; return where the messages begin."""
    if source.read(8, 4) == CONTINUATION:
        return None
    stop = min([at for at, *_ in (*footer.get("dictionaries", ()), *footer.get("batches", ()))], default=end)
    if not 8 < stop <= min(end, MAX_MESSAGE):
        raise LayoutProblem("no message at 8")
    message = FlatReader(source.read(8, stop - 8), TABLES, findings.check_time).root("Message")
    return message.get("header", {}), stop


def _messages(
    source: Source, at: int, end: int, findings: Findings, *, schema_first: bool = True, ends: bool = False
) -> list[tuple[int, int, dict[str, Any]]]:
    """List offset, head length and fields of each message; together they must fill the file up to its end marker."""
    messages: list[tuple[int, int, dict[str, Any]]] = []
    while at < end:
        prefix = source.read(at, min(8, end - at))
        length = int.from_bytes(prefix[4:], "little", signed=True)
        if prefix[:4] != CONTINUATION or len(prefix) < 8 or not 0 <= length <= min(MAX_MESSAGE, end - at - 8):
            raise LayoutProblem(f"no message at {at}")
        if not length:
            _check_rest(source, at + 8, end)
            return messages
        if len(messages) >= findings.limits.members:
            raise Exhausted("ckpt.too_large", "Arrow messages")
        message = FlatReader(source.read(at + 8, length), TABLES, findings.check_time).root("Message")
        message.setdefault("body_length", 0)
        if not 0 <= message["body_length"] <= end - at - 8 - length:
            raise LayoutProblem(f"a body of {message['body_length']} bytes at {at}")
        _check_message(message, schema_first and not messages, findings)
        messages.append((at, 8 + length, message))
        at += 8 + length + message["body_length"]
    if ends or (schema_first and not messages):
        raise LayoutProblem("a stream without its end")
    return messages


def _check_rest(source: Source, at: int, end: int) -> None:
    if end - at > 64 or source.read(at, end - at).strip(b"\0"):
        raise LayoutProblem("bytes after the end of the stream")


def _check_message(message: dict[str, Any], first: bool, findings: Findings) -> None:
    header = message.get("header")
    if header is None or (message["header_type"] == 1) != first:
        raise LayoutProblem("a schema that is not the first message and the only one")
    check_metadata(_pairs(message), findings)
    if first:
        check_schema(header, findings)
        return
    batch = header if message["header_type"] == 3 else header.get("data", {})
    for offset, length in batch.get("buffers", ()):
        if offset < 0 or length < 0 or offset + length > message["body_length"]:
            raise LayoutProblem("a buffer outside its body")


def check_schema(schema: dict[str, Any], findings: Findings) -> None:
    """Add a finding for each column type that carries code or is not on the list."""
    check_metadata(_pairs(schema), findings)
    for field in _fields(schema.get("fields", ())):
        pairs = _pairs(field)
        metadata = dict(pairs)
        name = metadata.get(b"ARROW:extension:name")
        if name is not None:
            _check_extension(name.decode("utf-8", "replace"), metadata.get(b"ARROW:extension:metadata", b""), findings)
        # Libraries keep metadata of their own with a field; a type's own metadata was checked above.
        check_metadata([pair for pair in pairs if pair[0] != b"ARROW:extension:metadata"], findings)


def _check_extension(name: str, metadata: bytes, findings: Findings) -> None:
    # INVARIANT I18: a column type is judged by its name, listed or not; what it would unpickle is hostile.
    if name in _UNPICKLED or _is_pickle(metadata, findings):
        findings.add("ckpt.arrow_unpickled", name)
    elif name not in _LISTED or not _is_plain(metadata):
        findings.add("ckpt.arrow_extension", name)


def _is_pickle(data: bytes, findings: Findings) -> bool:
    return (data[:1] == b"\x80" and data[-1:] == b".") or (bool(data) and probe(BytesSource(data), findings))


def _is_plain(metadata: bytes) -> bool:
    try:
        return not metadata or metadata == b"\0" or json.loads(metadata) is not ...
    except (ValueError, RecursionError):
        return False


def _fields(fields: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    pending = list(fields)
    while pending:
        field = pending.pop()
        yield field
        pending.extend(field.get("children", ()))


def _pairs(table: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(note.get("key", b""), note.get("value", b"")) for note in table.get("custom_metadata", ())]
