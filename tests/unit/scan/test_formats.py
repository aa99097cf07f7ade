"""What pyarrow, gguf, onnx and h5py write is clean, of every kind they offer; of a changed file they see no more."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.formats.onnx_fields import CONTRIBUTED, OWN_DOMAINS
from policyguard.scan.formats.registry import category_by_suffix, format_category
from policyguard.scan.source import BytesSource
from tests.attacks.formats_lab import layer, model

FILES = Path(__file__).parents[2] / "data" / "scan" / "benign"


def reasons(data: bytes) -> list[str]:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return sorted(f"{reason.code} {reason.detail}" for reason in findings.reasons)


def _table() -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.table(
        {
            "integers": pa.array([1, 2, None] * 40),
            "text": ["a", None, "c"] * 40,
            "floats": [1.5, None, 3.0] * 40,
            "booleans": [True, None, False] * 40,
            "lists": [[1], [2, 3], None] * 40,
            "structs": [{"x": 1, "y": "q"}, None, {"x": 2, "y": "z"}] * 40,
            "maps": pa.array([[("a", 1)], [], None] * 40, pa.map_(pa.string(), pa.int32())),
            "days": [datetime.date(2020, 1, 1)] * 120,
            "decimals": [decimal.Decimal("1.25")] * 120,
            "times": pa.array([datetime.datetime(2020, 1, 1)] * 120, pa.timestamp("us", "UTC")),
            "dictionary": pa.array(["a", "b", "c"] * 40).dictionary_encode(),
            "bytes": [b"\0\1", b"", None] * 40,
            "large": pa.array(["x"] * 120, pa.large_string()),
            "fixed": pa.array([b"abcd"] * 120, pa.binary(4)),
            "halves": pa.array([1, 2, 3] * 40, pa.float16()),
            "durations": pa.array([1] * 120, pa.duration("s")),
            "nothing": pa.nulls(120),
            "uuids": pa.array([uuid.UUID(int=1).bytes] * 120, pa.uuid()),
            "vectors": pa.array([[1, 2]] * 120, pa.list_(pa.float32(), 2)),
            "views": pa.array(["x"] * 120, pa.string_view()),
        }
    )


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_parquet_of_every_codec_and_type_is_clean(codec: str, version: str, indexed: bool) -> None:
    """Nested columns, dictionaries, page indexes, checksums, Arrow's schema."""
    parquet, table = pytest.importorskip("pyarrow.parquet"), _table()
    file = io.BytesIO()
    parquet.write_table(
        table,
        file,
        compression=codec,
        data_page_version=version,
        write_page_index=indexed,
        row_group_size=50,
        write_page_checksum=indexed,
        use_dictionary=not indexed,
        store_schema=not indexed,
    )
    assert reasons(file.getvalue()) == []


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_arrow_files_and_streams_are_clean(codec: str | None) -> None:
    """Dictionaries, several batches, compressed buffers."""
    pa, table = pytest.importorskip("pyarrow"), _table()
    for opened in (pa.ipc.new_file, pa.ipc.new_stream):
        file = io.BytesIO()
        with opened(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
            writer.write_table(table, 50)
        assert reasons(file.getvalue()) == []


def test_empty_tables_are_clean() -> None:
    """No columns, no rows."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    for table in (pa.table({}), pa.table({"a": pa.array([], pa.int32())})):
        file = io.BytesIO()
        parquet.write_table(table, file)
        assert reasons(file.getvalue()) == []


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_gguf_of_every_type_is_clean(order: str, tmp_path: Path) -> None:
    """Every scalar, arrays of each, every quantization that gguf can write."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama", endianess=gguf.GGUFEndian[order])
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"):
        getattr(writer, f"add_{kind}")(f"x.{kind}", 1)
    for name, values in (("texts", ["a", "b"]), ("numbers", [1, 2]), ("floats", [0.5]), ("flags", [True])):
        writer.add_array(f"x.{name}", values)
    for kind in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        packed = gguf.quantize(np.ones((3, 64), np.float32), gguf.GGMLQuantizationType[kind])
        writer.add_tensor(kind, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert scan_file(tmp_path / "x.gguf").reasons == ()


def test_the_models_that_onnx_brings_are_clean() -> None:
    """The real models in the library's own test data, 140 in onnx 1.23."""
    onnx = pytest.importorskip("onnx")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = [path for path in sorted(folder.rglob("model.onnx")) if path.parts[-3] != "node"]
    assert len(paths) > 100
    assert [path.name for path in paths if reasons(path.read_bytes())] == []


def _hdf5(fill: Callable[[Any], object], **options: Any) -> bytes:
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w", **options) as root:
        fill(root)
    return file.getvalue()


def _everything(root: Any) -> None:
    import h5py
    import numpy as np

    root.attrs.update({"n": 3, "a": np.arange(3.0), "t": "text", "b": b"bytes", "f": np.bytes_("x"), "v": ["a", "bc"]})
    root.attrs["empty"] = h5py.Empty("S4")
    for index in range(40):
        root.attrs[f"x{index}"] = "y" * index
        root.create_group(f"layers/{index}", track_order=bool(index % 2))["0"] = np.ones((2, 2))
    root.create_dataset(
        "packed", data=np.arange(1000), chunks=(100,), compression="gzip", shuffle=True, fletcher32=True
    )
    root.create_dataset("lzf", data=np.zeros((100, 100)), chunks=(10, 10), compression="lzf")
    root.create_dataset("grows", shape=(0, 3), maxshape=(None, 3), dtype="f4")
    root["records"] = np.zeros(3, dtype=[("a", "i4"), ("b", "f8")])
    root["texts"], root["soft"], root["hard"] = ["a", "bc"], h5py.SoftLink("/packed"), root["layers"]
    root.create_dataset("reference", data=root["packed"].ref, dtype=h5py.ref_dtype)
    root.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("i4"))


