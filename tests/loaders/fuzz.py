"""Changes fixtures for minutes or hours, and gives each to the real loaders: `make fuzz MINUTES=60`.

    python -m tests.loaders.fuzz --minutes 60 --seed 1 --folder /tmp/disagreements

Kept are files that the scan calls clean although a load did more than load, and files that it calls hostile although
every load was quiet. The first kind is a fault. The second is one unless the reason holds for another reader.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource
from tests.loaders.corpus import ALL
from tests.loaders.mutate import mutated
from tests.loaders.sandbox import LOADERS, load_by

_SLOW_S = 5.0
_PICKLES = ("pickle.load", "pickle, packed", "pickle, in a zip", "joblib.load", "torch.load", "torch.load, mapped")
_READERS = {
    "ckpt.pickle_": _PICKLES,
    "ckpt.numpy_": (*_PICKLES, "numpy.load"),
    "ckpt.yaml_": ("yaml.unsafe_load",),
    "ckpt.target_": ("hydra", "jsonpickle"),
    "ckpt.template_": ("jinja2",),
    "ckpt.skops_": ("skops",),
}
"""Who would have to do harm for a hostile reason to be right. Reasons about two readers of one file are not here."""
_KEPT_OF_A_KIND = 3


def main() -> int:
    """Run until the time is up; return 1 if a file that is called clean did more than load."""
    options = _options()
    rng = random.Random(options.seed)
    sources = [data for data in ALL.values() if data]
    end, began = time.monotonic() + 60 * options.minutes, time.monotonic()
    counts, kinds = Counter[str](), Counter[str]()
    options.folder.mkdir(parents=True, exist_ok=True)
    while time.monotonic() < end:
        data = mutated(rng.choice(sources), sources, rng)
        counts["files"] += 1
        for kind in _disagreements(data, counts):
            kinds[kind] += 1
            if kinds[kind] <= _KEPT_OF_A_KIND:
                name = "".join(char if char.isalnum() or char in "-_." else "_" for char in kind)[:120]
                (options.folder / f"{name}-{kinds[kind]}.bin").write_bytes(data)
        if counts["files"] % 500 == 0:
            _report(counts, kinds, began)
    _report(counts, kinds, began)
    return int(any(kind.startswith(("clean", "slow", "raised")) for kind in kinds))


def _disagreements(data: bytes, counts: Counter[str]) -> list[str]:
    findings, start = Findings(), time.process_time()
    try:
        scan_content(BytesSource(data), findings)
    except Exception as problem:  # noqa: BLE001 - the scan promises to raise nothing
        return [f"raised-{type(problem).__name__}"]
    slow = ["slow"] if time.process_time() - start > _SLOW_S else []
    verdict = findings.verdict
    counts[verdict] += 1
    if verdict is Verdict.UNKNOWN:
        return slow
    codes = sorted({one.code for one in findings.reasons if one.verdict is Verdict.HOSTILE})
    readers = {
        name for code in codes for prefix, names in _READERS.items() if code.startswith(prefix) for name in names
    }
    loads = load_by(LOADERS if verdict is Verdict.CLEAN else readers & LOADERS.keys(), data)
    counts["loaded"] += any(load.loaded for load in loads.values())
    if verdict is Verdict.CLEAN:
        return slow + [
            f"clean-{loader}-{'-'.join(load.touched) or ('crashed' if load.crashed else 'exhausted')}"
            for loader, load in loads.items()
            if load.touched or load.crashed or load.exhausted
        ]
    is_quiet = not any(load.touched or load.crashed or load.exhausted or load.imported for load in loads.values())
    loaded = sorted(name for name, load in loads.items() if load.loaded)
    if is_quiet and loaded and all(code.startswith(tuple(_READERS)) for code in codes):
        return [*slow, f"hostile-{'+'.join(codes)}-{'+'.join(loaded)}"]
    return slow


def _report(counts: Counter[str], kinds: Counter[str], began: float) -> None:
    minutes = (time.monotonic() - began) / 60
    print(f"{minutes:.1f} min", dict(counts), flush=True)
    for kind, count in kinds.most_common(60):
        print(f"    {count:6} {kind}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--folder", type=Path, default=Path("disagreements"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
