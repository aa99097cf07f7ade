"""How long measuring takes: an environment of 3,000 files cold and warm, its byte code, a checkpoint beyond its hash.

    python -m bench.measuring [FOLDER]

FOLDER lies on a disk with honest times; on tmpfs nothing is remembered. Best of three, except where a cache is filled.
"""

from __future__ import annotations

import hashlib
import os
import py_compile
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from policyguard.demo.incident.weights import tensor_pickle
from policyguard.environment.bytecode import check_bytecode
from policyguard.environment.cache import FileCache
from policyguard.environment.listing import list_files
from policyguard.environment.report import Baseline, verify_environment
from policyguard.fs.safe_open import version_of
from policyguard.scan.files import Options, scan_file

FILES, MEAN_BYTES, GIB = 3_000, 40_000, 1 << 30
MEAN_FUNCTIONS = 40
FUNCTION = """
def step{name}(weight, gradient, rate={number}, *, clip=None):
    '''Return the weight after one step.'''
    if clip is not None and abs(gradient) > clip:
        gradient = clip if gradient > 0 else -clip
    return [weight - rate * each for each in (gradient, {number})]
"""
SEAL = b"\7" * 32
QUIET_S = 6


def main() -> None:
    """Print every figure, one a line."""
    where = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        environment(folder)
        bytecode(folder)
        checkpoint(folder)


def environment(folder: Path) -> None:
    """Measure an environment against a plain hash of its files."""
    prefix, cache = folder / "env", str(folder / "env.cache")
    site = prefix / "lib" / "python3" / "site-packages"
    pick = random.Random(1)
    for number in range(FILES):
        path = site / f"package{number % 100}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pick.randbytes(int(pick.expovariate(1 / MEAN_BYTES)) + 1))
    baseline = Baseline(files=list_files(str(prefix)).files)
    time.sleep(QUIET_S)
    os.sync()
    plain, bare = best(lambda: hash_plainly(prefix)), best(lambda: hash_here(prefix.rglob("*")))
    cold = best(lambda: verify_environment(str(prefix), baseline))
    verify_environment(str(prefix), baseline, cache=FileCache(cache))
    warm = best(lambda: verify_environment(str(prefix), baseline, cache=FileCache(cache)))
    sealed = f"{cache}.sealed"
    verify_environment(str(prefix), baseline, cache=FileCache(sealed, SEAL))
    checked = best(lambda: verify_environment(str(prefix), baseline, cache=FileCache(sealed, SEAL)))
    report = verify_environment(str(prefix), baseline, cache=FileCache(sealed, SEAL))
    assert report.is_clean
    print(
        f"environment, {FILES} files: sha256sum {plain:.3f} s, hashlib {bare:.3f} s, cold {cold:.3f} s "
        f"({cold / bare:.2f} x hashlib), warm {warm:.3f} s, warm and sealed {checked:.3f} s "
        f"({report.read} files read)"
    )


def bytecode(folder: Path) -> None:
    """Measure an environment whose modules are compiled: byte code in the baseline, not in it, and remembered."""
    prefix, cache = folder / "compiled", str(folder / "compiled.cache")
    pick = random.Random(2)
    for number in range(FILES):
        path = prefix / f"package{number % 100}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        count = int(pick.expovariate(1 / MEAN_FUNCTIONS)) + 1
        path.write_text("".join(FUNCTION.format(name=name, number=pick.random()) for name in range(count)))
        py_compile.compile(str(path), doraise=True)
    listing = list_files(str(prefix))
    judged = check_bytecode(listing, {}, {})
    assert not judged.findings
    known = Baseline(files=listing.files, bytecode=judged.equal, version=2)
    unknown = Baseline(files=listing.files)
    time.sleep(QUIET_S)
    os.sync()
    bare = best(lambda: hash_here(prefix.rglob("*")))
    cold = best(lambda: verify_environment(str(prefix), known))
    compared = best(lambda: verify_environment(str(prefix), unknown))
    verify_environment(str(prefix), unknown, cache=FileCache(cache, SEAL))
    warm = best(lambda: verify_environment(str(prefix), unknown, cache=FileCache(cache, SEAL)))
    report = verify_environment(str(prefix), unknown, cache=FileCache(cache, SEAL))
    assert report.is_clean
    print(
        f"byte code of {FILES} modules: hashlib over all {bare:.3f} s, cold with the baseline's {cold:.3f} s "
        f"({cold / bare:.2f} x hashlib), each compared with its source {compared:.2f} s, "
        f"remembered {warm:.3f} s ({report.compared} compared)"
    )


def hash_plainly(prefix: Path) -> None:
    """Hash every file with coreutils."""
    names = [str(path) for path in prefix.rglob("*") if path.is_file()]
    subprocess.run(["sha256sum", "--zero", *names], stdout=subprocess.DEVNULL, check=True)


def hash_here(paths: Iterable[Path]) -> None:
    """Hash every file with hashlib, one after the other, and do nothing else."""
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")


def checkpoint(folder: Path) -> None:
    """Measure a torch checkpoint of 1 GiB: its hash alone, the whole scan, and the scan where the hash is known."""
    path = folder / "model.pt"
    count = GIB // 4
    _write_large(path, count)
    plain = best(lambda: subprocess.run(["sha256sum", str(path)], stdout=subprocess.DEVNULL, check=True))
    bare = best(lambda: hash_here([path]))
    whole = best(lambda: scan_file(path))
    scan = scan_file(path)
    assert scan.verdict == "clean", scan
    known = Options(digests={version_of(os.stat(path)): scan.sha256})
    beyond = best(lambda: scan_file(path, known))
    print(
        f"checkpoint, {os.path.getsize(path)} bytes: sha256sum {plain:.2f} s, hashlib {bare:.2f} s, "
        f"scan {whole:.2f} s ({whole / bare:.2f} x hashlib), beyond hashing {beyond * 1000:.1f} ms"
    )


def _write_large(path: Path, count: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), tensor_pickle(count))
        archive.writestr(zipfile.ZipInfo("archive/byteorder"), b"little")
        with archive.open(zipfile.ZipInfo("archive/data/0"), "w", force_zip64=True) as member:
            for _ in range(count * 4 // (1 << 20)):
                member.write(b"\0\1\2\3" * (1 << 18))
        archive.writestr(zipfile.ZipInfo("archive/version"), b"3\n")


def best(run: Callable[[], object]) -> float:
    """Return the shortest of three runs, in seconds."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    main()
