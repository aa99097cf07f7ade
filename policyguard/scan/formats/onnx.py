"""ONNX models: reads every protobuf message, and reports the operators and files that it names.

    model = *field; field = varint-tag value, as protobuf writes them

A runtime searches operators by domain and name in all libraries that the process has loaded, so only operators of
domains that just compute are accepted. Tensors may be in other files, whose names the model contains.

Source: the protobuf encoding page, `onnx.proto` of ONNX 1.20 and onnxruntime's list of contributed operators.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policyguard.scan.findings import Exhausted, Findings, LayoutProblem
from policyguard.scan.formats.external_files import check_location
from policyguard.scan.formats.key_value_metadata import check_metadata
from policyguard.scan.formats.onnx_fields import CONTRIBUTED, MESSAGES, OWN_DOMAINS
from policyguard.scan.formats.varints import read_varint
from policyguard.scan.source import Cursor, Source

MAX_DEPTH = 48
MAX_FIELDS = 8_000_000
MAX_TEXT = 2**20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_OF = {"int": _VARINT, "f32": _FIXED32, "f64": _FIXED64}
_WIDTH = {_FIXED32: 4, _FIXED64: 8}
_READ_FIELDS = {
    "Node": ("op_type", "domain"),
    "OperatorSet": ("domain",),
    "Function": ("name", "domain"),
    "Note": ("key", "value"),
    "Tensor": ("external_data", "data_location", "notes"),
    "Model": ("notes", "ir_version"),
    "Graph": ("notes",),
    "ValueInfo": ("notes",),
}
"""The fields that are evaluated; all others are skipped within their bounds."""


def is_onnx(head: bytes) -> bool:
    """Recognise the first bytes of all known writers: the IR version (field 1), then a plausible field."""
    return len(head) > 2 and head[0] == 8 and 1 <= head[1] <= 15 and head[2] in b'\x12\x1a"(2:B'


def scan_onnx(source: Source, findings: Findings) -> str:
    """Scan an ONNX model; return `onnx`.

    Raises:
        LayoutProblem: the model has no graph or no operator set.
    """
    walk = _Walk(Cursor(source), findings)
    try:
        if not walk.message("Model", source.size, MAX_DEPTH).keys() >= {"graph", "opset_import"}:
            raise LayoutProblem("no graph or no operator set")
        _check_operators(walk, findings)
    except LayoutProblem as problem:
        findings.add("ckpt.onnx_layout", str(problem))
    return "onnx"


def _check_operators(walk: _Walk, findings: Findings) -> None:
    missing = {domain for domain, _ in walk.operators} - {"", "ai.onnx"} - walk.domains
    if missing:
        raise LayoutProblem(f"operators of {', '.join(sorted(missing))}, which is not imported")
    for domain, name in sorted(walk.operators - walk.functions):
        # INVARIANT I18: an operator that is on no list and not defined in the model needs somebody's library.
        if domain not in OWN_DOMAINS and not (domain == "com.microsoft" and name in CONTRIBUTED):
            findings.add("ckpt.onnx_operator", f"{domain}::{name}")


@dataclass(slots=True)
class _Walk:
    cursor: Cursor
    findings: Findings
    operators: set[tuple[str, str]] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    fields: int = 0

    def message(self, name: str, end: int, depth: int) -> dict[str, object]:
        """Read the relevant fields of the message that ends at `end`; raises `LayoutProblem`."""
        if not depth:
            raise LayoutProblem(f"{name} nested too deep")
        values, seen, fields, wanted = dict[str, object](), set[int](), MESSAGES[name], _READ_FIELDS.get(name, ())
        while self.cursor.position < end:
            self.spend()
            tag = self.varint()
            number, wire = tag >> 3, tag & 7
            if number not in fields:
                raise LayoutProblem(f"field {number} of {name}")
            label, kind = fields[number]
            if not kind.endswith("*") and number in seen:
                raise LayoutProblem(f"{name}.{label} twice")
            seen.add(number)
            value = self.value(kind, wire, end, label in wanted, depth, f"{name}.{label}")
            if isinstance(value, tuple):
                _pairs(values.setdefault(label, [])).append(value)
            else:
                values[label] = value
        if self.cursor.position != end:
            raise LayoutProblem(f"{name} that ends inside of a field")
        return self.checked(name, values)

    def spend(self) -> None:
        """Count fields; raise `Exhausted` beyond the limit of number or time."""
        self.fields += 1
        if not self.fields & 1023:
            self.findings.check_time()
        if self.fields > MAX_FIELDS:
            raise Exhausted("ckpt.too_large", f"more than {MAX_FIELDS} fields")

    def value(self, kind: str, wire: int, end: int, keep: bool, depth: int, where: str) -> object:
        plain = kind.removesuffix("*")
        expected = _WIRE_OF.get(plain, _BYTES)
        if wire != expected and not (wire == _BYTES and kind.endswith("*")):
            raise LayoutProblem(f"{where} of wire type {wire}")
        if wire == _VARINT:
            return self.varint()
        length = _WIDTH[wire] if wire in _WIDTH else self.varint()
        if length > end - self.cursor.position:
            raise LayoutProblem(f"{where} of {length} bytes")
        if plain in MESSAGES:
            inner = self.message(plain, self.cursor.position + length, depth - 1)
            return (inner.get("key", b""), inner.get("value", b"")) if plain == "Note" else None
        if keep and length > MAX_TEXT:
            raise LayoutProblem(f"{where} of {length} bytes")
        return self.cursor.take(length) if keep else self.cursor.skip(length)

    def checked(self, name: str, values: dict[str, object]) -> dict[str, object]:
        """Report the operators, metadata and files that the fields name; return the fields."""
        if name == "Node":
            self.operators.add((_text(values.get("domain")), _text(values.get("op_type"))))
        elif name == "OperatorSet":
            self.domains.add(_text(values.get("domain")))
        elif name == "Function":
            self.functions.add((_text(values.get("domain")), _text(values.get("name"))))
        elif name == "Tensor" and (values.get("data_location") == 1 or "external_data" in values):
            self.external(_pairs(values.get("external_data")))
        if "notes" in values:
            check_metadata(_pairs(values["notes"]), self.findings)
        return values

    def external(self, entries: list[tuple[bytes, bytes]]) -> None:
        check_metadata(entries, self.findings)
        names = [value.decode("utf-8", "replace") for key, value in entries if key == b"location"]
        if not names:
            raise LayoutProblem("data that lies outside, without a place")
        for location in names:
            check_location(location, self.findings)

    def varint(self) -> int:
        first = self.cursor.take(1)[0]
        # Nearly every number of a graph is one byte long.
        return first if first < 128 else read_varint(first, lambda: self.cursor.take(1)[0])


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _pairs(value: object) -> list[tuple[bytes, bytes]]:
    return value if isinstance(value, list) else []
