"""Formats that name code or places in memory: sparse tensors, skops, exported programs, tokenizers, datasets."""

from __future__ import annotations

import io
import json
import struct
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from policyguard.scan.content import scan_content
from policyguard.scan.files import scan_file
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.source import BytesSource
from tests.attacks.checkpoint_lab import legacy, torch_zip, zipped


def scanned(data: bytes) -> Findings:
    findings = Findings()
    scan_content(BytesSource(data), findings)
    return findings


def codes(data: bytes) -> set[str]:
    return {reason.code for reason in scanned(data).reasons}


# --- sparse tensors ---------------------------------------------------------------------------------------------------


def tensor(key: str, kind: str, count: int, shape: str, steps: str, offset: int = 0) -> str:
    """A tensor of protocol 0, over a storage."""
    storage = f"(Vstorage\nctorch\n{kind}Storage\nV{key}\nVcpu\nI{count}\ntQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n({shape}t({steps}tI00\nNtR"


def sparse(layout: str, *parts: str, size: str) -> bytes:
    made = f"ctorch.serialization\n_get_layout\n(V{layout}\ntR"
    return f"ctorch._utils\n_rebuild_sparse_tensor\n({made}({''.join(parts)}({size}tttR.".encode()


def longs(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


FLOATS = tensor("9", "Float", 2, "I2\n", "I1\n")
COO = sparse("torch.sparse_coo", tensor("0", "Long", 4, "I2\nI2\n", "I2\nI1\n"), FLOATS, size="I3\nI5\n")
CSR = sparse(
    "torch.sparse_csr",
    tensor("0", "Long", 4, "I4\n", "I1\n"),
    tensor("1", "Long", 2, "I2\n", "I1\n"),
    FLOATS,
    size="I3\nI5\n",
)


def sparse_zip(pickled: bytes, **storages: bytes) -> bytes:
    named = {f"data/{key[1:]}": data for key, data in storages.items()}
    return torch_zip(pickled, **{"data/9": b"\0" * 8, **named})


@pytest.mark.parametrize("values", [(0, 2, 0, 4), (0, 0, 0, 0)])
def test_sparse_indexes_inside_are_clean(values: tuple[int, ...]) -> None:
    """Each index is read, in both layouts of a file."""
    assert codes(sparse_zip(COO, s0=longs(*values))) == set()
    storages = struct.pack("<q", 4) + longs(*values) + struct.pack("<q", 2) + b"\0" * 8
    assert codes(legacy(COO, ["0", "9"], storages)) == set()


@pytest.mark.parametrize("values", [(0, 3, 0, 4), (0, 2, 0, 5), (-1, 0, 0, 0), (0, 2**40, 0, 0)])
def test_a_sparse_index_outside_is_never_clean(values: tuple[int, ...]) -> None:
    """CVE-2025-62164: torch writes where the index says."""
    assert codes(sparse_zip(COO, s0=longs(*values))) == {"ckpt.sparse_index"}
    storages = struct.pack("<q", 4) + longs(*values) + struct.pack("<q", 2) + b"\0" * 8
    assert codes(legacy(COO, ["0", "9"], storages)) == {"ckpt.sparse_index"}


@pytest.mark.parametrize(
    ("ends", "plain", "clean"),
    [
        ((0, 1, 1, 2), (0, 4), True),
        ((0, 1, 1, 2), (0, 5), False),
        ((0, 9, 1, 2), (0, 4), False),
        ((0, 1, 1, 3), (0, 4), False),
        ((1, 1, 1, 2), (0, 4), False),
    ],
)
def test_compressed_indexes_are_read(ends: tuple[int, ...], plain: tuple[int, ...], clean: bool) -> None:
    """Rows that end where the next begins, columns below the width."""
    assert (codes(sparse_zip(CSR, s0=longs(*ends), s1=longs(*plain))) == set()) == clean


def test_what_has_no_storages_to_read_is_never_clean() -> None:
    """Nested tensors, and indexes that are computed or overlap otherwise."""
    for other in (
        COO.replace(b"_rebuild_sparse_tensor", b"_rebuild_nested_tensor"),
        COO.replace(b"sparse_coo", b"sparse_bsr"),
    ):
        assert codes(sparse_zip(other, s0=longs(0, 0, 0, 0))) == {"ckpt.sparse_index"}


# --- skops and exported programs -------------------------------------------------------------------------------------


def skops(module: str, name: str, loader: str = "ObjectNode", **more: object) -> bytes:
    node = {"__module__": module, "__class__": name, "__loader__": loader, "__id__": 1, **more}
    schema = {"__module__": "builtins", "__class__": "list", "__loader__": "ListNode", "content": [node], "protocol": 2}
    return zipped({"schema.json": json.dumps(schema).encode()})


SKOPS = [
    (skops("os", "system", "FunctionNode"), Verdict.HOSTILE),
    (skops("posix", "system", "TypeNode"), Verdict.HOSTILE),
    (skops("operator", "methodcaller", "OperatorFuncNode"), Verdict.HOSTILE),
    (skops("builtins", "dict", "DictNode", content={"module_path": "subprocess", "function": "run"}), Verdict.HOSTILE),
    (zipped({"schema.json": b'{"__loader__": "X", "__module\\u005f_": "os", "__class__": "popen"}'}), Verdict.HOSTILE),
    (skops("sklearn.linear_model._logistic", "LogisticRegression"), Verdict.UNKNOWN),
    (skops("builtins", "dict", "SomeNode"), Verdict.UNKNOWN),
    (skops("builtins", "dict", "DictNode"), Verdict.CLEAN),
]


@pytest.mark.parametrize("index", range(len(SKOPS)))
def test_skops_is_judged_by_what_its_nodes_import(index: int) -> None:
    """Harmless data is clean, an estimator unknown, a function that runs code hostile."""
    data, expected = SKOPS[index]
    assert scanned(data).verdict is expected


def program(target: str, name: str = "archive/models/model.json") -> bytes:
    return zipped({name: json.dumps({"graph_module": {"graph": {"nodes": [{"target": target}]}}}).encode()})


def test_an_exported_program_is_never_clean() -> None:
    """Its graph calls what it names; one that reaches a module of Python's is hostile."""
    assert scanned(program("torch.os.system")).verdict is Verdict.HOSTILE
    assert scanned(program("#torch.sys.modules")).verdict is Verdict.HOSTILE
    assert scanned(program("torch.ops.aten.sin.default")).verdict is Verdict.UNKNOWN
    assert scanned(program("torch.ops.aten.sin.default", "serialized_exported_program.json")).verdict is Verdict.UNKNOWN


# --- SentencePiece ---------------------------------------------------------------------------------------------------


def field(number: int, data: bytes | int) -> bytes:
    if isinstance(data, int):
        return (
            bytes([number << 3 & 0x7F | (0x80 if number > 15 else 0)])
            + (b"\x02" if number > 15 else b"")
            + bytes([data])
        )
    length = len(data)
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + size + data


def piece(text: str, kind: int = 1) -> bytes:
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", -1.5) + field(3, kind))


PIECES = piece("<unk>", 2) + piece("<s>", 3) + piece("\u2581the") + piece("a" * 90)
MODEL = PIECES + field(2, field(2, b"tok") + field(4, 3)) + field(3, field(1, b"nmt_nfkc") + field(3, 1))


def test_a_sentencepiece_model_is_understood(tmp_path: Path) -> None:
    """`tokenizer.model` of every Llama folder."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(MODEL)
    scan = scan_file(path)
    assert (scan.verdict, scan.format) == (Verdict.CLEAN, "sentencepiece")


def test_a_large_vocabulary_is_read_fast() -> None:
    """256,000 pieces, as Gemma has: no reader waits for its tokenizer."""
    many = b"".join(piece(f"t{number}") for number in range(256_000))
    began = time.process_time()
    assert scanned(many + MODEL[len(PIECES) :]).verdict is Verdict.CLEAN
    assert time.process_time() - began < 2


BROKEN_MODELS = {
    "no normalizer": PIECES + field(2, field(4, 3)),
    "a field of no number": MODEL + field(9, b"x"),
    "two trainers": MODEL + field(2, b""),
    "a pickle behind it": MODEL + b"\x80\x04cos\nsystem\n.",
    "a field that leaves its message": MODEL[:-1],
    "a piece of another wire type": MODEL + b"\x08\x01",
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_sentencepiece_model_that_does_not_fit_is_never_clean(name: str) -> None:
    """Every byte of it is explained by its messages, or it is unknown."""
    assert scanned(BROKEN_MODELS[name]).verdict is not Verdict.CLEAN


@pytest.mark.parametrize("cut", range(2, len(MODEL)))
def test_a_sentencepiece_model_cut_short_is_never_clean(cut: int) -> None:
    """At any byte, save where it is still a text of no model."""
    assert scanned(MODEL[:cut]).verdict is not Verdict.CLEAN


# --- shapes, templates, metadata --------------------------------------------------------------------------------------


def hdf5(shape: tuple[int, ...], **options: object) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as archive:
        archive.create_dataset("x", shape=shape, dtype="f4", **options)
    return file.getvalue()


def test_a_dataset_of_an_enormous_shape_is_unknown() -> None:
    """Keras allocates what the shape says, though no chunk of it is in the file."""
    assert codes(hdf5((2**20, 2**20), chunks=(64, 64))) == {"ckpt.too_compressed"}
    assert codes(hdf5((1024, 1024), chunks=(64, 64))) == set()


def gguf(key: str, *texts: str) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    array = struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(map(text, texts))
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(key) + array


def test_templates_in_a_list_are_judged() -> None:
    """Readers take one of them."""
    evil = "{% for c in ().__class__.__base__.__subclasses__() %}{% endfor %}"
    assert scanned(gguf("tokenizer.chat_templates", "{{ messages }}", evil)).verdict is Verdict.HOSTILE
    assert scanned(gguf("tokenizer.chat_templates", "{{ messages }}")).verdict is Verdict.CLEAN
    assert scanned(gguf("tokenizer.ggml.tokens", "{{ messages }}", evil)).verdict is Verdict.CLEAN


def safetensors(**metadata: str) -> bytes:
    header = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(header)) + header


def test_a_configuration_in_the_metadata_is_judged() -> None:
    """FlexTok and others build a model by it."""
    evil = json.dumps({"net": {"_target_": "os.system", "command": "true"}})
    assert scanned(safetensors(format="pt", config=evil)).verdict is not Verdict.CLEAN
    assert scanned(safetensors(format="pt", config='{"hidden": 4}', ss_tags="[]")).verdict is Verdict.CLEAN


def test_ordinary_arrays_in_zips_are_clean() -> None:
    """None of the new readers takes what is numpy's."""
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    assert codes(file.getvalue()) == set()
