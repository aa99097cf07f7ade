"""Writes rows of `audit export` as Parquet. The only module that imports pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import parquet

from policyguard.values import parse_instant

ROWS = 1_000
"""How many rows are in memory at a time, and in each row group of the file."""

_TEXTS = pa.list_(pa.string())
_FILES = pa.list_(pa.struct([("path", pa.string()), ("digest", pa.string())]))
_FILE = pa.struct([("path", pa.string()), ("digest", pa.string()), ("size", pa.int64())])
_PROGRAM = pa.struct(
    [(name, pa.string()) for name in ("kind", "origin", "path", "digest", "module", "reason")] + [("size", pa.int64())]
)

SCHEMA = pa.schema(
    [
        ("entry", pa.int64()),
        ("kind", pa.string()),
        ("occurred_at", pa.timestamp("us", tz="UTC")),
        ("subject", pa.string()),
    ]
    + [(name, pa.string()) for name in ("decision_id", "decision", "mode", "action", "resource", "audience")]
    + [("reason_codes", _TEXTS), ("obligations", _TEXTS)]
    + [("policy", pa.string()), ("policy_digest", pa.string()), ("policy_epoch", pa.int64())]
    + [("account", pa.string()), ("commit", pa.string()), ("tree", pa.string()), ("dirty", pa.bool_())]
    + [("uncommitted", _FILES), ("argv", _TEXTS), ("program", _PROGRAM), ("executable", _FILE)]
    + [("directory", pa.string()), ("gpus", pa.int64()), ("gpus_assurance", pa.string()), ("checkpoints", _FILES)]
    + [
        ("environment", pa.string()),
        ("environment_digest", pa.string()),
        ("environment_baseline", pa.bool_()),
        ("confined", pa.bool_()),
    ]
    + [("shortened", _TEXTS), ("statement", pa.string())]
)
"""`environment` and `statement` are JSON texts: their shape is up to later versions."""

_MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError)


@contextmanager
def parquet_rows(file: BinaryIO) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Yield the function that adds a row; the file is complete when the block ends without an error."""
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(file, SCHEMA, compression="zstd") as writer:

        def flush() -> None:
            try:
                table = pa.Table.from_pylist(rows, schema=SCHEMA)
            except _MISFITS:
                # What a hostile statement has in another type becomes None; few rows need so slow a check.
                table = pa.Table.from_pylist([_fitting(row) for row in rows], schema=SCHEMA)
            writer.write_table(table)
            rows.clear()

        def add(row: dict[str, Any]) -> None:
            rows.append(_typed(row))
            if len(rows) >= ROWS:
                flush()

        yield add
        flush()


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    typed = {name: row.get(name) for name in SCHEMA.names}
    for name in ("environment", "statement"):
        typed[name] = None if row.get(name) is None else _json(row[name])
    argv = row.get("argv")
    typed["argv"] = [_json(word) for word in argv] if isinstance(argv, list) else None
    typed["occurred_at"] = parse_instant(row["occurred_at"]) // 1_000
    return typed


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _fitting(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value if _fits(value, SCHEMA.field(name).type) else None for name, value in row.items()}


def _fits(value: Any, kind: Any) -> bool:
    try:
        pa.scalar(value, type=kind)
    except _MISFITS:
        return False
    return True
