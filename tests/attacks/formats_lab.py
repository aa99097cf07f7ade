"""Hostile and broken tables and models, built when the tests run: Parquet, Arrow, GGUF, ONNX, Keras; none is loaded.

Each builder writes a small file that its readers accept; each entry of `HOSTILE` changes one thing. Techniques are
those of the advisories that `docs/scan.md` names; nothing here is copied from other people's samples.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tests.attacks.checkpoint_lab import EVIL, zipped

# Thrift compact: a value is its type and its bytes.
Thrift = tuple[int, bytes]


def varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def integer(number: int, kind: int = 5) -> Thrift:
    return kind, varint(number << 1 if number >= 0 else (-number << 1) - 1)


def binary(data: bytes) -> Thrift:
    return 8, varint(len(data)) + data


def items(*values: Thrift, kind: int = 12) -> Thrift:
    kind = values[0][0] if values else kind
    head = bytes([len(values) << 4 | kind]) if len(values) < 15 else bytes([0xF0 | kind]) + varint(len(values))
    return 9, head + b"".join(data for _, data in values)


def record(*fields: tuple[int, Thrift]) -> Thrift:
    data, last = b"", 0
    for number, (kind, value) in fields:
        step = number - last
        data += (bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + integer(number)[1]) + value
        last = number
    return 12, data + b"\0"


def page(values: int = 1, data: bytes = b"\0\0\0\0", packed: int | None = None) -> bytes:
    header = record((1, integer(values)), (2, integer(0)), (3, integer(3)), (4, integer(3)))
    size = len(data) if packed is None else packed
    return record((1, integer(0)), (2, integer(len(data))), (3, integer(size)), (5, header))[1] + data


def chunk(at: int, size: int, values: int = 1, *more: tuple[int, Thrift], path: bytes = b"a") -> Thrift:
    column = record(
        (1, integer(1)),
        (2, items(integer(0))),
        (3, items(binary(path))),
        (4, integer(0)),
        (5, integer(values, 6)),
        (6, integer(size, 6)),
        (7, integer(size, 6)),
        (9, integer(at, 6)),
    )
    return record(*sorted([(2, integer(0, 6)), (3, column), *more], key=lambda field: field[0]))


def group(*chunks: Thrift, rows: int = 1) -> Thrift:
    return record((1, items(*chunks)), (2, integer(0, 6)), (3, integer(rows, 6)))


def schema(children: int = 1) -> Thrift:
    return items(
        record((4, binary(b"root")), (5, integer(children))),
        record((1, integer(1)), (3, integer(0)), (4, binary(b"a"))),
    )


def parquet(
    notes: Sequence[tuple[bytes, bytes]] = (),
    *more: tuple[int, Thrift],
    body: bytes | None = None,
    groups: Thrift | None = None,
    tree: Thrift | None = None,
    rows: int = 1,
) -> bytes:
    body = page() if body is None else body
    pairs = items(*(record((1, binary(key)), (2, binary(value))) for key, value in notes))
    fields = [
        (1, integer(2)),
        (2, tree or schema()),
        (3, integer(rows, 6)),
        (4, groups or items(group(chunk(4, len(body))))),
        (5, pairs),
    ]
    footer = record(*fields, *more)[1]
    return b"PAR1" + body + footer + struct.pack("<I", len(footer)) + b"PAR1"


# Flatbuffers: a table is its slots, each a layout of `struct`, a text, a table, or a list of them.
Slot = tuple[str, Any]


def flat(slots: dict[int, Slot]) -> bytes:
    buffer = bytearray(4)
    struct.pack_into("<I", buffer, 0, _table(buffer, slots))
    return bytes(buffer) + b"\0" * (-len(buffer) % 8)


def _table(buffer: bytearray, slots: dict[int, Slot]) -> int:
    offsets, size = {}, 4
    for number, (layout, _) in slots.items():
        width = struct.calcsize("<" + layout) if len(layout) == 1 else 4
        offsets[number], size = size, size + width
    vtable = len(buffer)
    count = max(slots, default=-1) + 1
    buffer += struct.pack(f"<{count + 2}H", 4 + 2 * count, size, *(offsets.get(n, 0) for n in range(count)))
    at = len(buffer)
    buffer += struct.pack("<i", at - vtable) + bytes(size - 4)
    for number, (layout, value) in slots.items():
        place = at + offsets[number]
        if len(layout) == 1:
            struct.pack_into("<" + layout, buffer, place, value)
        else:
            struct.pack_into("<I", buffer, place, _outside(buffer, layout, value) - place)
    return at


def _outside(buffer: bytearray, layout: str, value: Any) -> int:
    if layout == "table":
        return _table(buffer, value)
    at = len(buffer)
    if layout == "text":
        buffer += struct.pack("<I", len(value)) + value + b"\0"
    elif layout == "tables":
        buffer += struct.pack("<I", len(value)) + bytes(4 * len(value))
        for index, item in enumerate(value):
            place = at + 4 + 4 * index
            struct.pack_into("<I", buffer, place, _table(buffer, item) - place)
    else:
        buffer += struct.pack("<I", len(value)) + b"".join(struct.pack(layout, *item) for item in value)
    return at


def note(key: bytes, value: bytes) -> dict[int, Slot]:
    return {0: ("text", key), 1: ("text", value)}


def arrow_field(*notes: tuple[bytes, bytes], children: int = 0) -> dict[int, Slot]:
    kind = {0: ("i", 64), 1: ("b", 1)}
    inner = [arrow_field() for _ in range(children)]
    return {
        0: ("text", b"a"),
        2: ("B", 2),
        3: ("table", kind),
        5: ("tables", inner),
        6: ("tables", [note(*pair) for pair in notes]),
    }


def arrow_schema(*fields: dict[int, Slot], notes: Sequence[tuple[bytes, bytes]] = ()) -> dict[int, Slot]:
    return {1: ("tables", list(fields) or [arrow_field()]), 2: ("tables", [note(*pair) for pair in notes])}


def message(head: dict[int, Slot], body: bytes = b"", kind: int = 1, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    data = flat({0: ("h", 4), 1: ("B", kind), 2: ("table", head), 3: ("q", size)})
    return b"\xff\xff\xff\xff" + struct.pack("<i", len(data)) + data + body


END = b"\xff\xff\xff\xff\0\0\0\0"


def batch(offset: int = 0, length: int = 8, body: bytes = b"\0" * 8) -> bytes:
    head = {0: ("q", 1), 1: ("<2q", [(1, 0)]), 2: ("<2q", [(0, 0), (offset, length)])}
    return message(head, body, 3)


def arrow_file(first: dict[int, Slot] | None = None, last: dict[int, Slot] | None = None, blocks: bool = True) -> bytes:
    start = message(first or arrow_schema())
    data = batch()
    at, head = 8 + len(start), len(data) - 8
    places = [struct.pack("<qi4xq", at, head, 8)] if blocks else []
    footer = flat(
        {0: ("h", 4), 1: ("table", last or first or arrow_schema()), 3: ("<24s", [(place,) for place in places])}
    )
    return b"ARROW1\0\0" + start + data + END + footer + struct.pack("<i", len(footer)) + b"ARROW1"


EXTENSION = b"ARROW:extension:name"


def extension(name: bytes, metadata: bytes = b"") -> dict[int, Slot]:
    return arrow_schema(arrow_field((EXTENSION, name), (b"ARROW:extension:metadata", metadata)))


def with_schema(head: dict[int, Slot]) -> bytes:
    return parquet([(b"ARROW:schema", base64.b64encode(message(head)))])


def text(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


Value = tuple[int, bytes]


def gguf(
    *keys: tuple[bytes, Value],
    tensors: Sequence[tuple[bytes, int, int]] = ((b"w", 8, 0),),
    body: bytes = b"\0" * 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Tensors are name, values (of type F32) and offset."""
    data = b"GGUF" + struct.pack("<I2Q", 3, *(counts or (len(tensors), len(keys))))
    data += b"".join(text(key) + struct.pack("<I", kind) + value for key, (kind, value) in keys)
    data += b"".join(text(name) + struct.pack("<IQIQ", 1, count, 0, offset) for name, count, offset in tensors)
    return data + b"\0" * (-len(data) % 32) + body


