"""The YAML fuzz target runs for a few seconds in the suite; longer runs are made by hand."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed for this Python")
def test_a_short_fuzz_of_the_reader_finds_nothing(tmp_path: Path) -> None:
    """Coverage-guided inputs, begun from the test policies, raise nothing but collected errors."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in (TESTS / "data" / "policy").rglob("*.yaml"):
        shutil.copy(path, corpus / f"{path.parent.name}-{path.name}")
    bounds = ("-runs=12000", "-seed=1", "-max_len=2048")
    command = [sys.executable, str(TESTS / "fuzz" / "fuzz_yaml.py"), str(corpus), *bounds]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "DONE" in run.stderr or "Done" in run.stderr
