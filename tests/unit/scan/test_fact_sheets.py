"""Fact sheets are read as they are written."""

from __future__ import annotations

from policyguard.scan.fact_sheets import names, parse_fields
from policyguard.scan.formats.onnx_fields import MESSAGES
from policyguard.scan.formats.parquet_structs import STRUCTS


def test_fields_count_from_one_and_on_from_the_last_number() -> None:
    """A number is written where the count jumps; a line that begins with white space goes on."""
    table = "A: one int, two text,\n  7 three B*, four int\nB:\nC: only A\n"
    expected = {1: ("one", "int"), 2: ("two", "text"), 7: ("three", "B*"), 8: ("four", "int")}
    assert parse_fields(table) == {"A": expected, "B": {}, "C": {1: ("only", "A")}}


def test_names_are_separated_by_white_space() -> None:
    """Lines and spaces do not matter."""
    assert names("\n  a b\n  c\n") == {"a", "b", "c"}


def test_every_kind_of_a_field_is_known() -> None:
    """A kind is a scalar or a row of the same sheet: a typing mistake would make every file unknown."""
    scalars = {"int", "bytes", "f32", "f64"}
    assert {kind.rstrip("*") for fields in MESSAGES.values() for _, kind in fields.values()} <= scalars | set(MESSAGES)
    kinds = {kind if isinstance(kind, str) else kind[0] for fields in STRUCTS.values() for _, kind in fields.values()}
    assert kinds <= {"bool", "byte", "i16", "i32", "i64", "double", "binary"} | set(STRUCTS)