def template(code: bytes) -> bytes:
    return gguf((b"tokenizer.chat_template", (8, text(code))))


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(op: bytes = b"Add", domain: bytes = b"", *more: bytes) -> bytes:
    return field(1, field(1, b"x") + field(4, op) + b"".join(more) + (field(7, domain) if domain else b""))


def tensor(*more: bytes) -> bytes:
    return field(5, field(1, 1) + field(2, 1) + b"".join(more))


def onnx(*graph: bytes, domains: Sequence[bytes] = (b"",), more: bytes = b"") -> bytes:
    imports = b"".join(field(8, field(1, name) + field(2, 1)) for name in domains)
    return field(1, 9) + field(2, b"lab") + field(7, b"".join(graph) or node()) + imports + more


def pair(key: bytes, value: bytes) -> bytes:
    return field(1, key) + field(2, value)


def outside(name: bytes) -> bytes:
    return onnx(tensor(field(13, pair(b"location", name)), field(14, 1)))


def deep_graph(levels: int) -> bytes:
    graph = node()
    for _ in range(levels):
        graph = node(b"If", b"", field(5, field(1, b"then") + field(6, graph)))
    return onnx(graph)


def layer(name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def model(*layers: dict[str, Any]) -> str:
    return json.dumps(layer("Sequential", "keras", layers=list(layers)))


def keras(*layers: dict[str, Any], **members: bytes) -> bytes:
    return zipped({"metadata.json": b"{}", "config.json": model(*layers).encode(), **members})


CODE = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}

