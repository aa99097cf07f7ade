"""Files that were once called wrongly: none that runs code is clean, none that a library wrote is hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.scan.files import scan_file
from policyguard.scan.findings import Verdict

FILES = Path(__file__).parents[1] / "data" / "scan" / "reported"
HARMLESS_AND_CLEAN = {"sk_objarray.joblib", "joblib_matrix.pkl", "joblib_matrix_py27.pkl.xz"}


@pytest.mark.parametrize("path", sorted((FILES / "hostile").iterdir()), ids=lambda path: path.name)
def test_no_reported_attack_is_clean(path: Path) -> None:
    """INVARIANT I18: each runs code, crashes its reader or leads outside; its loader is in the table of the README."""
    scan = scan_file(path)
    assert scan.verdict is not Verdict.CLEAN
    assert scan.reasons


@pytest.mark.parametrize("path", sorted((FILES / "harmless").iterdir()), ids=lambda path: path.name)
def test_no_reported_harmless_file_is_hostile(path: Path) -> None:
    """What is not understood is unknown; `hostile` accuses somebody, and needs a reason that holds."""
    expected = Verdict.CLEAN if path.name in HARMLESS_AND_CLEAN else Verdict.UNKNOWN
    assert scan_file(path).verdict is expected
