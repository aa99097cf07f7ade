"""Writes the committed files of `benign/` that are no pickles, each with the library that reads them in earnest.

    python tests/data/scan/make_format_fixtures.py [NAME...]

NAME is a function below; without one all are run whose library is installed. `README.md` names the versions used.
"""

from __future__ import annotations

import datetime
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "benign"
ROWS = 8


def pyarrow() -> None:
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as parquet

    table = pa.table(
        {
            "i": pa.array([1, None] * (ROWS // 2)),
            "text": pa.array(["a", "bc"] * (ROWS // 2)).dictionary_encode(),
            "list": pa.array([[1.5], None] * (ROWS // 2)),
            "struct": pa.array([{"x": 1, "y": b"z"}] * ROWS),
            "time": pa.array([datetime.datetime(2020, 1, 1)] * ROWS, pa.timestamp("us", "UTC")),
            "uuid": pa.array([bytes(16)] * ROWS, pa.uuid()),
        }
    )
    features = '{"info": {"features": {"i": {"dtype": "int64", "_type": "Value"}}}}'
    table = table.replace_schema_metadata({"huggingface": features})
    parquet.write_table(table, HERE / "table.parquet")
    parquet.write_table(
        table,
        HERE / "indexed.parquet",
        compression="zstd",
        data_page_version="2.0",
        write_page_index=True,
        write_page_checksum=True,
        row_group_size=3,
        store_schema=False,
    )
    feather.write_feather(table, HERE / "table.feather", compression="zstd", chunksize=3)
    with pa.ipc.new_stream(HERE / "stream.arrow", table.schema) as writer:
        writer.write_table(table, 3)


def pyarrow_old() -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"i": [1, 2], "text": ["a", "b"]}), HERE / "pyarrow12.parquet")


def fastparquet() -> None:
    import fastparquet as library
    import pandas

    frame = pandas.DataFrame({"i": range(ROWS), "text": ["a", "b"] * (ROWS // 2)})
    library.write(str(HERE / "fastparquet.parquet"), frame, compression="GZIP", row_group_offsets=3)


def polars() -> None:
    import polars as library

    frame = library.DataFrame({"i": range(ROWS), "list": [[1]] * ROWS, "text": ["a", "b"] * (ROWS // 2)})
    frame.write_parquet(HERE / "polars.parquet", row_group_size=3)
    frame.write_ipc(HERE / "polars.arrow")


def duckdb() -> None:
    import duckdb as library

    library.sql(
        f"copy (select i, 'x' || (i % 3) s, [i] l, map{{1: i}} m from range({ROWS}) x(i))"
        f" to '{HERE / 'duckdb.parquet'}' (format parquet)"
    )


def gguf() -> None:
    import gguf as library
    import numpy

    for name, order in (("tiny.gguf", library.GGUFEndian.LITTLE), ("big_endian.gguf", library.GGUFEndian.BIG)):
        writer = library.GGUFWriter(HERE / name, "llama", endianess=order)
        writer.add_array("tokenizer.ggml.tokens", ["<s>", "a"])
        writer.add_chat_template("{% for m in messages %}<{{ m['role'] }}>{{ m.content | trim }}{% endfor %}")
        writer.add_array("scores", [0.5, 1.0])
        writer.add_bool("flag", True)
        for index in range(2):
            writer.add_tensor(f"blk.{index}.weight", numpy.ones((2, 4), numpy.float32))
        packed = library.quantize(numpy.ones((1, 512), numpy.float32), library.GGMLQuantizationType.Q8_0)
        writer.add_tensor("q", packed, raw_dtype=library.GGMLQuantizationType.Q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def onnx() -> None:
    import onnx as library
    from onnx import helper

    body = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "then", [], [helper.make_tensor_value_info("y", 1, [2])]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], ["g"]),
            helper.make_node("FastGelu", ["g"], ["f"], domain="com.microsoft"),
            helper.make_node("Twice", ["f"], ["t"], domain="lab"),
            helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body),
        ],
        "main",
        [helper.make_tensor_value_info("x", 1, [2, "n"])],
        [helper.make_tensor_value_info("y", 1, [2])],
        [helper.make_tensor("w", 1, [2, 2], [1.0] * 4)],
    )
    twice = helper.make_function(
        "lab", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 21)]
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in (("", 21), ("com.microsoft", 1), ("lab", 1))]
    library.save(helper.make_model(graph, functions=[twice], opset_imports=imports), str(HERE / "functions.onnx"))


def h5py() -> None:
    import h5py as library
    import numpy

    for name, tracked in (("default.h5", False), ("tracked.h5", True)):
        with library.File(HERE / name, "w", track_order=tracked) as file:
            file.attrs["layer_names"] = numpy.array([b"a", b"bc"])
            file.attrs["note"] = "text"
            for index in range(10):
                file.create_group(f"layers/dense_{index}", track_order=tracked)
            file["layers/dense_0"].create_dataset("0", data=numpy.ones((2, 2), "f4"))
            file.create_dataset("packed", data=numpy.arange(20), chunks=(8,), compression="gzip", shuffle=True)
            file["again"] = library.SoftLink("/packed")


def keras() -> None:
    import keras as library

    model = library.Sequential(
        [library.layers.Input((2,)), library.layers.Dense(2, activation="relu"), library.layers.Dense(1)]
    )
    model.compile(optimizer="sgd", loss="mse")
    model.save(HERE / "model.keras")
    model.save(HERE / "model.h5")


WRITERS: tuple[Callable[[], Any], ...] = (pyarrow, fastparquet, polars, duckdb, gguf, onnx, h5py, keras)


def main() -> None:
    chosen = [globals()[name] for name in sys.argv[1:]] or [
        writer for writer in WRITERS if importlib.util.find_spec(writer.__name__)
    ]
    for writer in chosen:
        writer()


if __name__ == "__main__":
    main()
