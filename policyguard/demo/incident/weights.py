"""Checkpoints in torch's format, written by torch if it is installed, else by this module."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LOAD = """\
import importlib.util, pickle, sys, zipfile
if importlib.util.find_spec("torch"):
    import torch
    torch.load(sys.argv[1], weights_only=False)
else:
    with zipfile.ZipFile(sys.argv[1]) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        pickle.loads(archive.read(name))
"""
"""Loads shared weights, as a training script does."""


def has_torch() -> bool:
    """Check whether torch is installed and writes the checkpoints of this replay."""
    return find_spec("torch") is not None


class _Sabotage:
    """An object whose unpickling runs a command."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f": > '{self._marker}'",)


def write_hostile(path: Path, marker: Path) -> None:
    """Write a checkpoint that creates the file `marker` when it is loaded."""
    if has_torch():
        import_module("torch").save({"step": 5000, "optimizer": _Sabotage(marker)}, path)
    else:
        _write_zip(path, pickle.dumps({"step": 5000, "optimizer": _Sabotage(marker)}, protocol=2))


def write_weights(path: Path, values: tuple[float, ...]) -> None:
    """Write a checkpoint with one tensor of the given values."""
    if has_torch():
        torch = import_module("torch")
        torch.save({"weight": torch.tensor(values)}, path)
    else:
        data = struct.pack(f"<{len(values)}f", *values)
        _write_zip(path, tensor_pickle(len(values)), **{"data/0": data})


def _write_zip(path: Path, data: bytes, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {"data.pkl": data, "byteorder": b"little", **members, "version": b"3\n"}.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0)), content)


def tensor_pickle(count: int) -> bytes:
    """Pickle `{"weight": tensor}` as `torch.save` does: a storage by its key, rebuilt as a vector."""
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")
    storage += b"J" + struct.pack("<i", count) + b"tQ"
    shape = b"J" + struct.pack("<i", count) + b"\x85"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + b"K\x01\x85\x89"
    return b"\x80\x02}" + _text("weight") + tensor + b"ccollections\nOrderedDict\n)RtRs."


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data
