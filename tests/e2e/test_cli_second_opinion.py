"""`policyguard scan --second-opinion`: picklescan beside us, on real files; it accuses and acquits nobody."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from policyguard.scan.files import Options, scan_file, scan_paths
from policyguard.scan.findings import Verdict
from policyguard.scan.picklescan import SecondOpinion
from tests.attacks.checkpoint_lab import EVIL, HOSTILE, calls, torch_zip, zipped
from tests.e2e.cli_lab import CliLab

FILES = Path(__file__).parents[1] / "data" / "scan" / "benign"
pytest.importorskip("picklescan", reason="needs the extra `scan`")


def test_a_clean_file_that_the_other_accuses_is_hostile(lab: CliLab) -> None:
    """An operator listed a function by mistake: we believe them, picklescan does not, and the code becomes 1."""
    lab.path("model.pkl").write_bytes(EVIL)
    words = ("scan", "model.pkl", "--class", "os.system")
    assert lab.here(*words).code == 0
    ended = lab.here(*words, "--second-opinion")
    assert (ended.code, ended.err) == (1, "")
    assert "HOSTILE  pickle       model.pkl" in ended.out
    assert (
        "ckpt.second_opinion  another scanner, asked as well, finds an import that can run code: picklescan: os.system"
        in ended.out
    )
    assert '"verdict": "hostile"' in lab.here(*words, "--second-opinion", "--json").out


@pytest.mark.parametrize("pack", [torch_zip, lambda data: zipped({"a.pkl": data})], ids=["a torch zip", "a zip"])
def test_it_gets_the_format_of_the_file(pack: object, tmp_path: Path) -> None:
    """It goes by suffix; under a name that says nothing, it still reads the layout that we found."""
    assert callable(pack)
    path = tmp_path / "weights"
    path.write_bytes(pack(calls("os", "system")))
    scan = scan_file(path, Options(extra_globals=frozenset({("os", "system")})))
    assert scan.verdict is Verdict.CLEAN
    assert SecondOpinion().on(scan).verdict is Verdict.HOSTILE


def test_benign_files_stay_clean(lab: CliLab) -> None:
    """What torch, numpy, joblib and safetensors wrote is accused by neither."""
    shutil.copytree(FILES, lab.path("benign"))
    ended = lab.here("scan", "benign", "--second-opinion")
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_it_acquits_nobody(name: str, tmp_path: Path) -> None:
    """What is not clean stays as it was, reasons and all."""
    path = tmp_path / "model.bin"
    path.write_bytes(HOSTILE[name]())
    (scan,) = scan_paths([path])
    assert SecondOpinion().on(scan) == scan


def test_it_is_asked_for_only_where_it_is_there(lab: CliLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra one line and code 78, before anything is scanned; a plain scan needs it not."""
    lab.path("a.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "picklescan", None)
    monkeypatch.setitem(sys.modules, "picklescan.scanner", None)
    ended = lab.here("scan", "a.json", "--second-opinion")
    assert (ended.code, ended.out) == (78, "")
    assert ended.complaint == "policyguard: a second opinion needs picklescan, which is not installed"
    assert lab.here("scan", "a.json").code == 0
