"""Fuzz target: bytes to code. Run `python tests/fuzz/fuzz_marshalled.py [CORPUS] [libFuzzer options]`.

Nothing but `Malformed` may come out, and no more objects than there are bytes.
A finding becomes a case of the unit tests before it is fixed.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["policyguard.environment.marshal_reader"]):
    from policyguard.environment.marshal_reader import MAX_DEPTH, Malformed, Numbers, read


def one_input(data: bytes) -> None:
    """Read one input as byte code behind its header."""
    numbers: Numbers = {}
    try:
        read(data, numbers)
    except Malformed as problem:
        one_line(str(problem))
    assert len(numbers) <= len(data)


def one_line(message: str) -> None:
    assert "\n" not in message, repr(message)


if __name__ == "__main__":
    sys.setrecursionlimit(1_000 + 10 * MAX_DEPTH)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
