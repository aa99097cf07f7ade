"""The fresh process of `bench.memory`: load one compiled file, print what it costs as one JSON line.

python -m bench.resident FILE [trace]
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from pathlib import Path

from policyguard.attest.keys import PrivateKey
from policyguard.decide.snapshot import Snapshot
from policyguard.policy.bundle import open_sealed

SEED = bytes(range(32))


def resident_bytes() -> int:
    """Return this process's resident set (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status names no VmRSS")


def main(path: str, *, trace: bool) -> None:
    """Print what loading this compiled file costs: bytes resident, or bytes that Python allocated and still holds."""
    data = Path(path).read_bytes()
    key = PrivateKey.generate(SEED)
    gc.collect()
    if trace:
        tracemalloc.start()
    before = resident_bytes()
    snapshot = Snapshot.from_compiled(*open_sealed(data, [key.public]))
    snapshot.build_indexes()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] if trace else resident_bytes() - before
    sys.stdout.write(json.dumps({"bytes": held, "rules": len(snapshot.rules)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], trace="trace" in sys.argv[2:])
