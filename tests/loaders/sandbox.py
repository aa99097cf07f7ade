"""Loads one file with the real library in a process of its own, and reports what the load did.

The process has a folder of its own, bounded memory and time, and an audit hook that CPython cannot remove: whatever
starts a program, opens a connection, or writes outside that folder is recorded, and refused before it happens. The
hook sees what Python does and not what C code does by itself, so run this where nothing is at stake.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import importlib.util
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def _torch(**options: object) -> Callable[[str], object]:
    torch = importlib.import_module("torch")
    return lambda path: torch.load(path, map_location="cpu", **options)


def _unsafe_yaml() -> Callable[[str], object]:
    yaml = importlib.import_module("yaml")
    return lambda path: list(yaml.unsafe_load_all(Path(path).read_text("utf-8")))


def _jsonpickle() -> Callable[[str], object]:
    jsonpickle = importlib.import_module("jsonpickle")
    return lambda path: jsonpickle.decode(Path(path).read_text("utf-8"), on_missing="ignore")


def _hydra() -> Callable[[str], object]:
    """Instantiate every part of the settings, whatever the others do."""
    instantiate = importlib.import_module("hydra.utils").instantiate
    omegaconf = importlib.import_module("omegaconf")

    def build(path: str) -> None:
        settings = omegaconf.OmegaConf.load(path)
        parts = settings.values() if hasattr(settings, "values") else settings
        problems = []
        for part in [settings, *parts]:
            try:
                if omegaconf.OmegaConf.is_config(part):
                    instantiate(part)
            except Exception as problem:  # noqa: BLE001 - the next part may be built all the same
                problems.append(problem)
        if problems:
            raise problems[0]

    return build


def _jinja() -> Callable[[str], object]:
    """Render as readers did that had no sandbox."""
    environment = importlib.import_module("jinja2").Environment(extensions=["jinja2.ext.loopcontrols"])
    messages = [{"role": "user", "content": "hello"}]
    return lambda path: environment.from_string(Path(path).read_text("utf-8")).render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True
    )


def _onnx() -> Callable[[str], object]:
    onnx = importlib.import_module("onnx")
    return lambda path: onnx.load(path)


def _skops() -> Callable[[str], object]:
    skops = importlib.import_module("skops.io")
    importlib.import_module("sklearn.ensemble")
    return lambda path: skops.load(path, trusted=skops.get_untrusted_types(file=path))


_OPTIONAL: dict[str, tuple[str, Callable[[], Callable[[str], object]]]] = {
    "torch.load": ("torch", lambda: _torch(weights_only=False)),
    "torch.load, weights only": ("torch", lambda: _torch(weights_only=True)),
    "torch.load, mapped": ("torch", lambda: _torch(weights_only=False, mmap=True)),
    "yaml.unsafe_load": ("yaml", _unsafe_yaml),
    "jsonpickle": ("jsonpickle", _jsonpickle),
    "hydra": ("hydra", _hydra),
    "jinja2": ("jinja2", _jinja),
    "onnx": ("onnx", _onnx),
    "skops": ("skops", _skops),
}
"""The package that a loader is of, and what makes it. Those of packages that are not installed are left out."""

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
    **{name: make() for name, (package, make) in _OPTIONAL.items() if importlib.util.find_spec(package)},
}
"""Every loader is given every file: the reader chooses how to read, not the name."""

_UNPACKS = {"zipfile": "zipfile", "tarfile": "tarfile", "torch.load": "scratch"}
"""Loaders that write files, and to which folder."""

OWN = {
    *("numpy", "joblib", "h5py", "safetensors", "torch", "yaml", "jsonpickle", "hydra", "omegaconf", "jinja2", "onnx"),
    *("skops", "sklearn", "scipy", "_codecs", "encodings", "copyreg", "_compat_pickle"),
}


def load(name: str, data: bytes) -> Load:
    """Give the bytes to a loader in a process of its own.

    Args:
        name: a key of `LOADERS`.
        data: the file.
    """
    return load_by([name], data)[name]


def load_by(names: Iterable[str], data: bytes) -> Mapping[str, Load]:
    """Give the bytes to several loaders, one after another; after one that ends its process, another process goes on.

    Args:
        names: keys of `LOADERS`.
        data: the file.
    """
    loads: dict[str, Load] = {}
    pending = list(names)
    with tempfile.TemporaryDirectory() as folder:
        path, report = Path(folder, "file"), Path(folder, "report.jsonl")
        path.write_bytes(data)
        while pending:
            report.unlink(missing_ok=True)
            child = os.fork()
            if child == 0:
                _run(pending, folder, path, report)
            status = _wait(child, len(pending))
            lines = report.read_text().splitlines() if report.exists() else []
            for line in lines:
                loads[pending.pop(0)] = _read(json.loads(line))
            if pending:
                # An end without a report: killed by a limit, or by a signal of its own.
                killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGALRM)
                loads[pending.pop(0)] = Load(exhausted=killed, crashed=not killed)
    return loads


def _read(said: Mapping[str, Any]) -> Load:
    return Load(
        touched=tuple(said["touched"]),
        imported=tuple(said["imported"]),
        loaded=said["loaded"],
        exhausted=said["exhausted"],
    )


def _wait(child: int, loads: int) -> int:
    end = time.monotonic() + SECONDS * (1 + loads)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _run(names: Iterable[str], folder: str, path: Path, report: Path) -> None:
    """Load by each and report; never returns."""
    touched: list[str] = []
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        # Loaders seed nothing and time nothing; each may take this long.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        lines = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        hook = _Hook(os.path.realpath(folder), touched)
        for name in (*names, "scratch"):
            os.makedirs(Path(folder, name), exist_ok=True)
        # torch unpacks its first layout, a tar, into a temporary folder.
        tempfile.tempdir = str(Path(folder, "scratch"))
        sys.addaudithook(hook)
        for name in names:
            os.chdir(Path(folder, name))
            touched.clear()
            hook.writes_to = next((place for prefix, place in _UNPACKS.items() if name.startswith(prefix)), "")
            signal.alarm(SECONDS)
            said = _load_one(name, str(path), touched)
            os.write(lines, json.dumps(said).encode() + b"\n")
    finally:
        os._exit(0)


def _load_one(name: str, path: str, touched: list[str]) -> dict[str, object]:
    before = set(sys.modules)
    loaded = exhausted = False
    try:
        LOADERS[name](path)
        loaded = True
    except MemoryError:
        exhausted = True
    except BaseException:  # noqa: BLE001 - a hostile file may raise anything
        pass
    imported = sorted({module.partition(".")[0] for module in set(sys.modules) - before} - OWN)
    return {"touched": touched[:8], "imported": imported, "loaded": loaded, "exhausted": exhausted}


class _Hook:
    """Records and refuses what a load does beyond reading its file: only what unpacks may write, in its own folder."""

    def __init__(self, folder: str, touched: list[str]) -> None:
        self.folder, self.touched, self.writes_to = folder, touched, ""

    def __call__(self, event: str, values: tuple[object, ...]) -> None:
        if event in _STARTS or event in _REACHES or (self._changes(event, values) and not self._is_inside(values[0])):
            self.touched.append(event)
            raise PermissionError(event)

    def _changes(self, event: str, values: tuple[object, ...]) -> bool:
        if event == "open":
            flags = values[2]
            return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return event in _CHANGES

    def _is_inside(self, path: object) -> bool:
        if not self.writes_to or not isinstance(path, str | bytes):
            return isinstance(path, int)
        allowed = os.path.join(self.folder, self.writes_to)
        return f"{os.path.realpath(os.fsdecode(path))}/".startswith(f"{allowed}/")
