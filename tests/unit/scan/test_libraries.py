"""Real files written by torch, numpy, joblib and safetensors are clean; what is not read is named and not clean."""

from __future__ import annotations

import collections
import datetime
import io
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import safetensors.numpy

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file, scan_paths
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.pickles.allowlist import ALLOWED, modern
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import EVIL, safetensors_polyglot

FILES = Path(__file__).parents[2] / "data" / "scan"
FORMATS = {
    "torch_zip.pt": "torch_zip",
    "torch_zip_protocol4.pt": "torch_zip",
    "torch_kinds.pt": "torch_zip",
    "torch_legacy.pt": "torch_legacy",
    "torch_tensor.pkl": "pickle",
    "torch_tensor_protocol2.pkl": "pickle",
    "__0_0.distcp": "torch_shard",
    ".metadata": "pickle",
    "weights.safetensors": "safetensors",
    "packed.npz": "npz",
    "plain.joblib": "joblib",
    "zlib.joblib": "joblib",
    "gzip.joblib": "joblib",
    "bz2.joblib": "joblib",
    "lzma.joblib": "joblib",
    "xz.joblib": "joblib",
    "table.parquet": "parquet",
    "indexed.parquet": "parquet",
    "pyarrow12.parquet": "parquet",
    "fastparquet.parquet": "parquet",
    "polars.parquet": "parquet",
    "duckdb.parquet": "parquet",
    "table.feather": "arrow",
    "stream.arrow": "arrow",
    "polars.arrow": "arrow",
    "tiny.gguf": "gguf",
    "big_endian.gguf": "gguf",
    "functions.onnx": "onnx",
    "default.h5": "hdf5",
    "tracked.h5": "hdf5",
    "model.h5": "hdf5",
    "model.keras": "keras",
}

ARRAYS: dict[str, Any] = {
    "integers": np.arange(3),
    "column order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "objects": np.array([1, "a", None], dtype=object),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a"]),
    "records": np.array([("a", 1)], dtype=[("x", "U1"), ("y", "i4")]),
    "records with objects": np.array([("a", [1])], dtype=[("x", "U1"), ("y", "O")]),
    "records with arrays": np.zeros(2, dtype=[("a", "f4", (2, 3))]),
    "big endian": np.arange(3, dtype=">i4"),
    "times": np.array(["2020-01-01"], dtype="M8[D]"),
    "empty": np.zeros((0, 3)),
    "a single number": np.zeros(()),
    "complex": np.ones(2, complex),
    "zeros, packed 1000 to 1": np.zeros((1000, 1000)),
}
OTHERS: dict[str, Any] = {
    "masked": np.ma.array([1, 2], mask=[False, True]),
    "matrix records": np.rec.array([(1, 2)], dtype=[("a", "i4"), ("b", "i4")]),
    "old random state": np.random.RandomState(1),
    "random generator": np.random.default_rng(1),
    "scalar": np.float32(1),
    "random state of Python": random.getstate(),
    "containers": [collections.OrderedDict(a=1), collections.defaultdict(list), collections.Counter("ab"), {1}],
    "times of Python": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "large": {"text": "x" * 70_000, "bytes": b"y" * 70_000, "number": 10**3000},
}


def verdict(data: bytes) -> tuple[Verdict, list[str]]:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings.verdict, sorted(reason.code for reason in findings.reasons)


@pytest.mark.parametrize("scan", scan_paths([FILES / "benign"]), ids=lambda scan: Path(scan.path).name)
def test_files_written_by_the_libraries_are_clean(scan: Any) -> None:
    """No false alarm on what the libraries that `README.md` lists there wrote."""
    assert (scan.verdict, scan.reasons) == (Verdict.CLEAN, ())
    assert scan.format == FORMATS[Path(scan.path).name]


