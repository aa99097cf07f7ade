"""Attempts to run code that nobody can read, as byte code beside a clean source; each is first shown to work."""

from __future__ import annotations

import dis
import importlib.util
import marshal
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.environment.bytecode import BytecodeReport, check_bytecode
from policyguard.environment.cache import FileCache
from policyguard.environment.compiler import Compiler
from policyguard.environment.compiler_worker import LOST
from policyguard.environment.listing import MAX_BYTECODE_BYTES, list_files
from policyguard.environment.marshal_reader import MAX_DEPTH
from policyguard.environment.report import (
    Baseline,
    EnvironmentReport,
    make_baseline,
    read_baseline,
    verify_environment,
)
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.environment_collector import ENVIRONMENT, EnvironmentCollector
from policyguard.model.request import Request
from tests.attacks.test_job_environment import age, install

KEY = PrivateKey.generate(b"\x33" * 32)
TAG = sys.implementation.cache_tag
MAGIC = importlib.util.MAGIC_NUMBER
SITE = f"lib/python3.{sys.version_info.minor}/site-packages"
CACHED = f"{SITE}/lab/__pycache__/optim.{TAG}.pyc"

SOURCE = '''\
"""Gradient descent."""


def step(weight, gradient, rate=0.05):
    assert rate
    return weight - rate * gradient
'''
EVIL = SOURCE.replace("weight - rate", "weight + rate")
GOOD_STEP, EVIL_STEP = "-0.05", "0.05"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment with one package, as it leaves the build: byte code written by Python itself."""
    made = tmp_path / "env"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    site = made / SITE
    site.mkdir(parents=True)
    (made / "lib" / "python3.11").mkdir(exist_ok=True)
    (site / "lab").mkdir()
    (site / "lab" / "__init__.py").write_text("")
    (site / "lab" / "optim.py").write_text(SOURCE)
    assert learn(made) == GOOD_STEP
    return made


@pytest.fixture
def baseline(prefix: Path) -> Baseline:
    return baseline_of(prefix)


def baseline_of(prefix: Path) -> Baseline:
    listing = list_files(str(prefix))
    return read_baseline(make_baseline(listing, [KEY], check_bytecode(listing, {}, {}).equal), [KEY.public])


def learn(prefix: Path, *options: str) -> str:
    """Import the package with a plain Python, as a job without a launcher does, and return what a step gives."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lab.optim import step; print(step(weight=0.0, gradient=1.0))"
    )
    words = [sys.executable, "-I", "-S", *options, "-c", program, str(prefix / SITE)]
    ended = subprocess.run(words, capture_output=True, text=True, env={}, check=False)
    return ended.stdout.strip() or ended.stderr.strip().splitlines()[-1]


def body(source: str, file: str = "/any/where.py", optimize: int = 0) -> bytes:
    code = compile(source, file, "exec", dont_inherit=True, optimize=optimize)
    return marshal.dumps(code)


def header_of(path: Path) -> bytes:
    return path.read_bytes()[:16]


def codes(report: EnvironmentReport | BytecodeReport) -> dict[str, str]:
    found = report.bytecode if isinstance(report, EnvironmentReport) else report.findings
    return {finding.name: finding.code for finding in found}


# ---- byte code unlike its source


def a_constant(path: Path) -> None:
    good, evil = marshal.dumps(0.05)[-8:], marshal.dumps(-0.05)[-8:]
    data = path.read_bytes()
    assert data.count(good) == 1
    path.write_bytes(data.replace(good, evil))


def other_source(path: Path) -> None:
    path.write_bytes(header_of(path) + body(EVIL, str(path.parents[1] / "optim.py")))


