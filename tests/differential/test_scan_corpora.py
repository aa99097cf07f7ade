"""The samples of other scanners' projects: what they say of them, what we say, and why wherever that differs.

The samples are not kept here, only what they are called; `tests/data/corpora/README.md` says where they come from. With
POLICYGUARD_CORPORA naming a folder that has them, every one is scanned again.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file, scan_paths
from policyguard.scan.findings import REASONS, Findings, Verdict
from policyguard.scan.pickles.allowlist import judged
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import HOSTILE, calls, calls_stacked

TABLES = Path(__file__).parents[1] / "data" / "corpora"
ROWS: dict[str, list[dict[str, Any]]] = {
    path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in sorted(TABLES.glob("*.jsonl"))
}
ALL = [row for rows in ROWS.values() for row in rows]

# project: {(what it says, what we say): how many}
COUNTS = {
    "fickling": {
        ("benign", "clean"): 42,
        ("benign", "unknown"): 6,
        ("benign", "hostile"): 6,
        ("hostile", "clean"): 6,
        ("hostile", "unknown"): 19,
        ("hostile", "hostile"): 75,
        ("other", "clean"): 6,
        ("other", "unknown"): 20,
        ("other", "hostile"): 10,
    },
    "modelaudit": {
        ("benign", "clean"): 36,
        ("benign", "unknown"): 2,
        ("hostile", "clean"): 9,
        ("hostile", "unknown"): 1,
        ("hostile", "hostile"): 58,
        ("other", "clean"): 5,
        ("other", "unknown"): 1,
    },
    "modelscan": {
        ("benign", "clean"): 7,
        ("benign", "unknown"): 3,
        ("benign", "hostile"): 1,
        ("hostile", "unknown"): 2,
        ("hostile", "hostile"): 26,
        ("other", "unknown"): 2,
    },
    "pickle_injector": {("hostile", "unknown"): 3},
    "picklescan": {("benign", "clean"): 11, ("hostile", "hostile"): 94, ("other", "unknown"): 3},
}


def scanned(data: bytes) -> Verdict:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings.verdict


@pytest.mark.parametrize("project", ROWS)
def test_the_table_is_whole(project: str) -> None:
    """As many samples of each kind as were recorded, each once, each verdict the worst of its reasons."""
    found = collections.Counter((row["says"], row["verdict"]) for row in ROWS[project])
    assert found == COUNTS[project]
    assert len({row["sha256"] for row in ROWS[project]}) == len(ROWS[project])
    for row in ROWS[project]:
        worst = max((REASONS[code][0] for code in row["reasons"]), key=list(Verdict).index, default=Verdict.CLEAN)
        assert row["verdict"] == worst, row["name"]


@pytest.mark.parametrize("project", ROWS)
def test_every_disagreement_is_explained(project: str) -> None:
    """What they call hostile is not clean here, what they call benign not hostile, or its line says why."""
    for row in ROWS[project]:
        differs = (row["says"], row["verdict"]) in (("hostile", "clean"), ("benign", "hostile"))
        assert differs == ("why" in row), row["name"]
        # Whatever they call it, a clean pickle imports names of the list and nothing else.
        assert row["verdict"] != "clean" or all(imports(name) is Verdict.CLEAN for name in row["globals"]), row["name"]


def imports(name: str) -> Verdict:
    """Return what the list says of this name."""
    module, _, attribute = name.rpartition(".")
    return judged(module, attribute)


NAMED = sorted({name for row in ALL for name in row["globals"] if name.isascii() and name.isprintable()})


@pytest.mark.parametrize("name", [name for name in NAMED if "." in name.strip(".") and "\\" not in name])
def test_what_their_samples_import_is_judged_by_every_opcode(name: str) -> None:
    """A pickle of our own that calls the same name: by GLOBAL, STACK_GLOBAL and INST alike."""
    module, _, attribute = name.rpartition(".")
    found = {
        scanned(calls(module, attribute)),
        scanned(calls_stacked(module, attribute)),
        scanned(f"(Vx\ni{module}\n{attribute}\n.".encode()),
    }
    unlisted = imports(name) is not Verdict.CLEAN
    assert (Verdict.CLEAN in found) <= (not unlisted)
    assert not unlisted or len(found) == 1


def test_a_sample_that_only_imports_is_hostile_by_one_of_its_imports() -> None:
    """Where the import is the whole reason, a pickle of ours with that import alone is hostile too."""
    for row in ALL:
        if row["reasons"] == ["ckpt.pickle_global"] and row["format"] == "pickle":
            assert any(imports(name) is Verdict.HOSTILE for name in row["globals"]), row["name"]


def test_the_samples_themselves() -> None:
    """Each file below POLICYGUARD_CORPORA whose digest is in a table: the same verdict again."""
    if "POLICYGUARD_CORPORA" not in os.environ:
        pytest.skip("set POLICYGUARD_CORPORA to a folder with the samples; tests/data/corpora/README.md says which")
    known = {row["sha256"]: row for row in ALL}
    paths = {}
    for folder, _, names in os.walk(os.environ["POLICYGUARD_CORPORA"]):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**22:
                paths[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    met = known.keys() & paths.keys()
    for digest in met:
        row, scan = known[digest], scan_file(paths[digest])
        assert (scan.verdict, row["says"]) not in {("clean", "hostile"), ("hostile", "benign")} or "why" in row, row
        # What is only named today may be read tomorrow, under the two rules above.
        assert scan.verdict == row["verdict"] or "ckpt.format_opaque" in row["reasons"], row
    assert len(met) >= 100, f"{len(met)} of {len(known)} samples are there"


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_what_fickling_accuses_is_not_clean(name: str, tmp_path: Path) -> None:
    """Where fickling is installed: no sample of our lab that it calls unsafe is clean here."""
    analysis = pytest.importorskip("fickling.analysis")
    pickled = pytest.importorskip("fickling.fickle").Pickled
    data = HOSTILE[name]()
    try:
        severity = analysis.check_safety(pickled.load(data)).severity
    except Exception:  # noqa: BLE001 - it raises on what it cannot read
        return
    if severity > analysis.Severity.LIKELY_SAFE:
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        assert scan_file(path).verdict is not Verdict.CLEAN


def test_what_modelscan_accuses_is_not_clean(tmp_path: Path) -> None:
    """Where modelscan is installed: the same of our lab, all of it in one folder."""
    modelscan = pytest.importorskip("modelscan.modelscan")
    for number, name in enumerate(sorted(HOSTILE)):
        (tmp_path / f"{number}.pkl").write_bytes(HOSTILE[name]())
    issues = modelscan.ModelScan().scan(tmp_path)["issues"]
    accused = {Path(issue["source"].partition(":")[0]).name for issue in issues}
    assert accused
    clean = {Path(scan.path).name for scan in scan_paths([tmp_path]) if scan.verdict is Verdict.CLEAN}
    assert accused & clean == set()
