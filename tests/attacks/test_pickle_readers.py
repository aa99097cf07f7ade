"""Where a reader of pickles takes bytes for something else than a careless scan does. Nothing here is ever loaded."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import tarfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import EVIL, text, torch_zip, zipped

CALL = b"cos\nsystem\n(S'true'\ntR."
WRAPPER = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n"
PLAIN_STATE = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"


def scanned(data: bytes) -> Findings:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings


def codes(data: bytes) -> set[str]:
    return {reason.code for reason in scanned(data).reasons}


def dtype(code: str, flags: int, *, size: int = -1) -> bytes:
    """A dtype of protocol 4 whose state has these flags and this size."""
    number = size.to_bytes(4, "little", signed=True)
    state = b"(K\x03" + text("|") + b"NNNJ" + number + b"J\xff\xff\xff\xff" + b"K" + bytes([flags]) + b"tb"
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R" + state


def array(dtype_: bytes, data: bytes, count: int = 1) -> bytes:
    made = b"\x80\x04cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    return made + b"(K\x01K" + bytes([count]) + b"\x85" + dtype_ + b"\x89" + data + b"tb."


def wrapper(entries: bytes, made: bytes = WRAPPER + b")\x81") -> bytes:
    """A joblib file of one array of bytes; `entries` are added to its state."""
    state = (
        text("subclass")
        + b"cnumpy\nndarray\n"
        + text("shape")
        + b"K\x04\x85"
        + text("order")
        + text("C")
        + text("dtype")
        + dtype("u1", 0)
        + text("allow_mmap")
        + b"\x89"
    )
    return b"\x80\x04" + made + b"}(" + state + entries + b"ub" + b"data."


NUMBERS = {
    "base 16": b"I0x1\n",
    "base 8": b"I0o1\n",
    "base 8 of C": b"I017\n",
    "base 2": b"I0b1\n",
    "underscores": b"I1_0\n",
    "a sign and spaces": b"I  +0X1 \n",
    "an end at a zero byte": b"I1\0 is no number\n",
    "nothing before a zero byte": b"I\0\n",
    "a long line": b"I" + b" " * 5_000 + b"1\n",
    "more digits than Python's own limit": b"I" + b"9" * 5_000 + b"\n",
    "LONG in base 16": b"L0x1L\n",
    "LONG of a long line": b"L" + b" " * 9_000 + b"1L\n",
    "LONG that ends at a zero byte": b"L1\0L\n",
    "a float that ends at a zero byte": b"F1\0 is no float\n",
    "a memo index of a long line": b"Np" + b"0" * 9_000 + b"1\n0g1\n",
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_some_reader_takes_hides_nothing(name: str) -> None:
    """CPython reads INT and LONG in base 0, up to a zero byte, in lines of any length."""
    assert scanned(NUMBERS[name] + b"0" + CALL).verdict is Verdict.HOSTILE


@pytest.mark.parametrize("name", ["base 16", "an end at a zero byte", "a long line", "LONG in base 16"])
def test_a_number_that_readers_differ_about_is_never_clean(name: str) -> None:
    """Also where nothing follows it."""
    assert codes(NUMBERS[name] + b".") == {"ckpt.pickle_number"}


@pytest.mark.parametrize("line", [b"I1\n", b"I-5\n", b"I00\n", b"I01\n", b"L7L\n", b"F1.5\n", b"I12\r\n"])
def test_an_ordinary_number_is_clean(line: bytes) -> None:
    """The harmless twin, as pickle writes it."""
    assert scanned(line + b".").verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    "pack", [gzip.compress, zlib.compress, lambda data: zipped({"x": data})], ids=["gzip", "zlib", "zip"]
)
def test_it_hides_in_no_container(pack: object) -> None:
    """The same, packed."""
    assert callable(pack)
    assert scanned(pack(b"I0x1\n0" + CALL)).verdict is Verdict.HOSTILE


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_name_of_a_tar_member_is_no_pickle(kind: int) -> None:
    """The first bytes of a tar archive are a name, which `pickle.load` reads as opcodes."""
    for name in ("I0x1\n0cos\nsystem\n(S'true'\ntR.", "a.txt"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
            info = tarfile.TarInfo(name)
            info.size = 2
            archive.addfile(info, io.BytesIO(b"hi"))
        assert (scanned(file.getvalue()).verdict is Verdict.HOSTILE) == (name != "a.txt")


BROKEN = {
    "a number, then text": b"I1\nhello, this is text\n",
    "a string of protocol 0, then text": b"S'x'\n and so on\n",
    "an import, then text": b"cos\nsystem\nand so on\n",
    "a list without its end": b"(lp0\nI1\naI2\na",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_after_a_valid_prefix_is_unknown_never_text(name: str) -> None:
    """INVARIANT I18: a reader of pickles runs what comes before the break."""
    findings = scanned(BROKEN[name])
    assert findings.verdict is not Verdict.CLEAN
    assert findings.pickled


@pytest.mark.parametrize(
    "words",
    ["I am text.\n", "(c) 2024 somebody\n", "Version 1\n", "cat\ndog\nhorse\n", "} \n", "...\n", "S is a letter\n"],
)
def test_ordinary_text_is_text(words: str) -> None:
    """One step away: text whose first letters happen to be opcodes."""
    assert scanned(words.encode()).verdict is Verdict.CLEAN


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.ckpt", "a.joblib", ".metadata", "a.pickle", "a.bin"])
def test_text_that_is_named_like_a_pickle_is_unknown(name: str, tmp_path: Path) -> None:
    """The name says which reader gets the file."""
    path = tmp_path / name
    path.write_bytes(b"plain words\n")
    assert scan_file(path).verdict is Verdict.UNKNOWN
    path.write_bytes(pickle.dumps([1]))
    assert scan_file(path).verdict is Verdict.CLEAN


def test_a_packed_text_that_is_named_like_a_pickle_is_unknown(tmp_path: Path) -> None:
    """Readers unpack by the last suffix and unpickle by the one before; members of archives have names, too."""
    path = tmp_path / "a.pkl.gz"
    path.write_bytes(gzip.compress(b"plain words\n"))
    assert scan_file(path).verdict is Verdict.UNKNOWN
    path.write_bytes(gzip.compress(pickle.dumps([1])))
    assert scan_file(path).verdict is Verdict.CLEAN
    assert codes(zipped({"a.pkl": b"plain words\n"})) == {"ckpt.pickle_name"}


def test_the_notes_of_the_download_cache_are_text(tmp_path: Path) -> None:
    """huggingface_hub writes `*.metadata` beside what it fetches."""
    path = tmp_path / "model.safetensors.metadata"
    path.write_bytes(b"3f1c\nabc\n1718000000.5\n")
    assert scan_file(path).verdict is Verdict.CLEAN


# --- joblib ---------------------------------------------------------------------------------------------------------

EVIL_STATES = {
    "a computed key": b"cbuiltins\nstr\n" + text("dtype") + b"\x85R" + dtype("O8", 63),
    "a key twice": text("dtype") + dtype("O8", 63),
    "another attribute": text("filename") + text("x"),
    "many keys, then one twice": b"".join(b"J" + i.to_bytes(4, "little") + b"N" for i in range(65_537))
    + text("dtype")
    + dtype("O8", 63),
}


@pytest.mark.parametrize("name", EVIL_STATES)
def test_a_wrapper_whose_state_is_not_plain_is_never_clean(name: str) -> None:
    """joblib reads the array by attributes that only their last assignment decides."""
    assert scanned(wrapper(EVIL_STATES[name])).verdict is not Verdict.CLEAN


def test_a_plain_wrapper_is_clean() -> None:
    """The harmless twin; also made by `copyreg._reconstructor`, as protocols 0 and 1 do."""
    old = b"ccopyreg\n_reconstructor\n" + WRAPPER + b"cbuiltins\nobject\nN\x87R"
    assert scanned(wrapper(b"")).verdict is Verdict.CLEAN
    assert scanned(wrapper(b"", made=old)).verdict is Verdict.CLEAN


def test_a_wrapper_that_is_handed_to_a_function_is_never_clean() -> None:
    """Whatever makes the wrapper, joblib reads an array behind it."""
    made = b"ctorch._tensor\n_rebuild_from_type_v2\n(" + WRAPPER + WRAPPER + b")NtR"
    assert scanned(wrapper(b"", made=made)).verdict is not Verdict.CLEAN
    hidden = b"ccollections\ndefaultdict\n" + WRAPPER + b"\x85R."
    assert scanned(b"\x80\x04" + hidden).verdict is not Verdict.CLEAN


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_joblib_files_of_object_arrays_are_clean(protocol: int) -> None:
    """joblib pickles an array of objects as a pickle of its own."""
    file = io.BytesIO()
    joblib.dump([np.array([{"a": 1}, None], dtype=object), np.arange(3)], file, protocol=protocol)
    assert scanned(file.getvalue()).verdict is Verdict.CLEAN


# --- numpy ----------------------------------------------------------------------------------------------------------

LYING = {
    "objects that deny it": array(dtype("O8", 0), b"C\x08AAAAAAAA"),
    "numbers that claim objects": array(dtype("u8", 63), b"C\x08AAAAAAAA"),
    "some of the flags": array(dtype("O8", 1), b"C\x08AAAAAAAA"),
    "two sizes": array(dtype("U4", 8, size=160), b"C\x08AAAAAAAA"),
    "a scalar": b"\x80\x04cnumpy._core.multiarray\nscalar\n" + dtype("O8", 0) + b"C\x08AAAAAAAA\x86R.",
    "in a torch zip": torch_zip(array(dtype("O8", 0), b"C\x08AAAAAAAA")),
    "more objects than the list has": array(dtype("O8", 63), b"]", count=9),
    "a dtype given a state twice": array(
        dtype("u8", 0) + b"(K\x03" + text("|") + PLAIN_STATE + b"K\x3ftb", b"C\x08AAAAAAAA"
    ),
    "a state by torch's function": b"\x80\x04ctorch._tensor\n_rebuild_from_type_v2\n(cnumpy\ndtype\ncnumpy\ndtype\n"
    + text("O8")
    + b"\x89\x88\x87(K\x03"
    + text("|")
    + PLAIN_STATE
    + b"K\0ttR.",
}


@pytest.mark.parametrize("name", LYING)
def test_a_dtype_that_lies_about_its_kind_is_never_clean(name: str) -> None:
    """numpy believes the state of a dtype, and takes the bytes of the file for addresses."""
    assert scanned(LYING[name]).verdict is not Verdict.CLEAN


ITEMS = ["f8", "U3", "S4", "M8[ns]", "?", [("a", "i4"), ("b", "O")], [("a", "f4", (2, 3))], ("i2", (3,)), "V8", "O"]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("item", ITEMS, ids=str)
def test_dtypes_as_numpy_pickles_them_are_clean(item: object, protocol: int) -> None:
    """The harmless twins, dtypes and arrays of them."""
    kind = np.dtype(item)  # type: ignore[call-overload]
    assert scanned(pickle.dumps(kind, protocol)).verdict is Verdict.CLEAN
    assert scanned(pickle.dumps(np.zeros(2, kind), protocol)).verdict is Verdict.CLEAN


# --- small files that exhaust their reader ---------------------------------------------------------------------------

BOMBS = {
    "a list of a range": b"cbuiltins\nlist\n(cbuiltins\nrange\n(L2147483647L\ntRtR.",
    "a list of Python 2's range": b"c__builtin__\nlist\n(c__builtin__\nxrange\n(L2147483647L\ntRtR.",
    "a set of a range by its ends": b"cbuiltins\nset\n(cbuiltins\nrange\n(I0\nI2147483647\ntRtR.",
    "bytes of a size": b"cbuiltins\nbytes\n(L99999999999L\ntR.",
    "a bytearray of a size": b"cbuiltins\nbytearray\n(L99999999999L\ntR.",
    "a bytearray of a computed size": b"cbuiltins\nbytearray\n(cbuiltins\nint\n(V99999999999\ntRtR.",
    "a fraction of a large exponent": b"cfractions\nFraction\n(V1e999999999\ntR.",
    "a storage of a size": b"ctorch\nFloatStorage\n(L99999999999L\ntR.",
    "an array of a size": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L99999999999L\ntS'b'\ntR.",
    "an array by its class": b"cnumpy\nndarray\n((L99999999999L\nttR.",
    "a memo index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a dtype of a size": b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(VV2000000000\nI0\nI1\ntRtR.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_of_an_enormous_object_is_unknown(name: str) -> None:
    """Some bytes of arguments make a reader allocate gigabytes."""
    assert scanned(BOMBS[name]).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("value", [range(100), [range(10**9)], bytearray(b"x" * 100), b"y" * 10**6, list(range(10**5))])
@pytest.mark.parametrize("protocol", range(6))
def test_ordinary_ranges_and_bytes_are_clean(value: object, protocol: int) -> None:
    """The harmless twins: a range that is not walked costs nothing."""
    assert scanned(pickle.dumps(value, protocol)).verdict is Verdict.CLEAN


# --- sharded checkpoints ----------------------------------------------------------------------------------------------

SHARD = b"\x80\x04ctorch.distributed.checkpoint.filesystem\n_StorageInfo\n"
SHARDS = {
    "the constructor": lambda path: SHARD + b"(" + path + b"K\0K\0tR.",
    "a state": lambda path: SHARD + b")\x81}" + text("relative_path") + path + b"sb.",
    "a state of two parts": lambda path: SHARD + b")\x81N}" + text("relative_path") + path + b"s\x86b.",
    "a computed key": lambda path: SHARD + b")\x81}cbuiltins\nstr\n" + text("relative_path") + b"\x85R" + path + b"sb.",
    "torch's function": lambda path: (
        b"\x80\x04ctorch._tensor\n_rebuild_from_type_v2\n(" + SHARD[2:] + SHARD[2:] + b"(" + path + b"K\0K\0tNtR."
    ),
}


@pytest.mark.parametrize("path", [text("../x"), text("/x"), text("a/../../x"), text("c:x"), b"cbuiltins\nstr\n)R"])
@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_outside_its_folder_is_never_clean(name: str, path: bytes) -> None:
    """A `.metadata` file names the files of a sharded checkpoint, which were not scanned where they lie elsewhere."""
    assert scanned(SHARDS[name](path)).verdict is not Verdict.CLEAN


def test_a_shard_beside_its_metadata_is_clean() -> None:
    """The harmless twin."""
    assert scanned(SHARDS["a state"](text("__0_0.distcp"))).verdict is Verdict.CLEAN


def test_every_opcode_that_reads_a_line_reads_one_of_any_length() -> None:
    """None of them stops at a length that the interpreter does not have."""
    lines = [info.code for info in pickletools.opcodes if info.arg and info.arg.n == pickletools.UP_TO_NEWLINE]
    assert set(lines) == set("IJLFSVcgip PO".replace("J", "").replace("O", "").replace(" ", ""))
    assert scanned(b"V" + b"x" * 100_000 + b"\n0" + CALL).verdict is Verdict.HOSTILE
    assert scanned(b"S'" + b"x" * 100_000 + b"'\n0" + EVIL).verdict is Verdict.HOSTILE
