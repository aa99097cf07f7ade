"""Byte code, changed at random: the reader raises its own error or is right, and Python itself is the judge of that."""

from __future__ import annotations

import importlib.util
import marshal
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.environment.marshal_reader import Malformed, Numbers, read

TESTS = Path(__file__).parents[1]

SOURCE = """
A = ("x y", "x y\u00e9", b"raw", 1, 1.5, -0.0, 2j, 10**20, None, ...)
def step(weight, gradient, rate=0.05):
    return weight - rate * gradient if weight not in {"a", "b", 3} else (lambda self: self.step)
"""

JUDGE = """
import marshal, sys
from types import CodeType
def named(code):
    consts = tuple(named(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename="f", co_consts=consts)
def plain(data):
    return marshal.dumps(named(marshal.loads(data)), 2)
size, expected = int.from_bytes(sys.stdin.buffer.read(4), "little"), None
while size:
    found = plain(sys.stdin.buffer.read(size))
    expected = expected or found
    assert found == expected
    size = int.from_bytes(sys.stdin.buffer.read(4), "little")
print("equal")
"""


def compiled() -> bytes:
    code = compile(SOURCE, "/a/optim.py", "exec", dont_inherit=True)
    return marshal.dumps(code)


def mutated(data: bytes, pick: random.Random) -> bytes:
    """Return the bytes with one to three small changes, mostly to what says type, reference or length."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 3))):
        at = pick.randrange(len(changed))
        match pick.randrange(6):
            case 0:
                changed[at] ^= 0x80
            case 1:
                changed[at] = pick.choice(b"zZaAutsil()><rNTF.gyc")
            case 2:
                changed[at] = (changed[at] + pick.choice((-1, 1))) & 0xFF
            case 3:
                del changed[at : at + pick.randrange(1, 6)]
            case 4:
                changed[at:at] = pick.choice(
                    (b"N", b"r\0\0\0\0", b"\xce", b"\xe9\1\0\0\0", bytes([pick.randrange(256)]))
                )
            case _:
                other = pick.randrange(len(changed))
                changed[at : at + 4] = changed[other : other + 4]
    return bytes(changed)


def test_what_is_read_as_equal_is_equal_when_python_loads_it() -> None:
    """Twelve thousand changes with a fixed seed: no other error comes out, no changed code is taken for the same."""
    pick, original = random.Random(20261122), compiled()
    numbers: Numbers = {}
    expected, equal = read(original, numbers), []
    for _ in range(12_000):
        data = mutated(original, pick)
        try:
            if data != original and read(data, numbers) == expected:
                equal.append(data)
        except Malformed:
            continue
    assert len(equal) > 20
    question = b"".join(len(data).to_bytes(4, "little") + data for data in (original, *equal)) + bytes(4)
    told = subprocess.run([sys.executable, "-I", "-c", JUDGE], input=question, capture_output=True, check=False)
    assert told.stdout == b"equal\n", told.stderr.decode()[-2000:]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed for this Python")
def test_a_short_fuzz_of_the_reader_finds_nothing(tmp_path: Path) -> None:
    """Coverage-guided inputs, begun from real byte code, raise nothing but the reader's own error."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "compiled").write_bytes(compiled())
    (corpus / "plain").write_bytes(marshal.dumps(marshal.loads(compiled()), 2))
    bounds = ("-runs=8000", "-seed=1", "-max_len=4096")
    command = [sys.executable, str(TESTS / "fuzz" / "fuzz_marshalled.py"), str(corpus), *bounds]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Done" in run.stderr or "DONE" in run.stderr