def test_torchscript_is_named_and_never_clean() -> None:
    """TorchScript is code; the scanner says so and does not read it."""
    scan = scan_file(FILES / "opaque" / "torchscript.pt")
    assert (scan.format, scan.verdict) == ("torchscript", Verdict.UNKNOWN)
    assert "ckpt.torchscript" in {reason.code for reason in scan.reasons}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", [*ARRAYS, *OTHERS])
def test_pickles_of_every_protocol_are_clean(name: str, protocol: int) -> None:
    """Plain data, arrays and random states, protocols 0 to 5."""
    assert verdict(pickle.dumps({**ARRAYS, **OTHERS}[name], protocol)) == (Verdict.CLEAN, [])


@pytest.mark.parametrize("method", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 1), ("xz", 1)], ids=str)
@pytest.mark.parametrize("name", [*ARRAYS, *OTHERS])
def test_joblib_files_are_clean(name: str, method: Any) -> None:
    """Plain and compressed, arrays between the opcodes."""
    file = io.BytesIO()
    joblib.dump({"x": {**ARRAYS, **OTHERS}[name], "y": [1]}, file, compress=method)
    assert verdict(file.getvalue()) == (Verdict.CLEAN, [])


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_clean(name: str) -> None:
    """`.npy`, `.npz` and compressed `.npz`, object arrays too."""
    for save in (np.save, np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, ARRAYS[name])
        assert verdict(file.getvalue()) == (Verdict.CLEAN, [])


def test_safetensors_files_are_clean() -> None:
    """Several dtypes, an empty tensor, metadata."""
    data = safetensors.numpy.save(
        {"a": np.ones(3, np.float16), "b": np.arange(4), "e": np.zeros((0, 2))}, metadata={"format": "np"}
    )
    assert verdict(data) == (Verdict.CLEAN, [])


def test_the_safetensors_polyglot_is_one() -> None:
    """safetensors' own reader accepts the file that a pickle reader runs; the sample is what it claims to be."""
    assert safetensors.numpy.load(safetensors_polyglot()) == {}


def test_torch_files_written_now_are_clean(tmp_path: Path) -> None:
    """Where torch is installed: every kind of tensor, both layouts."""
    torch = pytest.importorskip("torch")
    values = {
        "w": torch.randn(3).bfloat16(),
        "p": torch.nn.Parameter(torch.ones(2)),
        "s": torch.eye(3).to_sparse(),
        "v": torch.arange(9.0)[2:5],
        "size": torch.Size([1]),
        "rng": torch.get_rng_state(),
    }
    for new in (True, False):
        torch.save(values, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        assert scan_file(tmp_path / "a.pt").reasons == ()


def test_a_whole_model_is_unknown_not_hostile() -> None:
    """A pickled class of a framework needs code to load: not clean, and no accusation."""
    data = b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}b."
    assert verdict(data) == (Verdict.UNKNOWN, ["ckpt.pickle_unlisted"])


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("transformers.training_args", "TrainingArguments", Verdict.UNKNOWN),
        ("accelerate.state", "PartialState", Verdict.UNKNOWN),
        ("accelerate.state", "patch_environment", Verdict.HOSTILE),
        ("accelerate.launchers", "debug_launcher", Verdict.HOSTILE),
    ],
)
def test_settings_of_a_trainer_are_unknown_its_functions_hostile(module: str, name: str, expected: Verdict) -> None:
    """`training_args.bin` of transformers' Trainer pickles classes of two packages: no accusation, and not clean."""
    assert verdict(f"\x80\x02c{module}\n{name}\n)\x81}}b.".encode("latin-1"))[0] is expected