HOSTILE: dict[str, Callable[[], bytes]] = {
    "parquet: a column that is unpickled": lambda: with_schema(extension(b"arrow.py_extension_type", b"x")),
    "parquet: a column of pickled objects": lambda: with_schema(extension(b"ray.data.arrow_pickled_object")),
    "parquet: a type whose metadata is a pickle": lambda: with_schema(
        extension(b"ray.data.arrow_tensor", b"\x80\x04" + EVIL)
    ),
    "parquet: a column inside a column that is unpickled": lambda: with_schema(
        arrow_schema({**arrow_field(), 5: ("tables", [arrow_field((EXTENSION, b"arrow.py_extension_type"))])})
    ),
    "parquet: one key twice": lambda: parquet(
        [
            (b"ARROW:schema", base64.b64encode(message(arrow_schema()))),
            (b"ARROW:schema", base64.b64encode(message(extension(b"x")))),
        ]
    ),
    "parquet: a Java class": lambda: parquet([(b"parquet.avro.schema", b'{"a": {"java-class": "javax.X"}}')]),
    "parquet: data in a file elsewhere": lambda: parquet(groups=items(group(chunk(4, 9, 1, (1, binary(b"/etc/x")))))),
    "parquet: data above the folder": lambda: parquet(groups=items(group(chunk(4, 9, 1, (1, binary(b"../x")))))),
    "parquet: also a zip archive": lambda: parquet([(b"k", _unended(zipped({"a.pkl": EVIL})))]),
    "parquet: also an HDF5 file": lambda: parquet(
        body=page(1, (b"\0" * (508 - len(page(1, b"\0" * 600)) + 600) + b"\x89HDF\r\n\x1a\n").ljust(600))
    ),
    "arrow: a column that is unpickled": lambda: arrow_file(extension(b"arrow.py_extension_type")),
    "arrow: a column that only the footer unpickles": lambda: arrow_file(
        arrow_schema(), extension(b"arrow.py_extension_type")
    ),
    "arrow: a footer of another schema": lambda: arrow_file(arrow_schema(), arrow_schema(arrow_field(children=1))),
    "arrow: a footer of other batches": lambda: arrow_file(blocks=False),
    "arrow: a stream that is unpickled": lambda: message(extension(b"arrow.py_extension_type")) + END,
    "gguf: a template that reaches for code": lambda: template(b"{{ ().__class__.__mro__ }}"),
    "gguf: a template with a hidden name": lambda: template(rb"{{ x['\x5f\x5fclass\x5f\x5f'] }}"),
    "gguf: a template that reaches through a generator": lambda: template(b"{{ (m|map('upper')).gi_frame }}"),
    "gguf: one key twice": lambda: gguf((b"a", (4, b"\0" * 4)), (b"a", (4, b"\1" * 4))),
    "gguf: one tensor twice": lambda: gguf(tensors=[(b"w", 8, 0), (b"w", 8, 32)], body=b"\0" * 64),
    "onnx: data in a file elsewhere": lambda: outside(b"/etc/passwd"),
    "onnx: data above the folder": lambda: outside(b"../../secret"),
    "onnx: data above the folder, as Windows writes it": lambda: outside(b"..\\secret"),
    "onnx: data on another machine": lambda: outside(b"http://host/x"),
    "onnx: two places of one data": lambda: onnx(
        tensor(field(13, pair(b"location", b"a")), field(13, pair(b"location", b"b")), field(14, 1))
    ),
    "keras: a Lambda layer": lambda: keras(layer("Lambda", function=CODE)),
    "keras: bytecode below another layer": lambda: keras(layer("Dense", units=1, kernel_regularizer=CODE)),
    "keras: a function that fetches a file": lambda: keras(layer("function", "keras.utils", config="get_file")),
    "keras: a member that is a pickle": lambda: keras(layer("Dense"), **{"assets/a.pkl": EVIL}),
    "keras: a function of the system": lambda: keras(layer("function", "os", config="system")),
}
"""Must be hostile, not merely unknown."""

