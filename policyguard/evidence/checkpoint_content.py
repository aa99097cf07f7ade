"""What bytes are and whether they can carry code, by their content and never by their name.

`scan_content` names the format and walks into whatever archives there are; each part must be explained by its format or
be clean itself. The formats and the readers they come from are in `docs/scan.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from policyguard.evidence.archive_7z import MAGIC as SEVEN_ZIP
from policyguard.evidence.archive_7z import seven_zip_members
from policyguard.evidence.archive_packed import PackedBroken, compression_of, unpacked
from policyguard.evidence.archive_source import Cursor, Source, Truncated
from policyguard.evidence.archive_tar import is_tar, tar_members
from policyguard.evidence.archive_zip import END, LOCAL, NoZip, ends_as_zip
from policyguard.evidence.checkpoint_arrays import HeaderProblem, npy_data, scan_safetensors
from policyguard.evidence.checkpoint_report import CODE_SUFFIXES, DEFAULT_LIMITS, Exhausted, Findings, Verdict
from policyguard.evidence.checkpoint_zip import scan_zip
from policyguard.evidence.hub import named_by
from policyguard.evidence.pickle_allowlist import is_standard, judged
from policyguard.evidence.pickle_file import probe, scan_pickles, scan_torch_tar, scan_whole
from policyguard.evidence.pickle_machine import Broken, Dialect, Machine

_NPY = b"\x93NUMPY"
_OPAQUE = {
    b"GGUF": "gguf", b"ggjt": "ggml", b"\x89HDF\r\n\x1a\n": "hdf5", b"\x7fELF": "executable", b"MZ": "executable",
    b"\xca\xfe\xba\xbe": "executable", b"\xcf\xfa\xed\xfe": "executable", b"SQLite format 3\0": "sqlite",
    b"Rar!": "rar",
    b"PAR1": "parquet", b"ARROW1": "arrow", b"%PDF": "pdf", b"<?xml": "xml",
}  # fmt: skip
"""Known formats that this scanner names and does not read: never clean."""
_TORCH_TAR = {"sys_info", "pickle", "storages", "tensors"}
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PYTHON_TAG = re.compile(r"!!?python/|!<tag:yaml\.org,2002:python/|tag:yaml\.org,2002:python/")
_NAMED_CODE = {"own": "hub.own_code", "foreign": "hub.foreign_code", "kernel": "hub.remote_kernels"}
"""`import` is left out: an adapter that names an installed library is as good as the environment is."""
_TARGET = re.compile(r"""_target_["']?[ \t]*:[ \t]*["']?([\w.]+)""", re.ASCII)
"""hydra's `instantiate`, as in NeMo's archives; in YAML only in its plain spelling."""
_HARMLESS_TARGETS = ("collections", "datetime", "decimal", "fractions", "math", "pathlib", "uuid")
_LFS = b"version https://git-lfs.github.com/spec/"
_PICKLED = {"pickle", "joblib", "torch_legacy", "torch_tar"}


def scan_content(source: Source, findings: Findings, depth: int = 0) -> str:
    """Return the format of the source; findings hold everything that stands against it. Raises nothing on data."""
    # INVARIANT I113: whatever the bytes, the answer is a format and findings; a limit or a defect is one of them.
    try:
        if depth > findings.limits.depth:
            raise Exhausted("ckpt.too_deep", f"more than {findings.limits.depth} levels")
        findings.check_time()
        return _scan(source, findings, depth)
    except Exhausted as limit:
        findings.add(limit.code, limit.detail)
    except Truncated:
        findings.add("ckpt.truncated")
    except Broken as problem:
        findings.add("ckpt.pickle_broken", str(problem))
    except (NoZip, PackedBroken) as problem:
        findings.add("ckpt.archive_broken", str(problem))
    except (RecursionError, MemoryError):
        findings.add("ckpt.too_deep", "nested data")
    return "unknown"


def _scan(source: Source, findings: Findings, depth: int) -> str:
    head = source.read(0, 512)
    if not head:
        findings.add("ckpt.empty")
        return "empty"
    if head[:4] in (LOCAL, END):
        return scan_zip(source, findings, depth, scan_content)
    kind = _other_than_zip(source, head, findings, depth)
    # INVARIANT I105: the reader chooses how to read; what one reader takes for data must not be code for another.
    if kind not in _PICKLED and kind not in ("text", "json") and probe(source, findings):
        findings.add("ckpt.polyglot", f"{kind} that is also a pickle")
    if ends_as_zip(source):
        findings.add("ckpt.polyglot", f"{kind} that ends as a zip archive")
        scan_zip(source, findings, depth, scan_content)
    return kind


def _other_than_zip(source: Source, head: bytes, findings: Findings, depth: int) -> str:
    if head[:6] == _NPY:
        return _npy(source, findings, depth)
    if head[:6] == SEVEN_ZIP:
        return _seven_zip(source, findings, depth)
    if is_tar(head):
        return _tar(source, findings, depth)
    packing = compression_of(head)
    if packing is not None:
        kind = _packed(source, packing, findings, depth)
        if kind:
            return kind
    for magic, name in _OPAQUE.items():
        if head.startswith(magic):
            findings.add("ckpt.code_file" if name == "executable" else "ckpt.format_opaque", name)
            return name
    if _is_safetensors(source, head):
        scan_safetensors(source, findings)
        return "safetensors"
    if _is_pickle(source, head, findings):
        return scan_pickles(source, findings, lambda inner: _nested(inner, findings, depth))
    return _text(source, head, findings)


def _nested(source: Source, findings: Findings, depth: int) -> None:
    scan_content(source, findings, depth + 1)


def _is_safetensors(source: Source, head: bytes) -> bool:
    return (
        len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= max(source.size, 100_000_000)
    )


def _is_pickle(source: Source, head: bytes, findings: Findings) -> bool:
    """A protocol 2 header, or bytes that a plain reader takes for a whole pickle or that make it call something."""
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return True
    trial = Findings(limits=findings.limits, clock=findings.clock)
    try:
        Machine(Cursor(source), trial, Dialect()).run()
    except (Broken, Truncated):
        return probe(source, findings)
    return True


def _npy(source: Source, findings: Findings, depth: int) -> str:
    try:
        data, is_object = npy_data(source)
    except HeaderProblem as problem:
        findings.add("ckpt.npy_header", str(problem))
        return "npy"
    if is_object:
        scan_whole(data, findings, Dialect(nested=lambda inner: _nested(inner, findings, depth)))
    return "npy"


def _seven_zip(source: Source, findings: Findings, depth: int) -> str:
    members = seven_zip_members(source, findings)
    if members is None:
        findings.add("ckpt.compression_unknown", "7z; install the extra `scan` to read it")
    for _, content in members or ():
        scan_content(content, findings, depth + 1)
    return "7z"


def _tar(source: Source, findings: Findings, depth: int) -> str:
    members: Sequence[tuple[str, Source]] = list(tar_members(source, findings))
    names = [name.casefold() for name, _ in members]
    if len(set(names)) != len(names):
        findings.add("ckpt.archive_duplicate", "in a tar archive")
    if {name for name, _ in members} >= {"pickle", "storages"} and {name for name, _ in members} <= _TORCH_TAR:
        scan_torch_tar(dict(members), findings)
        return "torch_tar"
    for name, content in members:
        if name.casefold().endswith(CODE_SUFFIXES):
            findings.add("ckpt.code_file", name)
        if content.size:
            scan_content(content, findings, depth + 1)
    return "tar"


def _packed(source: Source, packing: str, findings: Findings, depth: int) -> str:
    if not packing:
        findings.add("ckpt.compression_unknown", "lz4, zstd or compress")
        return "compressed"
    try:
        inner = unpacked(source, packing, findings)
    except PackedBroken:
        if packing in ("zlib", "lzma"):
            # Both have two-byte signatures: text and raw data hit them by chance.
            return ""
        raise
    kind = scan_content(inner, findings, depth + 1)
    return "joblib" if kind in ("pickle", "joblib") else packing


def _text(source: Source, head: bytes, findings: Findings) -> str:
    if source.size > findings.limits.text_bytes or b"\0" in head:
        return _unknown(head, findings)
    try:
        text = source.read(0, source.size).decode("utf-8")
    except UnicodeDecodeError:
        return _unknown(head, findings)
    if _CONTROL.search(text):
        return _unknown(head, findings)
    if head.startswith(_LFS):
        findings.add("ckpt.format_opaque", "a git-lfs pointer; the file itself was not fetched")
        return "lfs_pointer"
    if _PYTHON_TAG.search(text) or text.startswith("#!"):
        findings.add("ckpt.code_file", "text that names code to run")
    for match in _TARGET.finditer(text):
        _target(match[1], findings)
    if text.lstrip()[:1] in ("{", "["):
        return _json(text, findings)
    return "text"


def _json(text: str, findings: Findings) -> str:
    """A model's configuration is data that says where its code is; every entry counts, also one of two of a name."""

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # INVARIANT I243: a configuration that names code for its loader is not clean, wherever in the file it does.
        for key, value in pairs:
            if key == "_target_" and type(value) is str:
                _target(value, findings)
            for kind, name in named_by(key, value) or ():
                if kind in _NAMED_CODE:
                    findings.add(_NAMED_CODE[kind], name)
        return dict(pairs)

    try:
        json.loads(text, object_pairs_hook=members)
    except (ValueError, RecursionError):
        return "text"
    return "json"


def _target(name: str, findings: Findings) -> None:
    """A class is what such entries are for; a function of the standard library is an attack, a library's a question."""
    module, _, function = name.rpartition(".")
    if module.partition(".")[0] in _HARMLESS_TARGETS or judged(module, function) is not Verdict.HOSTILE:
        return
    if is_standard(module) or not module:
        findings.add("ckpt.target_call", name)
    elif not function[:1].isupper():
        findings.add("ckpt.target_unlisted", name)


def _unknown(head: bytes, findings: Findings) -> str:
    if (
        head[:1] == b"\x08"
        and head[1:2] in tuple(bytes([n]) for n in range(1, 16))
        and head[2:3] in (b"\x12", b"\x1a", b":", b"B")
    ):
        # onnx.proto: ir_version (field 1), then producer_name, producer_version, graph or opset_import.
        findings.add("ckpt.format_opaque", "onnx")
        return "onnx"
    findings.add("ckpt.format_unknown")
    return "unknown"


__all__ = ["DEFAULT_LIMITS", "scan_content"]