def rebuilt(path: Path, change: Callable[[CodeType], CodeType]) -> None:
    code = marshal.loads(path.read_bytes()[16:])
    consts = tuple(change(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    path.write_bytes(header_of(path) + marshal.dumps(code.replace(co_consts=consts)))


def operation(path: Path) -> None:
    """Swap the opcode argument of the subtraction (10) for that of the addition (0), in place."""
    rebuilt(
        path,
        lambda code: code.replace(co_code=code.co_code.replace(subtraction(code), bytes([*subtraction(code)[:1], 0]))),
    )


def subtraction(code: CodeType) -> bytes:
    found = next(each for each in dis.get_instructions(code) if each.opname == "BINARY_OP" and each.arg == 10)
    return bytes([found.opcode, 10])


def names_exchanged(path: Path) -> None:
    """`weight` and `gradient` change places."""
    rebuilt(path, lambda code: code.replace(co_varnames=("gradient", "weight", "rate")))


def unchecked_hash(path: Path) -> None:
    path.write_bytes(MAGIC + (1).to_bytes(4, "little") + bytes(8) + body(EVIL))


def checked_hash(path: Path) -> None:
    source = (path.parents[1] / "optim.py").read_bytes()
    path.write_bytes(MAGIC + (3).to_bytes(4, "little") + importlib.util.source_hash(source) + body(EVIL))


def flags_of_two(path: Path) -> None:
    """Python takes flag 2 without flag 1 for a time stamp."""
    path.write_bytes(MAGIC + (2).to_bytes(4, "little") + header_of(path)[8:] + body(EVIL))


def with_its_time(path: Path) -> None:
    """The file's own times as they were."""
    before = path.stat()
    other_source(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def latin(path: Path) -> None:
    """Code that another one refers to, hidden behind bytes left over."""
    path.write_bytes(header_of(path) + body(EVIL) + body(SOURCE))


TAMPERED = [
    a_constant,
    other_source,
    operation,
    unchecked_hash,
    checked_hash,
    flags_of_two,
    with_its_time,
]


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_byte_code_unlike_its_source_is_found(
    prefix: Path,
    baseline: Baseline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tamper: Callable[[Path], None],
) -> None:
    """It runs in place of the clean source; it is named, against the baseline with a warm cache and by its own word."""
    with monkeypatch.context() as patched:
        age(prefix, patched)
        assert verify_environment(str(prefix), baseline, cache=FileCache(str(tmp_path / "cache"))).is_clean
    tamper(prefix / CACHED)
    assert learn(prefix) == EVIL_STEP
    report = verify_environment(str(prefix), baseline, cache=FileCache(str(tmp_path / "cache")))
    assert codes(report) == {CACHED: "unlike"}
    assert not report.is_clean
    assert codes(verify_environment(str(prefix), None)) == {CACHED: "unlike"}


def test_names_exchanged_are_found(prefix: Path, baseline: Baseline) -> None:
    """Not a byte of the instructions differs."""
    names_exchanged(prefix / CACHED)
    assert learn(prefix) != GOOD_STEP
    assert codes(verify_environment(str(prefix), baseline)) == {CACHED: "unlike"}


def test_good_code_before_the_evil_one_does_not_hide_it(prefix: Path, baseline: Baseline) -> None:
    """Python stops at the end of the first code; whatever follows is refused, not skipped."""
    latin(prefix / CACHED)
    assert learn(prefix) == EVIL_STEP
    assert codes(verify_environment(str(prefix), baseline)) == {CACHED: "damaged"}


def test_a_part_under_another_file_name_is_found(prefix: Path, baseline: Baseline) -> None:
    """The same instructions, but tools that read source by file name (`torch.jit`) would read another text."""
    rebuilt(prefix / CACHED, lambda code: code.replace(co_filename="/tmp/evil.py"))
    assert codes(verify_environment(str(prefix), baseline)) == {CACHED: "damaged"}


@pytest.mark.parametrize(("option", "name"), [("-O", "opt-1"), ("-OO", "opt-2"), ("-OOO", "opt-3")])
def test_optimised_byte_code_is_compared_at_its_level(prefix: Path, baseline: Baseline, option: str, name: str) -> None:
    """Python writes it where jobs run with -O: clean. That of another level is not what the source gives."""
    assert learn(prefix, option) == GOOD_STEP
    path = prefix / SITE / "lab" / "__pycache__" / f"optim.{TAG}.{name}.pyc"
    assert path.exists()
    assert verify_environment(str(prefix), baseline).is_clean
    other_source(path)
    assert learn(prefix, option) == EVIL_STEP
    assert list(codes(verify_environment(str(prefix), baseline)).values()) == ["unlike"]


def test_assertions_cannot_be_dropped_by_moving_a_file(prefix: Path, baseline: Baseline) -> None:
    """Honest byte code of level 1 under the name of level 0 skips what the source checks."""
    (prefix / CACHED).write_bytes(header_of(prefix / CACHED) + body(SOURCE, optimize=1))
    assert codes(verify_environment(str(prefix), baseline)) == {CACHED: "unlike"}


# ---- what is honest


def written(prefix: Path, **how: Any) -> None:
    source = prefix / SITE / "lab" / "optim.py"
    py_compile.compile(str(source), doraise=True, **how)


def by_an_import(prefix: Path) -> None:
    (prefix / CACHED).unlink()
    learn(prefix)


def by_a_child(prefix: Path, *options: str) -> None:
    (prefix / CACHED).unlink()
    words = [sys.executable, "-I", *options, "-m", "compileall", "-q", "-f", str(prefix / SITE)]
    subprocess.run(words, check=True, env={})


HONEST: dict[str, Callable[[Path], object]] = {
    "time stamps": lambda prefix: written(prefix, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP),
    "checked hashes": lambda prefix: written(prefix, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH),
    "unchecked hashes": lambda prefix: written(prefix, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH),
    "level 1": lambda prefix: written(prefix, optimize=1),
    "level 2": lambda prefix: written(prefix, optimize=2),
    "another file name": lambda prefix: written(prefix, dfile="/build/root/lab/optim.py"),
    "a hash of another source": lambda prefix: (prefix / CACHED).write_bytes(
        MAGIC + (3).to_bytes(4, "little") + bytes(8) + body(SOURCE)
    ),
    "written when it was imported": by_an_import,
    "compileall": by_a_child,
    "a folder that is stripped": lambda prefix: by_a_child_stripped(prefix),
    "without columns": lambda prefix: by_a_child(prefix, "-X", "no_debug_ranges"),
    "without references": lambda prefix: (prefix / CACHED).write_bytes(
        header_of(prefix / CACHED) + marshal.dumps(marshal.loads(body(SOURCE)), 2)
    ),
    "none at all": lambda prefix: (prefix / CACHED).unlink(),
}


def by_a_child_stripped(prefix: Path) -> None:
    words = [sys.executable, "-I", "-m", "compileall", "-q", "-f", "-s", str(prefix), "-p", "/opt", str(prefix / SITE)]
    subprocess.run(words, check=True, env={})


@pytest.mark.parametrize("write", HONEST.values(), ids=HONEST.keys())
def test_byte_code_written_later_is_no_drift(prefix: Path, write: Callable[[Path], object]) -> None:
    """The twin: every way in which Python itself writes byte code, after a baseline that knew none."""
    for path in prefix.rglob("*.pyc"):
        path.unlink()
    empty = baseline_of(prefix)
    assert empty.bytecode == {}
    learn(prefix)
    write(prefix)
    report = verify_environment(str(prefix), empty)
    assert (report.bytecode, report.idle_bytecode, report.is_clean) == ((), (), True)
    assert learn(prefix) == GOOD_STEP


def never_loaded(prefix: Path, data: bytes, name: str = CACHED) -> None:
    (prefix / name).write_bytes(data)


IDLE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "an older source's": (lambda head: head[:8] + bytes(4) + head[12:] + body(EVIL), CACHED),
    "another size's": (lambda head: head[:12] + bytes(4) + body(EVIL), CACHED),
    "another Python's": (lambda head: b"\x61\x0d\r\n" + head[4:] + body(EVIL), CACHED),
    "unknown flags": (lambda head: head[:4] + b"\4\0\0\0" + head[8:] + body(EVIL), CACHED),
    "half a header": (lambda head: head[:12], CACHED),
    "nothing": (lambda head: b"", CACHED),
    "another tag": (lambda head: head + body(EVIL), CACHED.replace(TAG, "cpython-39")),
    "a test runner's": (lambda head: head + body(EVIL), CACHED.replace(TAG, f"{TAG}-pytest-9.0.1")),
    "level nought": (lambda head: head + body(EVIL), CACHED.replace(TAG, f"{TAG}.opt-0")),
}


@pytest.mark.parametrize(("data", "name"), IDLE.values(), ids=IDLE.keys())
def test_what_python_never_loads_is_a_remark(
    prefix: Path, baseline: Baseline, data: Callable[[bytes], bytes], name: str
) -> None:
    """Python runs the source; nothing counts."""
    never_loaded(prefix, data(header_of(prefix / CACHED)), name)
    report = verify_environment(str(prefix), baseline)
    assert (report.bytecode, report.idle_bytecode, report.is_clean) == ((), (name,), True)
    assert learn(prefix) == GOOD_STEP


# ---- byte code without source

STRAY = {
    "of a module that is gone": f"{SITE}/lab/__pycache__/gone.{TAG}.pyc",
    "without a tag": f"{SITE}/lab/__pycache__/evil.pyc",
    "at the top": f"{SITE}/__pycache__/evil.{TAG}.pyc",
    "under another Python's tag": f"{SITE}/lab/__pycache__/gone.cpython-39.pyc",
}


@pytest.mark.parametrize("name", STRAY.values(), ids=STRAY.keys())
def test_byte_code_without_source_counts_unless_the_build_listed_it(
    prefix: Path, baseline: Baseline, name: str
) -> None:
    """Any program can be told to run it; a build that wants it lists it."""
    (prefix / name).parent.mkdir(exist_ok=True)
    (prefix / name).write_bytes(header_of(prefix / CACHED) + body("print('evil')"))
    ran = subprocess.run([sys.executable, "-I", str(prefix / name)], capture_output=True, text=True, check=True)
    assert ran.stdout == "evil\n"
    assert codes(verify_environment(str(prefix), baseline)) == {name: "stray"}
    listing = list_files(str(prefix))
    wanted = Baseline(files=listing.files, bytecode=listing.bytecode, version=2)
    assert verify_environment(str(prefix), wanted).is_clean


def test_legacy_byte_code_beside_no_source_is_an_added_file(prefix: Path, baseline: Baseline) -> None:
    """Outside of `__pycache__` Python imports it; it is a file like any other."""
    legacy = prefix / SITE / "lab" / "extra.pyc"
    legacy.write_bytes(header_of(prefix / CACHED) + body("print('evil')"))
    program = "import sys; sys.path.insert(0, sys.argv[1]); import lab.extra"
    ran = subprocess.run([sys.executable, "-I", "-c", program, str(prefix / SITE)], capture_output=True, text=True)
    assert ran.stdout == "evil\n"
    assert verify_environment(str(prefix), baseline).added == (f"{SITE}/lab/extra.pyc",)


def test_the_baseline_speaks_for_byte_code_only_with_its_source(prefix: Path) -> None:
    """INVARIANT I17: with another source the same byte code is compared again, though its digest is listed."""
    (prefix / CACHED).write_bytes(MAGIC + b"\1" + bytes(11) + body(SOURCE))
    listed = baseline_of(prefix)
    (prefix / SITE / "lab" / "optim.py").write_text(EVIL)
    report = verify_environment(str(prefix), listed)
    assert codes(report) == {CACHED: "unlike"}
    assert report.changed == (f"{SITE}/lab/optim.py",)


def test_a_baseline_of_version_1_still_counts(prefix: Path) -> None:
    """It lists no byte code: all of it is compared."""
    old = Baseline(files=list_files(str(prefix)).files)
    report = verify_environment(str(prefix), old)
    assert (report.is_clean, report.compared) == (True, 2)
    other_source(prefix / CACHED)
    assert codes(verify_environment(str(prefix), old)) == {CACHED: "unlike"}


# ---- hostile files


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path) -> None:
    os.truncate(path, MAX_BYTECODE_BYTES + 1)


def cyclic(path: Path) -> None:
    path.write_bytes(header_of(path) + b"\xa8\x01\0\0\0r\0\0\0\0")


def nested(path: Path) -> None:
    plain = marshal.dumps(compile("", "f", "exec"), 2)
    path.write_bytes(
        header_of(path) + plain.replace(b"(\x01\0\0\0N", b"(\x01\0\0\0" + b")\x01" * (2 * MAX_DEPTH) + b"N", 1)
    )


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "damaged"),
    "a header alone": (lambda path: path.write_bytes(header_of(path)), "damaged"),
    "noise": (lambda path: path.write_bytes(header_of(path) + bytes(range(256)) * 50), "damaged"),
    "cyclic": (cyclic, "damaged"),
    "nested": (nested, "nested"),
    "huge": (huge, "unread"),
    "a FIFO": (fifo, "unread"),
}


