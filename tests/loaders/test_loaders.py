"""Scanner and loaders must agree: what a load does is never clean, what only loads is never hostile.

`make loaders` runs all of it, POLICYGUARD_LOADERS=N with N changed files (default 3,000). The suite runs the changed
files through the scanner alone.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource
from tests.attacks.test_pickle_readers import LYING
from tests.loaders.corpus import ALL, FILES
from tests.loaders.mutate import mutated

COUNT = int(os.environ.get("POLICYGUARD_LOADERS") or 0)


def scanned(data: bytes) -> Verdict:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings.verdict


def check(data: bytes, name: str) -> None:
    """Give a file that the scan calls clean to each loader."""
    sandbox = pytest.importorskip("tests.loaders.sandbox")
    if scanned(data) is not Verdict.CLEAN:
        return
    for loader, done in sandbox.load_by(sandbox.LOADERS, data).items():
        harm = done.touched or done.crashed or done.exhausted
        assert not harm, (name, loader, done)


@pytest.mark.skipif(not COUNT, reason="`make loaders` gives hostile files to real loaders")
@pytest.mark.parametrize("name", ALL)
def test_what_a_loader_does_is_never_called_clean(name: str) -> None:
    """Whatever touches the canary, crashes or exhausts its loader."""
    check(ALL[name], name)


@pytest.mark.skipif(not COUNT, reason="`make loaders` gives hostile files to real loaders")
def test_the_sandbox_sees_what_a_load_does() -> None:
    """The canary of this harness: a program that is started, and a crash, are seen and go no further."""
    sandbox = pytest.importorskip("tests.loaders.sandbox")
    assert sandbox.load("pickle.load", b"cos\nsystem\n(S'true'\ntR.").touched == ("os.system",)
    assert sandbox.load("pickle.load", LYING["more objects than the list has"]).loaded in (True, False)
    assert sandbox.load("pickle.load", b"I1\n.").loaded


@pytest.mark.skipif(not COUNT, reason="`make loaders` gives hostile files to real loaders")
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("benign/", "harmless/"))])
def test_what_only_loads_is_never_called_hostile(name: str) -> None:
    """A file that some loader reads, without a package of others, accuses nobody."""
    sandbox = pytest.importorskip("tests.loaders.sandbox")
    loads = sandbox.load_by(sandbox.LOADERS, FILES[name]).values()
    if any(load.loaded and not load.touched and not load.imported for load in loads):
        assert scanned(FILES[name]) is not Verdict.HOSTILE


@pytest.mark.skipif(not COUNT, reason="`make loaders` gives changed files to real loaders")
def test_changed_files_are_judged_as_they_load() -> None:
    """Changed at random; those that are still clean are loaded."""
    rng, sources = random.Random(os.environ.get("POLICYGUARD_SEED", "1")), [data for data in ALL.values() if data]
    for index in range(COUNT):
        data = mutated(rng.choice(sources), sources, rng)
        try:
            check(data, "")
        except AssertionError:
            Path(f"disagreement-{index}.bin").write_bytes(data)
            raise


def test_changed_files_raise_nothing_and_take_no_time() -> None:
    """INVARIANT I18: whatever the bytes, the answer is a verdict, and soon."""
    rng, sources = random.Random("suite"), [data for data in ALL.values() if 0 < len(data) < 20_000]
    for _ in range(1_500):
        data = mutated(rng.choice(sources), sources, rng)
        began = time.process_time()
        assert scanned(data) in Verdict
        assert time.process_time() - began < 5, data[:200]
