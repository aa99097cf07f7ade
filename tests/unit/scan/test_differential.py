"""The abstract machine against the interpreter's own reader, pickletools, and picklescan where it is installed."""

from __future__ import annotations

import io
import pickle
import pickletools
import random
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Findings, Limits, Verdict
from policyguard.scan.pickles.machine import Broken, Machine
from policyguard.scan.source import BytesSource, Cursor, Truncated
from tests.attacks.checkpoint_lab import CERTAIN, EVIL, GOOD, HOSTILE

FILES = Path(__file__).parents[2] / "data" / "scan"
SEEDS = [
    *(HOSTILE[name]() for name in sorted(CERTAIN)),
    EVIL,
    GOOD,
    *(
        pickle.dumps(value, protocol)
        for value in ({"a": [1, "x", {2}]}, random.getstate(), [print, len])
        for protocol in range(6)
    ),
    *(path.read_bytes() for path in sorted((FILES / "benign").glob("*.pkl"))),
]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.sets(st.integers())
    ),
    max_leaves=20,
)
LIMITS = Limits(time_s=5, decompressed_bytes=2**24, free_ratio_bytes=2**24)


class _Asked(Exception):
    pass


class _Recorder(pickle._Unpickler):
    """The interpreter's reader, stopped at the first import: nothing is ever imported or called."""

    asked: str | None = None

    def find_class(self, module: str, name: str) -> NoReturn:
        self.asked = f"{module}.{name}"
        raise _Asked

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Asked


def first_import(data: bytes) -> str | None:
    reader = _Recorder(io.BytesIO(data))
    try:
        reader.load()
    except Exception:  # noqa: BLE001 - a broken pickle raises anything
        pass
    return reader.asked


def read(data: bytes) -> Findings:
    findings = Findings(limits=LIMITS)
    try:
        Machine(Cursor(BytesSource(data)), findings).run()
    except (Broken, Truncated):
        findings.add("ckpt.pickle_broken")
    return findings


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        edit = draw(st.sampled_from(["set", "cut", "insert"]))
        if edit == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif edit == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_what_the_interpreter_would_import_is_reported(data: bytes) -> None:
    """INVARIANT I18: the first import of the real reader, on any bytes, is among those we name."""
    asked = first_import(data)
    if asked is not None and asked.isascii() and asked.isprintable():
        findings = read(data)
        assert asked.replace("\\", "\\\\") in findings.globals or findings.verdict is Verdict.HOSTILE


@settings(max_examples=300, deadline=None)
@given(mutated() | st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    """INVARIANT I18: whatever the bytes, the answer is a verdict."""
    findings = Findings(limits=LIMITS)
    assert scan_content(BytesSource(data), findings)
    assert findings.verdict in Verdict


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(0, 5))
def test_plain_data_is_clean(value: object, protocol: int) -> None:
    """Data that imports nothing is never accused, in any protocol."""
    findings = read(pickle.dumps(value, protocol))
    assert findings.verdict is Verdict.CLEAN or findings.globals


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_imports_agree_with_pickletools(seed: int) -> None:
    """On well-formed pickles both name the same GLOBAL and INST imports."""
    expected = {
        str(argument).replace(" ", ".")
        for opcode, argument, _ in pickletools.genops(SEEDS[seed])
        if opcode.name in ("GLOBAL", "INST")
    }
    assert expected <= read(SEEDS[seed]).globals


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_second_opinion_never_finds_more(name: str, tmp_path: Path) -> None:
    """What picklescan calls dangerous or suspicious is never clean here."""
    scanner = pytest.importorskip("picklescan.scanner")
    path = tmp_path / "model.bin"
    path.write_bytes(HOSTILE[name]())
    try:
        result = scanner.scan_file_path(str(path))
    except Exception:  # noqa: BLE001 - it raises on damaged archives
        return
    if result.issues_count or any(str(found.safety) != "SafetyLevel.Innocuous" for found in result.globals):
        assert scan_file(path).verdict is not Verdict.CLEAN