def test_checkpoint_folders_of_torch_are_clean(tmp_path: Path) -> None:
    """Where torch is installed: shards with their index, a distributed checkpoint, optimizers, schedulers, scalers."""
    torch = pytest.importorskip("torch")
    checkpoints = pytest.importorskip("torch.distributed.checkpoint")
    model = torch.nn.Linear(4, 4)
    optimizers = [getattr(torch.optim, name)(model.parameters()) for name in ("SGD", "Adam", "AdamW", "Adagrad")]
    model(torch.ones(1, 4)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()
        torch.save(optimizer.state_dict(), tmp_path / f"{type(optimizer).__name__}.pt")
    torch.save(torch.optim.lr_scheduler.StepLR(optimizers[0], 1).state_dict(), tmp_path / "scheduler.pt")
    torch.save(
        {"cpu": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()},
        tmp_path / "rng_state.pth",
    )
    torch.save({"weight": model.weight.data}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"bias": model.bias.data}, tmp_path / "pytorch_model-00002-of-00002.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(
        '{"weight_map": {"bias": "pytorch_model-00002-of-00002.bin"}}'
    )
    checkpoints.save({"model": model.state_dict(), "step": 3}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    scans = scan_paths([tmp_path])
    assert [(scan.path, scan.reasons) for scan in scans if scan.reasons] == []
    assert len(scans) >= 11


def test_a_whole_model_of_torch_is_unknown_in_both_layouts(tmp_path: Path) -> None:
    """Where torch is installed: what it writes of a module, not of its weights, is not clean and no accusation."""
    torch = pytest.importorskip("torch")
    for new in (True, False):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt", _use_new_zipfile_serialization=new)
        assert scan_file(tmp_path / "whole.pt").verdict is Verdict.UNKNOWN


def test_an_operator_may_list_classes_of_their_own() -> None:
    """A class the operator lists is as good as ours; the one beside it is not."""
    extra = frozenset({("lab.config", "Settings")})
    for name, expected in (("Settings", Verdict.CLEAN), ("Other", Verdict.UNKNOWN)):
        findings = Findings(extra_globals=extra)
        scan_content(BytesSource(f"\x80\x02clab.config\n{name}\n)\x81}}b.".encode("latin-1")), findings)
        assert findings.verdict is expected


def test_listed_names_mean_the_same_in_every_protocol() -> None:
    """Protocols 0 to 2 rename Python 2 modules on import; no listed name is renamed to another."""
    assert [pair for pair in ALLOWED if modern(*pair) != pair] == []


@pytest.mark.parametrize(
    ("members", "expected", "codes"),
    [
        ({"model.bin": EVIL}, Verdict.HOSTILE, ["ckpt.pickle_global"]),
        ({"model.json": b"{}"}, Verdict.CLEAN, []),
        ({"model.bin": b"{}"}, Verdict.UNKNOWN, ["ckpt.pickle_name"]),
        ({"model.json": b'{"a": '}, Verdict.UNKNOWN, ["ckpt.config_broken"]),
        ({"lab/train.py": b"x = 1"}, Verdict.UNKNOWN, ["ckpt.code_file"]),
        ({"a.json": b"{}", "./A.json": b"{}"}, Verdict.HOSTILE, ["ckpt.archive_duplicate"]),
    ],
)
def test_7z_archives_are_read_with_the_extra(members: dict[str, bytes], expected: Verdict, codes: list[str]) -> None:
    """py7zr unpacks in memory; what is inside decides, and a name makes it worse only."""
    assert verdict(seven_zip(members)) == (expected, codes)


def test_7z_archives_are_unknown_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader, no verdict: never clean."""
    data = seven_zip({"model.json": b"{}"})
    monkeypatch.setitem(sys.modules, "py7zr", None)
    assert verdict(data) == (Verdict.UNKNOWN, ["ckpt.compression_unknown"])


def test_a_damaged_7z_archive_is_unknown() -> None:
    """What the guest's parser raises is a finding."""
    data = seven_zip({"model.json": b"{}"})
    assert verdict(data[:-8] + b"\0" * 8) == (Verdict.UNKNOWN, ["ckpt.archive_broken"])


def seven_zip(members: dict[str, bytes]) -> bytes:
    py7zr = pytest.importorskip("py7zr")
    file = io.BytesIO()
    with py7zr.SevenZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(content, name)
    return file.getvalue()
