"""The decoder meets hostile bytes: mutations of real expressions, noise, and a short run of the fuzzer."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from cel_expr_python import cel
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.conditions.canonical import from_canonical
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.decoding import decode
from policyguard.conditions.exact import evaluate
from policyguard.conditions.problems import ProfileError
from policyguard.model.expression import walk

ROOT = Path(__file__).parents[2]
FINDINGS = Path(__file__).parents[1] / "data" / "cel" / "findings"

SEEDS = [
    "resource_gpus <= 64 && action == 'job:submit'",
    "[1, 2].exists(x, x > 1) || [1].all(x, x == 1) || [1].exists_one(x, x == 1)",
    "[1, 2].map(x, x > 1, x + 1) == [3] && [1].filter(x, true) == []",
    "{'a': {'b': 1}}['a'].b == 1 ? now < timestamp('2026-01-01T00:00:00Z') : !has({'a': 1}.b)",
    "now.getHours('+02:00') > 1 && 'a'.matches('b') && now - now < duration('1h') && 7 / 2 % 3 == -1",
]
ENVIRONMENT = cel.NewEnv(
    variables={"resource_gpus": cel.Type.INT, "action": cel.Type.STRING, "now": cel.Type.TIMESTAMP}
)
NAMES = frozenset({"resource_gpus", "action", "now"})


def serialized() -> list[bytes]:
    return [ENVIRONMENT.compile(text).serialize() for text in SEEDS]


def survives(data: bytes) -> None:
    """INVARIANT I6: bytes either decode to nodes that evaluate, or raise `ProfileError`, nothing else."""
    try:
        expression = decode(data, NAMES)
    except ProfileError:
        return
    evaluate(expression, {}, {}, {}, "job:submit", 0)
    compile_shape(expression, ("resource_gpus", "action", "now"))


def test_mutated_expressions_decode_or_raise_profile_errors() -> None:
    """Flipped, cut, doubled and spliced bytes of real expressions: INVARIANT I6."""
    source = random.Random(20260301)
    seeds = serialized()
    for _ in range(3000):
        data = bytearray(source.choice(seeds))
        for _ in range(source.randint(1, 4)):
            place = source.randrange(len(data))
            choice = source.randrange(4)
            if choice == 0:
                data[place] = source.randrange(256)
            elif choice == 1:
                del data[place : place + source.randrange(1, 9)]
            elif choice == 2:
                data[place:place] = data[place : place + source.randrange(1, 40)]
            else:
                other = source.choice(seeds)
                data[place : place + 8] = other[place : place + 8]
            if not data:
                break
        survives(bytes(data))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    """No random bytes are an expression: INVARIANT I6."""
    with pytest.raises(ProfileError):
        decode(data)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["c", "f", "q", "s"]),
        lambda inner: st.lists(inner, max_size=6),
        max_leaves=20,
    )
)
def test_noise_is_no_canonical_form(data: object) -> None:
    """Whatever JSON a snapshot holds in place of an expression ends in `ProfileError` or in nodes."""
    for form in (data, [1, data]):
        try:
            list(walk(from_canonical(form)))
        except ProfileError:
            pass


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    size, length = bytearray(), len(data)
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + data


def enclosed(expression: bytes, kind: bytes = b"\x18\x01", more: bytes = b"") -> bytes:
    """The checker's envelope around an expression; its nodes have the id 1, which has the type list of `kind`."""
    checked = field(3, b"\x08\x01" + field(2, field(6, field(1, kind)))) + field(4, expression) + more
    return field(1, b"type.googleapis.com/cel.expr.CheckedExpr") + field(2, checked)


def nested(levels: int) -> bytes:
    """An expression of nested lists, written by hand: no checker would let it through."""
    expression = b"\x10\x01" + field(3, b"\x10\x01")
    for _ in range(levels):
        expression = b"\x10\x01" + field(7, field(1, expression))
    return enclosed(expression)


TRUE = b"\x10\x01" + field(3, b"\x10\x01")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(enclosed(b"\x10\x01" + field(7, field(1, TRUE) + field(9, b"x"))), id="in a list"),
        pytest.param(enclosed(TRUE, more=field(9, b"x")), id="in the checked expression"),
        pytest.param(enclosed(TRUE) + field(3, b"x"), id="in the envelope"),
        pytest.param(enclosed(b"\x10\x01" + field(7, field(1, TRUE)), b"\x18\x01" + field(9, b"x")), id="in a type"),
    ],
)
def test_unknown_fields_are_refused(data: bytes) -> None:
    """A later CEL may give a new field a meaning; a parser that drops it would change what the condition means."""
    assert decode(enclosed(b"\x10\x01" + field(7, field(1, TRUE)))).type == "list(bool)"
    with pytest.raises(ProfileError, match=r"unknown field|more than one kind"):
        decode(data)


def test_depth_is_limited_before_the_interpreter_is() -> None:
    """10,000 nested lists end in an error of one line; 20 are fine."""
    assert decode(nested(20)).type == "list(bool)"
    with pytest.raises(ProfileError, match="nested too deeply"):
        decode(nested(10_000))


def test_size_is_limited_before_anything_is_read() -> None:
    """More than a MiB is refused by its length."""
    with pytest.raises(ProfileError, match="expected at most 1048576"):
        decode(b"\x00" * 1_048_577)


@pytest.mark.parametrize("path", sorted(FINDINGS.glob("*.bin")), ids=lambda path: path.stem)
def test_what_fuzzers_found_stays_fixed(path: Path) -> None:
    """Each file once broke the decoder."""
    survives(path.read_bytes())
    try:
        decode(path.read_bytes())
    except ProfileError:
        pass


def test_the_fuzzer_runs_briefly_without_a_finding(tmp_path: Path) -> None:
    """Some thousand coverage-guided executions from the seeds."""
    pytest.importorskip("atheris")
    for index, data in enumerate(serialized()):
        (tmp_path / f"seed{index}").write_bytes(data)
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.fuzz_cel_decoder", "-runs=4000", "-max_len=2000", "-seed=1", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
