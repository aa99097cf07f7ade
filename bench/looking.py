"""How long looking takes: an environment of 3,000 files cold and warm, and a checkpoint of 1 GiB beyond its hash.

    python -m bench.looking [FOLDER]

FOLDER lies on a disk with honest times; on tmpfs nothing is remembered. Best of three, except where a cache is filled.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from policyguard.cli.incident.weights import tensor_pickle
from policyguard.evidence.checkpoint_digest import key_of
from policyguard.evidence.checkpoint_scan import Options, scan_file
from policyguard.evidence.environment import Baseline, verify_environment
from policyguard.evidence.environment_files import list_files

FILES, MEAN_BYTES, GIB = 3_000, 40_000, 1 << 30
QUIET_S = 6


def main() -> None:
    """Print every figure, one a line."""
    where = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=where) as name:
        folder = Path(name)
        environment(folder)
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
    verify_environment(str(prefix), baseline, cache=cache)
    warm = best(lambda: verify_environment(str(prefix), baseline, cache=cache))
    report = verify_environment(str(prefix), baseline, cache=cache)
    assert report.is_clean
    print(f"environment, {FILES} files: sha256sum {plain:.3f} s, hashlib {bare:.3f} s, cold {cold:.3f} s "
          f"({cold / bare:.2f} x hashlib), warm {warm:.3f} s ({report.read} files read)")  # fmt: skip


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
    known = Options(digests={key_of(os.stat(path)): scan.sha256})
    beyond = best(lambda: scan_file(path, known))
    print(f"checkpoint, {os.path.getsize(path)} bytes: sha256sum {plain:.2f} s, hashlib {bare:.2f} s, "
          f"scan {whole:.2f} s ({whole / bare:.2f} x hashlib), beyond hashing {beyond * 1000:.1f} ms")  # fmt: skip


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
