"""Small files that exhaust the memory or the time of their reader or of the scan, and harmless files like them."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys
import time

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings, Limits, Verdict
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import text


def scanned(data: bytes, name: str = "", limits: Limits | None = None) -> Findings:
    findings = Findings(limits=limits or Limits(), name=name)
    scan_content(BytesSource(data), findings)
    return findings


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def many(call: bytes, count: int) -> bytes:
    return b"\x80\x02]" + (call + b"a") * count + b"."


RANGE = named("builtins", "list") + named("builtins", "range") + number(999_999) + b"\x85R\x85R"
BOMBS: dict[str, bytes] = {
    "a tuple in a tuple, a hundred thousand times": b"\x80\x04N" + b"\x85" * 100_000 + b".",
    "a list in a list, a hundred thousand times": b"\x80\x04" + b"(" * 100_000 + b"l" * 100_000 + b".",
    "three hundred lists of a million": many(RANGE, 300),
    "a thousand arrays of 16 MiB": many(named("builtins", "bytearray") + number(2**24) + b"\x85R", 1000),
    "a tensor of two sizes": many(named("torch", "FloatTensor") + number(2**20) * 2 + b"\x86R", 1),
    "a power between underscores": many(named("fractions", "Fraction") + text("1e9_9_9_9_9_9_9_9") + b"\x85R", 1),
    "a size for numpy's own call": many(
        named("numpy.random._pickle", "__generator_ctor") + number(2**30) + named("builtins", "bytearray") + b"\x86R", 1
    ),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_pickle_that_exhausts_its_reader_is_not_clean(name: str) -> None:
    """INVARIANT I18: many small allocations are as large as one that is huge."""
    assert scanned(BOMBS[name]).verdict is Verdict.UNKNOWN


HARMLESS: dict[str, bytes] = {
    "some ranges": many(RANGE.replace(number(999_999), number(1_000)), 20),
    "some arrays": pickle.dumps([bytearray(b"x" * 100)] * 3, protocol=2),
    "a random state of numpy": many(
        named("numpy.random._pickle", "__randomstate_ctor")
        + text("MT19937")
        + named("numpy.random._pickle", "__bit_generator_ctor")
        + b"\x86R",
        1,
    ),
}


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_the_harmless_twin_is_clean(name: str) -> None:
    """What programs pickle is small, or has its data with it."""
    assert scanned(HARMLESS[name]).reasons == set()


def test_a_state_that_is_given_many_times_is_counted_each_time() -> None:
    """A map of 60,000 attributes, given 3,000 times, is a limit that is reached and not a minute of work."""
    keys = b"".join(text(f"{index:04x}") + b"N" for index in range(60_000))
    made = named("argparse", "Namespace") + b")\x81}(" + keys + b"uq\x01b"
    began = time.process_time()
    findings = scanned(b"\x80\x02" + made + b"h\x01b" * 3_000 + b".")
    assert "ckpt.too_large" in {reason.code for reason in findings.reasons}
    assert time.process_time() - began < 15


def test_many_texts_that_may_be_code_reach_a_limit() -> None:
    """Each is parsed as Python; the limit is that of opcodes, and forty thousand take some seconds."""
    began = time.process_time()
    findings = scanned(b"[" + b'"$a = (b)",' * 100_000 + b'"$a"]')
    assert "ckpt.too_large" in {reason.code for reason in findings.reasons}
    assert time.process_time() - began < 15


MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from policyguard.scan.content import scan_content
from policyguard.scan.findings import Findings
from policyguard.scan.source import BytesSource
findings = Findings()
scan_content(BytesSource(eval(sys.argv[1])), findings)
print(findings.verdict, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize(
    "data",
    [
        "b'[' + b'[],' * 20_000_000 + b'[]]'",
        "b'[' + b'{},' * 20_000_000 + b'{}]'",
        "b'import ' + b'a.' * 100_000 + b'a'",
    ],
)
def test_a_text_does_not_take_a_gibibyte(data: str) -> None:
    """A text of some megabytes, or a packed one of some kilobytes, is read within a bounded memory."""
    done = subprocess.run([sys.executable, "-c", MEMORY, data], capture_output=True, text=True, check=True)
    verdict, mebibytes = done.stdout.split()
    assert verdict == "unknown"
    assert int(mebibytes) < 1024


CLASSES: dict[str, tuple[str, str]] = {
    "a data set of torch": ("torch.utils.data.dataset", "TensorDataset"),
    "a loader of torch": ("torch.utils.data.dataloader", "DataLoader"),
    "a handle of a hook": ("torch.utils.hooks", "RemovableHandle"),
    "a list of a traced model": ("torch.jit._pickle", "restore_type_tag"),
    "a hook of a lazy layer": ("torch.nn.modules.linear", "LazyLinear._lazy_load_hook"),
    "a spline's conversion": ("scipy._lib.array_api_compat.numpy._aliases", "asarray"),
    "a time stamp of pandas": ("pandas._libs.tslibs.timestamps", "_unpickle_timestamp"),
}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_what_programs_pickle_is_no_accusation(name: str) -> None:
    """Classes and functions that libraries write themselves are unknown, and not hostile."""
    module, attribute = CLASSES[name]
    data = b"\x80\x04" + text(module) + text(attribute) + b"\x93."
    assert scanned(data).verdict is Verdict.UNKNOWN


def test_a_method_of_an_object_is_judged_by_its_class() -> None:
    """`getattr(object, "name")` is how older protocols write a bound method, whatever it does."""
    lookup = named("__builtin__", "getattr")

    def method(module: str, name: str, attribute: str) -> bytes:
        return b"\x80\x02" + lookup + named(module, name) + b")\x81" + text(attribute) + b"\x86R."

    assert scanned(method("torch.nn.modules.linear", "LazyLinear", "_infer_parameters")).verdict is Verdict.UNKNOWN
    assert scanned(method("pathlib", "Path", "unlink")).verdict is Verdict.HOSTILE
    assert scanned(method("numpy", "ndarray", "tofile")).verdict is Verdict.HOSTILE
    assert scanned(method("lab", "Net", "__class__")).verdict is Verdict.HOSTILE


def test_attributes_of_data_between_underscores_are_no_accusation() -> None:
    """Modules of torch, generic classes and pydantic's models have such attributes; `__class__` is another thing."""

    def stated(key: str) -> bytes:
        return b"\x80\x02" + named("lab", "Net") + b")\x81}" + text(key) + b"Nsb."

    assert scanned(stated("__orig_class__")).verdict is Verdict.UNKNOWN
    assert scanned(stated("__class__")).verdict is Verdict.HOSTILE