@pytest.mark.parametrize("options", [{}, {"track_order": True}, {"libver": ("earliest", "v110")}], ids=str)
def test_hdf5_of_every_layout_that_h5py_writes_is_clean(options: dict[str, Any]) -> None:
    """Symbol tables, dense groups and attributes, chunks, filters, links inside, text of any length."""
    assert reasons(_hdf5(_everything, **options)) == []


def _config(*layers: dict[str, Any]) -> Callable[[Any], object]:
    return lambda root: root.attrs.update(model_config=model(*layers))


def _linked(name: str) -> Callable[[Any], object]:
    return lambda root: root.__setitem__("x", pytest.importorskip("h5py").ExternalLink(name, "/"))


@pytest.mark.parametrize(
    ("fill", "code"),
    [
        (_config(layer("Lambda")), "ckpt.keras_lambda"),
        (_config(layer("Mine")), "ckpt.keras_class"),
        (_config(layer("Dense", "os")), "ckpt.keras_module"),
        (lambda root: root.attrs.update(model_config="{"), "ckpt.keras_config"),
        (lambda root: root.attrs.update(p=b"cos\nsystem\n(Vx\ntR."), "ckpt.pickle_global"),
        (lambda root: root.create_group("o").attrs.update(PSEUDOATOM=b"object"), "ckpt.hdf5_pickles"),
        (lambda root: root.create_dataset("x", (4,), "u1", external=[("../x", 0, 4)]), "ckpt.external_path"),
        (lambda root: root.create_dataset("x", (4,), "u1", external=[("x.raw", 0, 4)]), "ckpt.external_data"),
        (_linked("/etc/x.h5"), "ckpt.external_path"),
        (_linked("other.h5"), "ckpt.external_data"),
    ],
)
@pytest.mark.parametrize("tracked", [False, True])
def test_what_hdf5_may_bring_is_found(fill: Callable[[Any], object], code: str, tracked: bool) -> None:
    """INVARIANT I18: Keras' configuration, pickles in attributes, data and links elsewhere."""
    assert [reason.split()[0] for reason in reasons(_hdf5(fill, track_order=tracked))] == [code]


def test_a_filter_that_is_a_plugin_is_not_clean() -> None:
    """The number of a filter decides which library HDF5 loads; deflate's is changed to bzip2's."""
    data = _hdf5(lambda root: root.create_dataset("x", data=[1.0] * 64, chunks=(8,), compression="gzip"))
    at = data.index(b"deflate") - 8
    assert data[at : at + 2] == b"\1\0"
    assert reasons(data[:at] + (307).to_bytes(2, "little") + data[at + 2 :]) == ["ckpt.hdf5_plugin filter 307"]


def test_chunks_of_the_latest_layout_are_not_read_and_not_clean() -> None:
    """What is not walked is named: `libver="latest"` indexes chunks in other ways."""
    assert [reason.split()[0] for reason in reasons(_hdf5(_everything, libver="latest"))] == ["ckpt.hdf5_layout"]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_changed_hdf5_file_is_never_a_traceback(libver: str) -> None:
    """INVARIANT I18: every byte of the structures in turn."""
    data = bytearray(_hdf5(_config(layer("Dense")), libver=libver, track_order=True))
    for at in range(0, len(data), 3):
        kept, data[at] = data[at], data[at] ^ 0xFF
        reasons(bytes(data))
        data[at] = kept