BROKEN: dict[str, Callable[[], bytes]] = {
    "parquet: a footer longer than the file": lambda: parquet()[:-8] + struct.pack("<I", 10_000) + b"PAR1",
    "parquet: no footer": lambda: b"PAR1" + page() + b"\0\0\0\0PAR1",
    "parquet: bytes after the footer": lambda: _footer_plus(b"\0\0"),
    "parquet: a field that nobody knows": lambda: parquet((), (100, binary(b"x"))),
    "parquet: a field twice": lambda: parquet((), (1, integer(1))),
    "parquet: a field of another type": lambda: parquet((), (6, integer(1))),
    "parquet: a struct in a struct without end": lambda: parquet(
        tree=(9, b"\x1c" + record((10, (12, b"\x5c" * 60)))[1])
    ),
    "parquet: a list of a billion": lambda: parquet(tree=(9, b"\xfc" + varint(10**9))),
    "parquet: a column outside of the file": lambda: parquet(groups=items(group(chunk(4, 10**6)))),
    "parquet: a column over the footer": lambda: parquet(groups=items(group(chunk(4, len(page()) + 4)))),
    "parquet: a column over the magic": lambda: parquet(groups=items(group(chunk(1, len(page()) + 3)))),
    "parquet: two columns in one place": lambda: parquet(
        groups=items(group(chunk(4, len(page()))), group(chunk(4, len(page())))), rows=2
    ),
    "parquet: a page longer than its column": lambda: parquet(body=page(1, b"\0" * 4, 400)),
    "parquet: a page of negative length": lambda: parquet(body=page(1, b"\0" * 4, -4)),
    "parquet: pages of fewer values": lambda: parquet(groups=items(group(chunk(4, len(page()), 2)))),
    "parquet: a column that the schema has not": lambda: parquet(groups=items(group(chunk(4, len(page()), path=b"b")))),
    "parquet: more rows than its groups": lambda: parquet(rows=2),
    "parquet: a schema that is no tree": lambda: parquet(tree=schema(children=3)),
    "parquet: bytes that no column has": lambda: parquet(
        body=page() + EVIL, groups=items(group(chunk(4, len(page()))))
    ),
    "parquet: data in another file": lambda: parquet(groups=items(group(chunk(4, 9, 1, (1, binary(b"b.parquet")))))),
    "parquet: an encrypted footer": lambda: b"PARE" + parquet()[4:-4] + b"PARE",
    "parquet: encrypted columns": lambda: parquet((), (8, record((1, record())))),
    "parquet: a column of an unlisted type": lambda: with_schema(extension(b"lab.type")),
    "parquet: a listed type with strange metadata": lambda: with_schema(extension(b"arrow.uuid", b"(strange")),
    "parquet: an Arrow schema that is none": lambda: parquet([(b"ARROW:schema", b"QUJD")]),
    "parquet: an Arrow schema that is not base64": lambda: parquet([(b"ARROW:schema", b"\x80")]),
    "parquet: a pickle as a value": lambda: parquet([(b"k", EVIL)]),
    "parquet: a value that is no text": lambda: parquet([(b"k", b"\0\xff")]),
    "parquet: a feature that is no class": lambda: parquet([(b"huggingface", b'{"f": {"_type": "import_module"}}')]),
    "parquet: notes of pandas that are no JSON": lambda: parquet([(b"pandas", b"{")]),
    "arrow: a column of an unlisted type": lambda: arrow_file(extension(b"lab.type")),
    "arrow: a message longer than the file": lambda: b"\xff\xff\xff\xff\xff\xff\0\0" + b"\0" * 64,
    "arrow: a body longer than the file": lambda: (
        message(arrow_schema()) + message({0: ("q", 1)}, b"\0" * 8, 3, 800) + END
    ),
    "arrow: a body of negative length": lambda: message(arrow_schema()) + message({0: ("q", 1)}, b"", 3, -8) + END,
    "arrow: a buffer outside of its body": lambda: message(arrow_schema()) + batch(8, 8) + END,
    "arrow: a second schema": lambda: message(arrow_schema()) * 2 + END,
    "arrow: no schema": lambda: batch() + END,
    "arrow: a stream without end": lambda: message(arrow_schema()) + batch(),
    "arrow: bytes after the end": lambda: message(arrow_schema()) + END + EVIL,
    "arrow: a field that nobody knows": lambda: message({**arrow_schema(), 4: ("i", 7)}) + END,
    "arrow: a type that nobody knows": lambda: message(arrow_schema({**arrow_field(), 2: ("B", 99)})) + END,
    "arrow: a table that is everywhere": lambda: _shared_tables(),
    "gguf: a version of the future": lambda: gguf().replace(b"GGUF\3", b"GGUF\4"),
    "gguf: more keys than there are": lambda: gguf(counts=(1, 2)),
    "gguf: a key longer than the file": lambda: b"GGUF" + struct.pack("<I2QQ", 3, 0, 1, 2**40),
    "gguf: a value of no type": lambda: gguf((b"a", (99, b""))),
    "gguf: an array longer than the file": lambda: gguf((b"a", (9, struct.pack("<IQ", 8, 2**24)))),
    "gguf: an array of a billion texts": lambda: gguf((b"a", (9, struct.pack("<IQ", 8, 2**30)))),
    "gguf: arrays in arrays": lambda: gguf((b"a", (9, struct.pack("<IQ", 9, 1) * 40))),
    "gguf: an alignment of nothing": lambda: gguf((b"general.alignment", (4, b"\0" * 4))),
    "gguf: a tensor over another": lambda: gguf(tensors=[(b"v", 8, 0), (b"w", 8, 0)]),
    "gguf: a tensor outside of the file": lambda: gguf(tensors=[(b"w", 2**40, 0)]),
    "gguf: a hole between tensors": lambda: gguf(tensors=[(b"v", 8, 0), (b"w", 8, 64)], body=b"\0" * 96),
    "gguf: padding that is not zeros": lambda: gguf(tensors=[(b"w", 1, 0)], body=b"\0" * 4 + EVIL[:28].ljust(28)),
    "gguf: bytes after the tensors": lambda: gguf() + EVIL,
    "gguf: a template that computes a name": lambda: template(b"{{ x['_' ~ y] }}"),
    "gguf: a template that hides a loop": lambda: template(b"{% set loop = y %}{{ x[loop.index] }}"),
    "gguf: a template that asks by filter": lambda: template(b"{{ x|attr('y') }}"),
    "gguf: a template that joins a name": lambda: template(b"{{ x|join(attribute=y) }}"),
    "gguf: a template that maps a filter": lambda: template(b"{{ x|map('attr', y) }}"),
    "gguf: a template that includes": lambda: template(b"{% include 'x' %}"),
    "gguf: a template that does not end": lambda: template(b"{{ x"),
    "gguf: a template longer than is read": lambda: template(b"{{ x }}" * 2**19),
    "onnx: an operator of somebody's library": lambda: onnx(node(b"Op", b"lab"), domains=[b"", b"lab"]),
    "onnx: an operator that calls Python": lambda: onnx(
        node(b"PythonOp", b"com.microsoft"), domains=[b"", b"com.microsoft"]
    ),
    "onnx: an operator that loads compiled code": lambda: onnx(
        node(b"EPContext", b"com.microsoft"), domains=[b"", b"com.microsoft"]
    ),
    "onnx: an operator in a graph in a node": lambda: onnx(
        node(b"If", b"", field(5, field(6, node(b"Op", b"lab")))), domains=[b"", b"lab"]
    ),
    "onnx: an operator of a domain that is not imported": lambda: onnx(node(b"Add", b"ai.onnx.ml")),
    "onnx: data in another file": lambda: outside(b"model.onnx.data"),
    "onnx: data outside without a place": lambda: onnx(tensor(field(14, 1))),
    "onnx: a field that nobody knows": lambda: onnx(more=field(99, b"x")),
    "onnx: a field twice": lambda: onnx(more=field(2, b"other")),
    "onnx: a field of another wire type": lambda: onnx(more=field(6, 1)),
    "onnx: a message longer than the file": lambda: onnx() + b"\xca\x01\xff\x7f",
    "onnx: a number without end": lambda: onnx() + b"\x28" + b"\xff" * 12,
    "onnx: graphs in graphs": lambda: deep_graph(60),
    "onnx: a pickle as a note": lambda: onnx(more=field(14, pair(b"k", EVIL))),
    "onnx: no graph": lambda: field(1, 9) + field(2, b"lab") + field(8, field(2, 1)),
    "keras: a class of somebody's library": lambda: keras(layer("Mine", "lab.layers")),
    "keras: a class without a module": lambda: keras(layer("Mine", None)),
    "keras: a registered class": lambda: keras({**layer("Dense"), "registered_name": "lab>Dense"}),
    "keras: a wrapped torch module": lambda: keras(layer("TorchModuleWrapper")),
    "keras: a model in another file": lambda: keras(layer("TFSMLayer", filepath="/x")),
    "keras: a vocabulary in a file": lambda: keras(layer("StringLookup", vocabulary="/etc/passwd")),
    "keras: weights that are none": lambda: keras(
        layer("Dense"), **{"model.weights.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 90}
    ),
    "hdf5: nothing behind the signature": lambda: b"\x89HDF\r\n\x1a\n",
}
"""Must not be clean."""


def _unended(archive: bytes) -> bytes:
    return archive[:-2] + b"\xff\0"


def _footer_plus(more: bytes) -> bytes:
    data = parquet()
    length = int.from_bytes(data[-8:-4], "little") + len(more)
    return data[:-8] + more + struct.pack("<I", length) + b"PAR1"


def _shared_tables() -> bytes:
    """Each field's children are the next field eight times: 8 to the 20th fields in two kilobytes."""
    data = bytearray(4)
    head, kids = _bare(data, {1: 4, 2: 4}), _bare(data, {1: 4})
    struct.pack_into("<I", data, 0, head)
    data[head + 4 : head + 8] = b"\1\0\0\0"
    struct.pack_into("<I", data, head + 8, kids - head - 8)
    place = kids + 4
    for _ in range(20):
        vector = len(data)
        data += struct.pack("<I", 8) + bytes(32)
        table = _bare(data, {5: 4})
        for index in range(8):
            at = vector + 4 + 4 * index
            struct.pack_into("<I", data, at, table - at)
        struct.pack_into("<I", data, place, vector - place)
        place = table + 4
    last = len(data)
    data += bytes(4)
    struct.pack_into("<I", data, place, last - place)
    return b"\xff\xff\xff\xff" + struct.pack("<i", len(data)) + bytes(data) + END


def _bare(data: bytearray, slots: dict[int, int]) -> int:
    """Append a table of empty slots of four bytes and return where it is."""
    places = {number: 4 + 4 * index for index, number in enumerate(slots)}
    vtable, count = len(data), max(slots) + 1
    data += struct.pack(f"<{count + 2}H", 4 + 2 * count, 4 + 4 * len(slots), *(places.get(n, 0) for n in range(count)))
    at = len(data)
    data += struct.pack("<i", at - vtable) + bytes(4 * len(slots))
    return at


GOOD: dict[str, bytes] = {
    "parquet": parquet(),
    "parquet with notes": parquet([(b"pandas", b"{}"), (b"k", b"v"), (b"k", b"v")]),
    "parquet with a listed type": with_schema(extension(b"arrow.json")),
    "parquet with listed features": parquet([(b"huggingface", b'{"f": {"_type": "Image"}}')]),
    "parquet with a Java number": parquet([(b"avro.schema", b'{"java-class": "java.math.BigDecimal"}')]),
    "parquet with zeros between": parquet(body=page() + b"\0" * 9, groups=items(group(chunk(4, len(page()))))),
    "arrow file": arrow_file(),
    "arrow file with a listed type": arrow_file(extension(b"arrow.uuid")),
    "arrow stream": message(arrow_schema()) + batch() + END,
    "gguf": gguf((b"a", (9, struct.pack("<IQ", 8, 1) + text(b"x"))), (b"b", (7, b"\1"))),
    "gguf with a template": template(b"{% for m in messages[1:] %}{{ m['role'] | trim }}{{ loop.index }}{% endfor %}"),
    "onnx": onnx(),
    "onnx with a listed operator": onnx(node(b"FastGelu", b"com.microsoft"), domains=[b"", b"com.microsoft"]),
    "onnx with its own function": onnx(
        node(b"Op", b"lab"), domains=[b"", b"lab"], more=field(25, field(1, b"Op") + field(10, b"lab"))
    ),
    "onnx with graphs in graphs": deep_graph(5),
    "keras": keras(layer("Dense", units=1)),
    "keras with a vocabulary": keras(layer("StringLookup", vocabulary=["a"])),
}