@pytest.mark.parametrize(("make", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_compared_counts(
    prefix: Path, baseline: Baseline, make: Callable[[Path], object], code: str
) -> None:
    """Each with its own reason; the rest of the environment is looked at all the same."""
    make(prefix / CACHED)
    (prefix / SITE / "zz.pth").write_text("import os\n")
    report = verify_environment(str(prefix), baseline)
    assert codes(report) == {CACHED: code}
    assert report.added == (f"{SITE}/zz.pth",)
    assert all("\n" not in finding.detail for finding in report.bytecode)


def test_a_link_to_byte_code_is_an_added_file(prefix: Path, baseline: Baseline, tmp_path: Path) -> None:
    """Python follows it; so it is listed with where it leads."""
    other_source(prefix / CACHED)
    (prefix / CACHED).rename(tmp_path / "evil")
    (prefix / CACHED).symlink_to(tmp_path / "evil")
    assert learn(prefix) == EVIL_STEP
    assert verify_environment(str(prefix), baseline).added == (CACHED,)


def test_what_changes_between_listing_and_comparison_counts(prefix: Path) -> None:
    """INVARIANT I17: whatever was swapped in later, byte code or source, is not what was hashed."""
    for path, text in ((prefix / CACHED, None), (prefix / SITE / "lab" / "optim.py", SOURCE + "#")):
        listing = list_files(str(prefix))
        before = path.read_bytes()
        path.write_bytes(before + b"N" if text is None else text.encode())
        (prefix / CACHED).write_bytes(MAGIC + b"\1" + bytes(11) + (prefix / CACHED).read_bytes()[16:])
        assert codes(check_bytecode(listing, {}, {})) == {CACHED: "unread"}
        path.write_bytes(before)


def test_a_source_that_does_not_compile_has_no_byte_code(prefix: Path) -> None:
    """Whoever wrote both meant the byte code."""
    (prefix / CACHED).write_bytes(MAGIC + b"\1" + bytes(11) + body(EVIL))
    (prefix / SITE / "lab" / "optim.py").write_text("def step(: pass")
    assert learn(prefix) == EVIL_STEP
    assert codes(verify_environment(str(prefix), None)) == {CACHED: "uncompilable"}


def script(path: Path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


HELLO = f"""import struct, sys, time
def say(code, text):
    sys.stdout.buffer.write(struct.pack("<II", code, len(text)) + text)
    sys.stdout.flush()
say(6, b"{TAG} 3.11.0 {MAGIC.hex()}")
"""


@pytest.mark.parametrize(
    "then", ["sys.exit(3)", "time.sleep(60)", "say(0, b'x' * 70000)", "sys.stdout.buffer.write(b'x')"]
)
def test_a_compiler_that_ends_or_hangs_calls_nothing_equal(tmp_path: Path, then: str) -> None:
    """INVARIANT I17: no answer is not the answer that all is well."""
    interpreter = script(tmp_path / "python", f"{HELLO}sys.stdin.buffer.read(10)\n{then}\n")
    with Compiler(interpreter, answer_s=1) as compiler:
        assert compiler.compare(b"pass", "a.py", 0, b"")[0] == LOST


def test_many_lost_compilers_end_the_comparison(prefix: Path, tmp_path: Path) -> None:
    """Files that stop the compiler cost no more than a few attempts, and all count."""
    interpreter = script(tmp_path / "python", f"{HELLO}sys.exit(1)\n")
    site = prefix / SITE / "lab"
    for number in range(40):
        (site / f"m{number}.py").write_text("pass\n")
        py_compile.compile(str(site / f"m{number}.py"))
    bytecode = check_bytecode(list_files(str(prefix)), {}, {}, interpreter=interpreter)
    assert set(codes(bytecode).values()) == {"uncompilable"}
    assert len(bytecode.findings) == 42
    assert any("too often" in finding.detail for finding in bytecode.findings)


def test_byte_code_of_a_python_that_was_not_named_counts(prefix: Path, baseline: Baseline) -> None:
    """Where the environment has another Python's library, its byte code is not taken for harmless."""
    library = prefix / "lib" / "python3.99" / "site-packages"
    (library / "__pycache__").mkdir(parents=True)
    (library / "tool.py").write_text("pass\n")
    (library / "__pycache__" / "tool.cpython-399.pyc").write_bytes(b"\x99\x0f\r\n" + bytes(12) + body(EVIL))
    names = codes(verify_environment(str(prefix), baseline))
    assert names == {"lib/python3.99/site-packages/__pycache__/tool.cpython-399.pyc": "other_python"}


def test_another_patch_release_is_reported_with_the_finding(prefix: Path, baseline: Baseline) -> None:
    """Compilers of two patch releases may differ; who reads the finding is told which two these are."""
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.99\n")
    other_source(prefix / CACHED)
    (finding,) = verify_environment(str(prefix), baseline).bytecode
    assert finding.code == "unlike"
    assert finding.detail.endswith("made for 3.11.99")


def test_a_tag_of_ours_with_another_magic_is_not_harmless_where_the_release_is_another(
    prefix: Path, baseline: Baseline
) -> None:
    """A release candidate has another magic number: what we do not load, the environment's Python may."""
    (prefix / CACHED).write_bytes(b"\x99\x0d\r\n" + header_of(prefix / CACHED)[4:] + body(EVIL))
    runner = CACHED.replace(TAG, f"{TAG}-pytest-9.0.1")
    (prefix / runner).write_bytes(MAGIC + bytes(12) + body(SOURCE))
    assert verify_environment(str(prefix), baseline).idle_bytecode == (runner, CACHED)
    (prefix / "pyvenv.cfg").write_text("version = 3.11.99\n")
    report = verify_environment(str(prefix), baseline)
    assert (codes(report), report.idle_bytecode) == ({CACHED: "other_python"}, (runner,))


# ---- what comes of it


def test_policies_see_it_as_a_changed_file(prefix: Path, tmp_path: Path) -> None:
    """INVARIANT I17: in both lists, so that a rule about changed files needs to know nothing of byte code."""
    listing = list_files(str(prefix))
    (tmp_path / "base").write_bytes(make_baseline(listing, [KEY], check_bytecode(listing, {}, {}).equal))
    collector = EnvironmentCollector(str(tmp_path / "base"), [KEY.public])
    inputs = JobInputs(argv=(str(prefix / "bin" / "python"), "-V"), directory="/", environment={})
    request = Request.of("user:a", "job:submit", "job:x")
    clean = {"changed_files": (), "unlike_bytecode": (), "unowned_autorun": ()}
    assert collector.collect(request, inputs, 1).entries[ENVIRONMENT].value == clean
    other_source(prefix / CACHED)
    found = {**clean, "changed_files": (CACHED,), "unlike_bytecode": (CACHED,)}
    assert collector.collect(request, inputs, 1).entries[ENVIRONMENT].value == found


def test_what_was_found_equal_is_remembered(prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared once; again only when the byte code, or its source, is another."""
    install(prefix, "other", {"other.py": "x = 1\n"})
    cache = str(tmp_path / "cache")
    age(prefix, monkeypatch)
    compared = [verify_environment(str(prefix), None, cache=FileCache(cache)).compared for _ in range(2)]
    assert compared == [2, 0]
    (prefix / CACHED).write_bytes(MAGIC + b"\1" + bytes(11) + body(SOURCE))
    assert verify_environment(str(prefix), None, cache=FileCache(cache)).compared == 1
    (prefix / SITE / "lab" / "optim.py").write_text(EVIL)
    assert codes(verify_environment(str(prefix), None, cache=FileCache(cache))) == {CACHED: "unlike"}
