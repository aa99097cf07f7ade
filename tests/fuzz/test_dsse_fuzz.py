"""The fuzz target of envelopes and signed decisions runs for a few seconds in the suite; longer runs are by hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attest_lab import SIGNER, Lab, payload_of

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed for this Python")
def test_a_short_fuzz_of_the_parsers_finds_nothing(tmp_path: Path) -> None:
    """Coverage-guided inputs, begun from good ones, raise nothing but our errors, each in one line."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    signed = Lab().issue()
    notes = json.loads((TESTS / "data/c2sp/notes.json").read_text())
    seeds = (
        signed.to_json(),
        signed.envelope.to_bytes(),
        payload_of(),
        signed.receipt.checkpoint,
        SIGNER.to_pem(),
        SIGNER.public.to_pem(),
        SIGNER.public.text.encode(),
        notes["keys"]["peter"].encode(),
    )
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    bounds = ("-runs=12000", "-seed=1", "-max_len=4096")
    command = [sys.executable, str(TESTS / "fuzz" / "fuzz_dsse.py"), str(corpus), *bounds]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Done" in run.stderr or "DONE" in run.stderr
