"""Every hostile checkpoint of the lab is called what it is, under any name; none is ever loaded."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import (
    CERTAIN,
    EVIL,
    GOOD,
    HOSTILE,
    STORAGE,
    legacy,
    module_pickle,
    npy,
    safetensors_polyglot,
    tarred,
    torch_zip,
    zipped,
)


def scanned(data: bytes) -> Findings:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings


def codes(data: bytes) -> set[str]:
    return {reason.code for reason in scanned(data).reasons}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_checkpoint_is_clean(name: str, tmp_path: Path) -> None:
    """INVARIANT I18: what is hostile or cannot be read is never clean, and always says why."""
    path = tmp_path / "model.bin"
    path.write_bytes(HOSTILE[name]())
    scan = scan_file(path)
    assert scan.verdict is not Verdict.CLEAN
    assert scan.reasons
    if name in CERTAIN:
        assert scan.verdict is Verdict.HOSTILE


BENIGN_TWINS = {
    "a torch zip": torch_zip(GOOD, **STORAGE),
    "torch's legacy layout": legacy(GOOD, ["0"], struct.pack("<q", 2) + b"\0" * 8),
    "torch's tar layout": tarred(
        {
            "sys_info": pickle.dumps({}),
            "pickle": pickle.dumps({}, 2),
            "storages": pickle.dumps(0),
            "tensors": pickle.dumps(0),
        }
    ),
    "a pickle of plain data": pickle.dumps({"a": [1, 2.0, "x", b"y", None, True, (1,), {1}, frozenset({2})]}),
    "a pickle of protocol 0": pickle.dumps({"a": [1, 2.0, "x", None, True, (1,)], "big": 2**70}, 0),
    "an object array": npy(pickle.dumps([1, 2])),
    "a number array": npy(b"\0" * 8, "<f8"),
    "an array in a zip in a zip": zipped({"a.zip": zipped({"a.npy": npy(b"\0" * 8, "<f8")})}),
    "an array in a tar": tarred({"a.npy": npy(b"\0" * 8, "<f8")}),
    "JSON": json.dumps({"hidden_size": 8}).encode(),
    "a chat template": json.dumps(
        {
            "chat_template": "{%- for m in messages %}{{ m['role'] + ': ' + m.content | trim }}{% endfor %}",
            "tokens": {"{{": 1, "__init__": 2, "}}": 3},
        }
    ).encode(),
    "a model card with a template and Python": b"{{ card }}\n    super().__init__()\n",
    "a list of tokens": b"{{\n__init__\n.__\n}}\n|\nattr\n",
    "a text that begins like an import": b"config\nvalue\n",
}


@pytest.mark.parametrize("name", BENIGN_TWINS)
def test_the_harmless_twin_is_clean(name: str) -> None:
    """What refuses the attack accepts the same layout without it."""
    assert codes(BENIGN_TWINS[name]) == set()


def test_a_whole_model_in_the_older_layout_is_unknown_not_hostile() -> None:
    """Its classes come with their source, by persistent ids; the reader returns the class, which is judged as one."""
    found = scanned(legacy(module_pickle("torch.nn.modules.linear", "Linear"), []))
    assert found.verdict is Verdict.UNKNOWN
    assert {reason.code for reason in found.reasons} == {"ckpt.pickle_persistent_id", "ckpt.pickle_unlisted"}


def test_many_braces_are_read_once() -> None:
    """INVARIANT I18: a text of nothing but starts and quotes is judged in one pass, not in one for each."""
    assert codes(b"{{" * 200_000) == {"ckpt.too_deep"}
    for text in (b"{{ '" * 100_000, b"{% }}" * 100_000):
        assert codes(text) == set()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (HOSTILE["a call of os.system"](), "ckpt.pickle_global"),
        (HOSTILE["EXT2"](), "ckpt.pickle_extension"),
        (HOSTILE["a name computed by a call"](), "ckpt.pickle_unresolved"),
        (HOSTILE["a state given to a class"](), "ckpt.pickle_build"),
        (HOSTILE["a call of a computed value"](), "ckpt.pickle_indirect_call"),
        (HOSTILE["items put into something that is no map"](), "ckpt.pickle_state"),
        (HOSTILE["a persistent id"](), "ckpt.pickle_persistent_id"),
        (HOSTILE["a reader function passed on as a factory"](), "ckpt.pickle_reader"),
        (HOSTILE["a second pickle after a harmless one"](), "ckpt.pickle_sequence"),
        (HOSTILE["an argument over the end of its frame"](), "ckpt.pickle_frame"),
        (HOSTILE["a frame in a frame"](), "ckpt.pickle_frame"),
        (HOSTILE["a billion references"](), "ckpt.pickle_expansion"),
        (HOSTILE["out-of-band buffers"](), "ckpt.pickle_buffer"),
        (HOSTILE["a call and no end"](), "ckpt.truncated"),
        (HOSTILE["a call before a broken end"](), "ckpt.pickle_broken"),
        (HOSTILE["a member renamed in its own header"](), "ckpt.archive_mismatch"),
        (HOSTILE["two members of one name"](), "ckpt.archive_duplicate"),
        (HOSTILE["two members that differ in case"](), "ckpt.archive_duplicate"),
        (HOSTILE["a torch zip with a wrong checksum"](), "ckpt.archive_crc"),
        (HOSTILE["an encrypted harmless member"](), "ckpt.archive_encrypted"),
        (HOSTILE["a patch-data bit"](), "ckpt.archive_mismatch"),
        (HOSTILE["junk before the archive"](), "ckpt.polyglot"),
        (HOSTILE["bytes after the archive"](), "ckpt.archive_broken"),
        (HOSTILE["a member that torch does not write"](), "ckpt.archive_member"),
        (HOSTILE["a storage smaller than its tensor"](), "ckpt.storage_mismatch"),
        (HOSTILE["a storage that is not there"](), "ckpt.storage_mismatch"),
        (HOSTILE["a name that leaves the folder"](), "ckpt.archive_path"),
        (HOSTILE["a tar with a link"](), "ckpt.archive_link"),
        (HOSTILE["zips nested without end"](), "ckpt.too_deep"),
        (HOSTILE["lz4, not read"](), "ckpt.compression_unknown"),
        (HOSTILE["SQLite, not read"](), "ckpt.format_opaque"),
        (HOSTILE["YAML that names Python"](), "ckpt.yaml_call"),
        (HOSTILE["a chat template that asks for a class"](), "ckpt.template_code"),
        (HOSTILE["a chat template that spells its underscores"](), "ckpt.template_code"),
        (HOSTILE["a chat template behind braces in a string"](), "ckpt.template_code"),
        (HOSTILE["a chat template given twice"](), "ckpt.template_code"),
        (HOSTILE["a chat template that uses the attr filter"](), "ckpt.template_unread"),
        (HOSTILE["a template file that asks for globals"](), "ckpt.template_code"),
        (HOSTILE["a class of a legacy model that is a function"](), "ckpt.pickle_global"),
        (HOSTILE["random bytes"](), "ckpt.format_unknown"),
        (HOSTILE["nothing"](), "ckpt.empty"),
        (HOSTILE["safetensors with a key twice"](), "ckpt.safetensors_header"),
        (HOSTILE["an npy of other length than it says"](), "ckpt.npy_header"),
        (HOSTILE["array bytes that are opcodes"](), "ckpt.polyglot"),
        (safetensors_polyglot(), "ckpt.polyglot"),
    ],
)
def test_the_reason_names_the_technique(data: bytes, code: str) -> None:
    """INVARIANT I18: each technique has its reason code."""
    assert code in codes(data)


def test_the_imported_name_is_reported() -> None:
    """What a pickle imports stands in the findings, hostile or not."""
    assert scanned(torch_zip(EVIL)).globals == {"os.system"}


def test_names_are_the_bytes_the_interpreter_uses() -> None:
    """INVARIANT I5: an escape that pickletools would undo is part of the name."""
    assert scanned(HOSTILE["a name with an escape that pickletools undoes"]()).globals == {
        "coll\\\\x65ctions.OrderedDict"
    }


def test_an_encrypted_bit_hides_nothing() -> None:
    """torch ignores the bit; the pickle behind it is found."""
    assert scanned(HOSTILE["an encrypted bit that is a lie"]()).verdict is Verdict.HOSTILE


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".npy", ".npz", ".gguf"])
def test_pickle_renamed_to_a_data_only_format_is_refused(suffix: str, tmp_path: Path) -> None:
    """INVARIANT I18: scenario 16, a name that promises what the content breaks."""
    path = tmp_path / f"model{suffix}"
    path.write_bytes(torch_zip(GOOD, **STORAGE))
    scan = scan_file(path)
    assert "ckpt.format_spoof" in {reason.code for reason in scan.reasons}
    assert scan.verdict is Verdict.HOSTILE


def test_the_same_file_under_its_own_name_is_clean(tmp_path: Path) -> None:
    """The twin: only the name was wrong."""
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip(GOOD, **STORAGE))
    assert scan_file(path).verdict is Verdict.CLEAN


def test_a_decompression_bomb_is_unknown_and_cheap() -> None:
    """A gigabyte of zeros behind a megabyte is not decompressed."""
    file = BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.pkl", "w", force_zip64=True) as out,
    ):
        for _ in range(300):
            out.write(b"\0" * 2**20)
    findings = scanned(file.getvalue())
    assert "ckpt.too_compressed" in {reason.code for reason in findings.reasons}
    assert findings.decompressed_bytes < 80 * 2**20
