"""Parquet files: reads footer, column chunks, pages and indexes completely; never decodes values.

    file = magic *( page / index / bloom-filter ) footer u32-length magic

Chunks, indexes and filters must be inside the file and must not overlap; between them are only zeros, or the copy of a
chunk's description that older writers add.

Source: the Parquet format 2.12, README and `parquet.thrift`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from policyguard.scan.findings import Exhausted, Findings, LayoutProblem
from policyguard.scan.formats.arrow import check_schema_message
from policyguard.scan.formats.external_files import check_location
from policyguard.scan.formats.key_value_metadata import check_metadata
from policyguard.scan.formats.parquet_structs import STRUCTS
from policyguard.scan.formats.thrift import OutOfBytes, ThriftReader
from policyguard.scan.source import Source

MAGIC, ENCRYPTED = b"PAR1", b"PARE"
MAX_FOOTER = 64 * 2**20
_HEAD, _MAX_HEAD = 2_048, 2**24
_DATA, _INDEX, _DICTIONARY, _DATA_2 = range(4)
_HEADER_OF = {_DATA: "data_page_header", _DICTIONARY: "dictionary_page_header", _DATA_2: "data_page_header_v2"}
_CODECS = range(8)

Span = tuple[int, int, str]


def scan_parquet(source: Source, findings: Findings) -> str:
    """Scan a Parquet file; return `parquet`."""
    if ENCRYPTED in (source.read(0, 4), source.read(source.size - 4, 4)):
        findings.add("ckpt.archive_encrypted", "parquet footer")
        return "parquet"
    try:
        _scan(source, findings)
    except LayoutProblem as problem:
        findings.add("ckpt.parquet_layout", str(problem))
    return "parquet"


def _scan(source: Source, findings: Findings) -> None:
    size = source.size
    length = int.from_bytes(source.read(size - 8, 4), "little") if size >= 12 else 0
    start = size - 8 - length
    if size < 12 or source.read(size - 4, 4) != MAGIC:
        raise LayoutProblem("no magic at both ends")
    if start < 4 or not 0 < length <= MAX_FOOTER:
        raise LayoutProblem(f"a footer of {length} bytes in a file of {size}")
    reader = ThriftReader(source.read(start, length), STRUCTS, findings.check_time)
    footer = reader.read("FileMetaData")
    if {"encryption_algorithm", "footer_signing_key_metadata"} & footer.keys():
        findings.add("ckpt.archive_encrypted", "parquet columns")
        return
    if reader.at != length:
        raise LayoutProblem(f"{length - reader.at} bytes after the footer")
    _check_metadata(footer, findings)
    spans = _spans(source, footer, start, findings)
    _check_tiling(source, spans, footer, start, findings)


def _check_metadata(footer: dict[str, Any], findings: Findings) -> None:
    pairs = [(note["key"], note.get("value", b"")) for note in footer.get("key_value_metadata", ()) if "key" in note]
    check_metadata(pairs, findings)
    for key, value in pairs:
        if key == b"ARROW:schema":
            try:
                schema = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise LayoutProblem("ARROW:schema that is not base64") from None
            check_schema_message(schema, findings)


def _leaves(schema: Sequence[dict[str, Any]]) -> list[tuple[tuple[bytes, ...], int]]:
    """List path and physical type of each column; the schema stores its tree depth first."""
    leaves: list[tuple[tuple[bytes, ...], int]] = []
    open_groups: list[list[Any]] = [[1, ()]]
    for index, element in enumerate(schema):
        while open_groups and not open_groups[-1][0]:
            open_groups.pop()
        if not open_groups or "name" not in element:
            raise LayoutProblem("a schema that is no tree")
        open_groups[-1][0] -= 1
        path = (*open_groups[-1][1], element["name"]) if index else ()
        children = element.get("num_children", 0)
        if index and "type" in element and not children:
            leaves.append((path, element["type"]))
        elif children < 0 or len(open_groups) > 200:
            raise LayoutProblem("a schema that is no tree")
        else:
            open_groups.append([children, path])
    if any(group[0] for group in open_groups):
        raise LayoutProblem("a schema that is no tree")
    return leaves


def _spans(source: Source, footer: dict[str, Any], end: int, findings: Findings) -> list[Span]:
    leaves, rows, spans = _leaves(footer.get("schema", ())), 0, list[Span]()
    for group in footer.get("row_groups", ()):
        rows += group.get("num_rows", 0)
        chunks = group.get("columns", ())
        if len(chunks) != len(leaves):
            raise LayoutProblem(f"{len(chunks)} columns in a row group, expected {len(leaves)}")
        for chunk, leaf in zip(chunks, leaves, strict=True):
            spans += _chunk(source, chunk, leaf, end, findings)
    # A dataset's summary file may count the rows of all its files and have no group of its own.
    if rows != footer.get("num_rows") and footer.get("row_groups"):
        raise LayoutProblem(f"{rows} rows in row groups, expected {footer.get('num_rows')}")
    return spans


def _chunk(
    source: Source, chunk: dict[str, Any], leaf: tuple[tuple[bytes, ...], int], end: int, findings: Findings
) -> list[Span]:
    if {"crypto_metadata", "encrypted_column_metadata"} & chunk.keys():
        findings.add("ckpt.archive_encrypted", "a parquet column")
        return []
    if chunk.get("file_path"):
        check_location(chunk["file_path"].decode("utf-8", "replace"), findings)
        return []
    column = chunk.get("meta_data", {})
    if not column.keys() >= _NEEDED or (tuple(column["path_in_schema"]), column["type"]) != leaf:
        raise LayoutProblem("a column that is not the one of the schema")
    if column["codec"] not in _CODECS:
        raise LayoutProblem(f"codec {column['codec']}")
    check_metadata(
        [(note.get("key", b""), note.get("value", b"")) for note in column.get("key_value_metadata", ())], findings
    )
    span = _extent(column)
    _check_inside(span, end)
    _walk_pages(source, span, column["num_values"], findings)
    return [span, *_indexes(source, chunk, column, end, findings)]


def _extent(column: dict[str, Any]) -> Span:
    # Writers store 0 for a missing page.
    start = min([column[at] for at in ("dictionary_page_offset", "data_page_offset") if column.get(at)], default=0)
    return start, start + column["total_compressed_size"], "column"


_NEEDED = {"type", "path_in_schema", "codec", "num_values", "total_compressed_size", "data_page_offset"}


def _check_inside(span: Span, end: int) -> None:
    if not 4 <= span[0] <= span[1] <= end:
        raise LayoutProblem(f"{span[2]} from {span[0]} to {span[1]}, expected between 4 and {end}")


def _walk_pages(source: Source, span: Span, expected: int, findings: Findings) -> None:
    at, stop, _ = span
    values = pages = 0
    while at < stop:
        pages += 1
        if pages > findings.limits.members:
            raise Exhausted("ckpt.too_large", "parquet pages")
        header, used = _struct(source, "PageHeader", at, stop, findings)
        kind, packed = header.get("type", -1), header.get("compressed_page_size", -1)
        inner = header.get(_HEADER_OF.get(kind, ""), {})
        if (not inner and kind != _INDEX) or packed < 0 or header.get("uncompressed_page_size", -1) < 0:
            raise LayoutProblem(f"a page header at {at}")
        if kind == _DICTIONARY and pages > 1:
            raise LayoutProblem("a dictionary that is not the first page")
        if kind in (_DATA, _DATA_2):
            values += inner.get("num_values", 0)
        at += used + packed
    if at != stop or values != expected:
        raise LayoutProblem(f"pages with {values} values to {at}, expected {expected} to {stop}")


def _struct(source: Source, name: str, at: int, stop: int, findings: Findings) -> tuple[dict[str, Any], int]:
    """Read the struct at this offset; return it and its length.

    Statistics can make a page header as long as their values.
    """
    length = _HEAD
    while True:
        data = source.read(at, min(length, stop - at))
        reader = ThriftReader(data, STRUCTS, findings.check_time)
        try:
            return reader.read(name), reader.at
        except OutOfBytes:
            if len(data) < length or length >= _MAX_HEAD:
                raise
            length *= 16


def _indexes(source: Source, chunk: dict[str, Any], column: dict[str, Any], end: int, findings: Findings) -> list[Span]:
    spans = []
    for name, label in (("ColumnIndex", "column_index"), ("OffsetIndex", "offset_index")):
        at, length = chunk.get(f"{label}_offset"), chunk.get(f"{label}_length")
        if at is None and length is None:
            continue
        span = (at or 0, (at or 0) + (length or 0), label)
        _check_inside(span, end)
        if _struct(source, name, span[0], span[1], findings)[1] != length:
            raise LayoutProblem(f"{label} at {at}")
        spans.append(span)
    if "bloom_filter_offset" in column:
        spans.append(_bloom(source, column, end, findings))
    return spans


def _bloom(source: Source, column: dict[str, Any], end: int, findings: Findings) -> Span:
    at = column["bloom_filter_offset"]
    _check_inside((at, at, "bloom filter"), end)
    header, used = _struct(source, "BloomFilterHeader", at, end, findings)
    span = (at, at + used + max(header.get("num_bytes", -1), 0), "bloom filter")
    _check_inside(span, end)
    if column.get("bloom_filter_length", span[1] - at) != span[1] - at:
        raise LayoutProblem("a bloom filter of two lengths")
    return span


def _check_tiling(source: Source, spans: Sequence[Span], footer: dict[str, Any], end: int, findings: Findings) -> None:
    # INVARIANT I18: what no chunk, index or filter explains is no part of the file.
    chunks = [chunk for group in footer.get("row_groups", ()) for chunk in group.get("columns", ())]
    at = 4
    for start, stop, what in sorted([*spans, (end, end, "footer")]):
        if start < at:
            raise LayoutProblem(f"{what} at {start} over what ends at {at}")
        _check_gap(source, at, start, chunks, findings)
        at = stop


def _check_gap(source: Source, at: int, stop: int, chunks: Sequence[dict[str, Any]], findings: Findings) -> None:
    while at < stop:
        findings.check_time()
        part = source.read(at, min(2**20, stop - at))
        if part.strip(b"\0"):
            break
        at += len(part)
    while at < stop:
        used = _copy_of_chunk(source, at, stop, chunks, findings)
        if not used:
            findings.add("ckpt.archive_gap", f"{stop - at} bytes at {at}")
            return
        at += used


def _copy_of_chunk(source: Source, at: int, stop: int, chunks: Sequence[dict[str, Any]], findings: Findings) -> int:
    """Return the length of a column chunk's second description here, which must equal one in the footer, else 0."""
    for name, label in (("ColumnMetaData", "meta_data"), ("ColumnChunk", "")):
        try:
            copy, used = _struct(source, name, at, stop, findings)
        except LayoutProblem:
            continue
        if any(copy == (chunk.get(label) if label else chunk) for chunk in chunks):
            return used
    return 0
