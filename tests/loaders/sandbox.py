"""Loads one file with the real library in a process of its own, and reports what the load did.

The process has a folder of its own, bounded memory and time, and an audit hook that CPython cannot remove: whatever
starts a program, opens a connection, or writes outside that folder is recorded, and refused before it happens. The
hook sees what Python does and not what C code does by itself, so run this where nothing is at stake.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import joblib
import numpy as np
import safetensors

SECONDS = 10
MEMORY = 3 * 2**30
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_REACHES = ("socket.connect", "socket.bind", "urllib.Request", "ctypes.dlopen", "webbrowser.open", "os.kill")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one load did: `touched` the canary, brought packages of others, ended by itself, or was stopped."""

    touched: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    loaded: bool = False
    crashed: bool = False
    exhausted: bool = False


def _walk_hdf5(path: str) -> None:
    with h5py.File(path, "r") as file:
        file.visititems(lambda _, node: node[()] if isinstance(node, h5py.Dataset) else None)


def _walk_npz(path: str) -> None:
    value = np.load(path, allow_pickle=True)
    if isinstance(value, np.lib.npyio.NpzFile):
        for name in value.files:
            value[name]


def _walk_safetensors(path: str) -> None:
    with safetensors.safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            file.get_slice(name).get_shape()


def _unpickle_packed(path: str) -> None:
    data = Path(path).read_bytes()
    for unpack in (gzip.decompress, bz2.decompress, lzma.decompress, zlib.decompress):
        try:
            plain = unpack(data)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
            continue
        pickle.load(io.BytesIO(plain))
        return
    raise ValueError("not packed")


def _unpickle_members(path: str) -> None:
    """As `torch.load` and `pandas.read_pickle` do: pickles inside of a zip."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith((".pkl", ".pickle")):
                _Stored(io.BytesIO(archive.read(name))).load()


class _Stored(pickle.Unpickler):
    def persistent_load(self, pid: object) -> object:
        return pid


def _unpickle(path: str) -> None:
    with open(path, "rb") as file:
        pickle.load(file)


def _unpack_zip(path: str) -> None:
    with zipfile.ZipFile(path) as archive:
        archive.extractall("unpacked")


def _unpack_tar(path: str) -> None:
    with tarfile.open(path) as archive:
        archive.extractall("unpacked", filter="fully_trusted")


LOADERS: dict[str, Callable[[str], object]] = {
    "pickle.load": _unpickle,
    "pickle, packed": _unpickle_packed,
    "pickle, in a zip": _unpickle_members,
    "joblib.load": joblib.load,
    "numpy.load": _walk_npz,
    "h5py": _walk_hdf5,
    "safetensors": _walk_safetensors,
    "zipfile": _unpack_zip,
    "tarfile": _unpack_tar,
}
"""Every loader is given every file: the reader chooses how to read, not the name."""

OWN = {"numpy", "joblib", "h5py", "safetensors", "_codecs", "encodings", "copyreg", "_compat_pickle"}


def load(name: str, data: bytes) -> Load:
    """Give the bytes to a loader in a process of its own.

    Args:
        name: a key of `LOADERS`.
        data: the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(data)
        report = Path(folder, "report.json")
        child = os.fork()
        if child == 0:
            _run(name, folder, path, report)
        status = _wait(child)
        if not report.exists():
            # An end without a report: killed by a limit, or by a signal of its own.
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
            return Load(exhausted=killed, crashed=not killed)
        said = json.loads(report.read_text())
        return Load(
            touched=tuple(said["touched"]),
            imported=tuple(said["imported"]),
            loaded=said["loaded"],
            exhausted=said["exhausted"],
        )


def _wait(child: int) -> int:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _run(name: str, folder: str, path: Path, report: Path) -> None:
    """Load and report; never returns."""
    touched: list[str] = []
    said = {"touched": touched, "imported": [], "loaded": False, "exhausted": False}
    before = set(sys.modules)
    try:
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        sys.addaudithook(_hook(os.path.realpath(folder), touched))
        LOADERS[name](str(path))
        said["loaded"] = True
    except MemoryError:
        said["exhausted"] = True
    except BaseException:  # noqa: BLE001 - a hostile file may raise anything
        pass
    try:
        said["imported"] = sorted({module.partition(".")[0] for module in set(sys.modules) - before} - OWN)
        report.write_text(json.dumps(said))
    finally:
        os._exit(0)


def _hook(folder: str, touched: list[str]) -> Callable[[str, tuple[object, ...]], None]:
    def inside(path: object) -> bool:
        if not isinstance(path, str | bytes):
            return True
        return os.path.realpath(os.fsdecode(path)).startswith(folder + os.sep)

    def hook(event: str, values: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        leaves = (writes or event in _CHANGES) and not inside(values[0])
        if leaves or event in _STARTS or event in _REACHES:
            touched.append(event)
            raise PermissionError(event)

    return hook
