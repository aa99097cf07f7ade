"""Coverage-guided fuzzing of the decoder: `python -m tests.fuzz.fuzz_cel_decoder -runs=100000 CORPUS`.

What it looks for: anything but `ProfileError` out of `decode`, and decoded trees that the rest cannot stand.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["policyguard.conditions"]):
    from policyguard.conditions.ast import filled, paths_read, shape
    from policyguard.conditions.canonical import canonical_form, from_canonical
    from policyguard.conditions.codegen import compile_shape
    from policyguard.conditions.decoding import decode
    from policyguard.conditions.exact import evaluate
    from policyguard.conditions.problems import ProfileError


def judge(data: bytes) -> None:
    """Raise on a finding."""
    try:
        expression = decode(data)
    except ProfileError:
        return
    assert from_canonical(canonical_form(expression)) == expression
    pattern, constants = shape(expression)
    assert filled(pattern, constants) == expression
    paths_read(expression)
    exact = evaluate(expression, {}, {"gpus": 1}, {}, "job:submit", 0)
    run = compile_shape(pattern)
    with suppress(Exception):
        fast = run({}, {"gpus": 1}, {}, "job:submit", 0, constants)
        assert fast is exact or not isinstance(fast, bool)


if __name__ == "__main__":
    atheris.Setup(sys.argv, judge)
    atheris.Fuzz()