def test_what_stays_clean_names_no_more_to_onnx(tmp_path: Path) -> None:
    """Of a thousand changed models those that are clean show onnx only listed operators and no other file."""
    onnx = pytest.importorskip("onnx")
    choose, clean = random.Random(0), 0
    seed = (FILES / "functions.onnx").read_bytes()
    for _ in range(1000):
        data = bytearray(seed)
        data[choose.randrange(len(data))] = choose.randrange(256)
        if reasons(bytes(data)):
            continue
        try:
            seen = onnx.load_model_from_string(bytes(data))
        except Exception:  # noqa: BLE001 - the reader refuses it, so it loads nothing
            continue
        clean += 1
        own = {(function.domain, function.name) for function in seen.functions}
        for node in seen.graph.node:
            assert node.domain in OWN_DOMAINS or node.op_type in CONTRIBUTED or (node.domain, node.op_type) in own
        assert not any(tensor.external_data for tensor in seen.graph.initializer)
    assert clean


def test_what_stays_clean_names_no_more_to_pyarrow() -> None:
    """Of a thousand changed tables those that are clean show pyarrow the same columns, and no other file."""
    parquet = pytest.importorskip("pyarrow.parquet")
    choose, clean = random.Random(0), 0
    seed = (FILES / "table.parquet").read_bytes()
    count = parquet.read_metadata(io.BytesIO(seed)).num_rows
    for _ in range(1000):
        data = bytearray(seed)
        data[choose.randrange(len(data))] = choose.randrange(256)
        if reasons(bytes(data)):
            continue
        try:
            seen = parquet.read_metadata(io.BytesIO(bytes(data)))
        except Exception:  # noqa: BLE001 - the reader refuses it, so it loads nothing
            continue
        clean += 1
        assert seen.num_rows == count
        assert not any(seen.row_group(0).column(index).file_path for index in range(seen.num_columns))
    assert clean


def test_rules_see_them_as_data_without_a_pickle() -> None:
    """`format` is `other` for what was read and holds no pickle, by content and by name."""
    scan = scan_file(FILES / "tiny.gguf")
    names = [category_by_suffix(name) for name in ("a.gguf", "a.parquet", "a.txt")]
    assert [format_category(scan), *names] == ["other", "other", "other", "unknown"]


def test_a_real_keras_model_with_a_lambda_is_hostile(tmp_path: Path) -> None:
    """The twin of the committed model: one layer of its configuration is another."""
    import zipfile

    with zipfile.ZipFile(FILES / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["class_name"] = "Lambda"
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, data in {**members, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, data)
    assert scan_file(tmp_path / "m.keras").verdict is Verdict.HOSTILE


def test_the_copy_of_a_groups_table_is_followed_too() -> None:
    """INVARIANT I18: the superblock keeps the root's table beside its header; a reader may believe either."""
    data = bytearray((FILES / "default.h5").read_bytes())
    assert data[72:76] == b"\1\0\0\0"
    data[80:88] = data[64:72]
    assert [reason.split()[0] for reason in reasons(bytes(data))] == ["ckpt.hdf5_layout"]


@pytest.mark.parametrize("index", [b"BTLF\0\5", b"BTLF\0\6"], ids=["by name", "by order"])
def test_both_indexes_of_a_dense_group_are_followed(index: bytes) -> None:
    """INVARIANT I18: links that only one of them lists are links all the same."""
    data = bytearray((FILES / "tracked.h5").read_bytes())
    at = data.index(index) + 6
    data[at + 8 : at + 12] = b"\xff" * 4
    assert [reason.split()[0] for reason in reasons(bytes(data))] == ["ckpt.hdf5_layout"]


def test_what_the_superblock_points_to_is_followed(tmp_path: Path) -> None:
    """INVARIANT I18: an extension of the superblock is an object like any other."""
    data = bytearray(_hdf5(_config(layer("Dense")), libver="v110"))
    assert reasons(bytes(data)) == []
    data[20:28] = (len(data) + 8).to_bytes(8, "little")
    assert [reason.split()[0] for reason in reasons(bytes(data))] == ["ckpt.hdf5_layout"]
