"""Two compilations of one source are read as equal, and nothing else is; hostile streams are refused."""

from __future__ import annotations

import marshal
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import CodeType

import pytest

from policyguard.environment import marshal_reader as marshalled
from policyguard.environment.marshal_reader import MAX_DEPTH, Malformed, Numbers, TooDeep, read

SOURCE = """
'''A module.'''
import os, sys
LIMIT = 10**30, -1.5, 2j, ..., b'bytes', "caf\\u00e9", "\\ud800"
def step(weight, gradient, *, rate=0.05):
    '''Learn.'''
    if weight in {"plain", "nesterov", 3, 4.0}:
        return [lambda x: x + each for each in range(300)]
    return weight - rate * gradient
class Optimizer:
    name = ("a b", ("a b", None, True), "step")
    async def run(self):
        try:
            yield self.name
        finally:
            print(f"{self!r:>{10}}")
"""


def compiled(source: str = SOURCE, file: str = "/a/optim.py", optimize: int = 0) -> bytes:
    code = compile(source, file, "exec", dont_inherit=True, optimize=optimize)
    return marshal.dumps(code)


def same(one: bytes, other: bytes) -> bool:
    numbers: Numbers = {}
    return read(one, numbers) == read(other, numbers)


def elsewhere(source: str, *options: str, seed: str = "7") -> bytes:
    """Compile in another process, with other hashes and another past."""
    program = (
        "import marshal, sys, json, decimal; text = sys.stdin.buffer.read(); "
        "sys.stdout.buffer.write(marshal.dumps(compile(text, '/b/o.py', 'exec')))"
    )
    words = [sys.executable, "-I", *options, "-c", program]
    return subprocess.run(
        words,
        input=source.encode("utf-8", "surrogatepass"),
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": seed},
    ).stdout


HONEST = {
    "compiled again": compiled(),
    "under another file name": compiled(file="/somewhere/else/optim.py"),
    "loaded and written again": marshal.dumps(marshal.loads(compiled())),
    "without references": marshal.dumps(marshal.loads(compiled()), 2),
    "in another process": elsewhere(SOURCE),
}


@pytest.mark.parametrize("other", HONEST.values(), ids=HONEST.keys())
def test_one_source_gives_one_code(other: bytes) -> None:
    """What is shared, interned, and in which order a set was written, makes no difference."""
    assert same(compiled(), other)


def test_the_standard_library_is_equal_to_itself() -> None:
    """Real code in both spellings, with references and without: no false alarm."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::6]
    assert len(files) > 20
    for file in files:
        code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
        assert same(marshal.dumps(code), marshal.dumps(code, 2)), file


EDITS = {
    "a constant": ("0.05", "0.06"),
    "a float for an integer": ("3, 4.0", "3, 4"),
    "True for one": ("None, True", "None, 1"),
    "minus nought": ("rate=0.05", "rate=-0.0"),
    "bytes for text": ("b'bytes'", "'bytes'"),
    "an operator": ("weight - rate", "weight + rate"),
    "names exchanged": ("rate * gradient", "gradient * rate"),
    "an attribute": ("self.name", "self.next"),
    "an element of a set": ('"plain", "nesterov"', '"plain", "Nesterov"'),
    "an argument": ("gradient, *, rate", "gradient, rate"),
    "a docstring": ("Learn.", "Unlearn."),
    "a line": ("'''Learn.'''", "'''Learn.'''\n"),
    "a lone surrogate": ("\\ud800", "\\ud801"),
    "a large number": ("10**30", "(10**30 + 1)"),
    "an assertion that never runs": ("return weight - rate", "assert rate\n    return weight - rate"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_any_edit_is_another_code(edit: tuple[str, str]) -> None:
    """One step away from the source."""
    assert edit[0] in SOURCE
    assert not same(compiled(), compiled(SOURCE.replace(*edit)))


@pytest.mark.parametrize("optimize", [1, 2])
def test_levels_of_optimisation_are_other_codes(optimize: int) -> None:
    """Byte code without assertions is not what its source gives at level 0."""
    assert not same(
        compiled("assert x\n'''doc'''\ndef f(): 'doc'"),
        compiled("assert x\n'''doc'''\ndef f(): 'doc'", optimize=optimize),
    )


def changed(code: CodeType, **fields: object) -> bytes:
    return marshal.dumps(code.replace(**fields))  # type: ignore[arg-type]


CODE = compile("def f(a, b):\n    return a - b\n", "/a/optim.py", "exec")
INNER = next(each for each in CODE.co_consts if isinstance(each, CodeType))


@pytest.mark.parametrize(
    "inner",
    [
        {"co_code": INNER.co_code.replace(bytes([10]), bytes([0]), 1)},
        {"co_varnames": ("b", "a")},
        {"co_flags": INNER.co_flags | 0x20},
        {"co_stacksize": INNER.co_stacksize + 1},
        {"co_name": "g"},
        {"co_qualname": "g"},
        {"co_firstlineno": 7},
        {"co_linetable": b""},
        {"co_exceptiontable": b"\0\0\0\0"},
        {"co_filename": "/tmp/evil.py"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_every_field_of_code_counts(inner: dict[str, object]) -> None:
    """INVARIANT I17: the file name of a part, too; the loader replaces it only where it is the module's."""
    consts = tuple(INNER.replace(**inner) if each is INNER else each for each in CODE.co_consts)
    tampered = changed(CODE, co_consts=consts)
    assert same(marshal.dumps(CODE), changed(CODE, co_consts=CODE.co_consts))
    if "co_filename" in inner:
        with pytest.raises(Malformed, match="several file names"):
            read(tampered, {})
    else:
        assert not same(marshal.dumps(CODE), tampered)


def wrapped(constants: bytes, count: int) -> bytes:
    """Return code whose constants are these `count` objects, as marshal writes it, without references."""
    plain = marshal.dumps(compile("", "f", "exec").replace(co_consts=(None,)), 2)
    hollow = b"(\x01\0\0\0N"
    assert plain.count(hollow) == 1
    return plain.replace(hollow, b"(" + count.to_bytes(4, "little") + constants)


def test_a_marked_singleton_does_not_shift_references() -> None:
    """INVARIANT I17: Python does not count a marked None as something to refer to; so it is refused, not counted."""
    good, evil = b"\xe9\x01\0\0\0", b"\xe9\x02\0\0\0"
    assert marshal.loads(b"(\x04\0\0\0\xce" + evil + good + b"r\x01\0\0\0") == (None, 2, 1, 1)
    with pytest.raises(Malformed, match="0x4e"):
        read(wrapped(b"\xce" + evil + good + b"r\x01\0\0\0", 4), {})
    assert same(wrapped(evil + good + b"r\x01\0\0\0", 3), wrapped(evil + good + good, 3))


def test_ascii_text_with_other_bytes_is_refused() -> None:
    """INVARIANT I5: Python reads these bytes as Latin-1; taken for UTF-8 they would be the same as another text."""
    assert marshal.loads(b"z\x02\xc3\xa9") == "\u00c3\u00a9"
    with pytest.raises(Malformed, match="ASCII"):
        read(wrapped(b"z\x02\xc3\xa9", 1), {})
    assert same(wrapped(b"z\x02ab", 1), wrapped(b"u\x02\0\0\0ab", 1))


HOSTILE = {
    "nothing": b"",
    "no code": b"N",
    "cut short": compiled()[:-1],
    "bytes left over": compiled() + b"N",
    "a type nobody writes": wrapped(b"?", 1),
    "a list": wrapped(b"[\0\0\0\0", 1),
    "a dictionary": wrapped(b"{0", 1),
    "an integer of 64 bits": wrapped(b"I" + bytes(8), 1),
    "a reference to nothing": wrapped(b"r\xff\0\0\0", 1),
    "a negative reference": wrapped(b"r\xff\xff\xff\xff", 1),
    "a tuple that holds itself": wrapped(b"\xa8\x01\0\0\0r\0\0\0\0", 1),
    "four milliards of elements": wrapped(b"(\xff\xff\xff\xff", 1),
    "a text of four gigabytes": wrapped(b"u\xff\xff\xff\xff", 1),
    "an integer of 2**31 digits": wrapped(b"l\0\0\0\x80", 1),
    "text for code": b"z\x01a",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_no_compiler_writes_is_refused(data: bytes) -> None:
    """In one line, and having allocated no more than there are bytes."""
    with pytest.raises(Malformed) as refused:
        read(data, {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", range(0, len(compiled()), 7))
def test_truncated_anywhere_it_is_refused(size: int) -> None:
    """Never taken for the whole."""
    with pytest.raises(Malformed):
        read(compiled()[:size], {})


def test_nesting_ends_where_python_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand levels are Python's own limit; one less is read."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        with pytest.raises(TooDeep):
            read(wrapped(b")\x01" * 100_000 + b"N", 1), {})
        assert read(wrapped(b")\x01" * (MAX_DEPTH - 10) + b"N", 1), {}) > 0
    finally:
        sys.setrecursionlimit(before)


def test_shared_doubling_costs_no_more_than_its_bytes() -> None:
    """A hundred pairs, each of the one before twice: 2**100 elements if one copied them."""
    pairs = b"\xa9\x02NN" + b"".join(
        b"\xa9\x02r" + n.to_bytes(4, "little") + b"r" + n.to_bytes(4, "little") for n in range(100)
    )
    numbers: Numbers = {}
    read(wrapped(pairs, 101), numbers)
    assert len(numbers) < 150


def test_nobody_here_loads_byte_code() -> None:
    """INVARIANT I16: `marshal.loads` of hostile bytes can end the interpreter; no line of the package calls it."""
    package = Path(marshalled.__file__).parents[1]
    lines = [line for file in package.rglob("*.py") for line in file.read_text().splitlines()]
    assert len(lines) > 10_000
    assert [line for line in lines if "marshal.load" in line or "import loads" in line] == []
