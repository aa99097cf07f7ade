"""What bytes are and whether they can carry code, by their content and never by their name.

`scan_content` names the format and walks into whatever archives there are; each part must be explained by its format or
be clean itself. The formats and the readers they come from are in `docs/scan.md`.
"""

from __future__ import annotations

from collections.abc import Sequence

from policyguard.scan.archives.compressed import PackedBroken, compression_of, unpacked
from policyguard.scan.archives.sevenzip import MAGIC as SEVEN_ZIP
from policyguard.scan.archives.sevenzip import seven_zip_members
from policyguard.scan.archives.tar import is_tar, tar_members
from policyguard.scan.archives.zip import END, LOCAL, NoZip, ends_as_zip
from policyguard.scan.findings import CODE_SUFFIXES, DEFAULT_LIMITS, Exhausted, Findings
from policyguard.scan.formats.arrow import CONTINUATION, FILE_MAGIC, scan_arrow
from policyguard.scan.formats.gguf import MAGIC as GGUF
from policyguard.scan.formats.gguf import scan_gguf
from policyguard.scan.formats.hdf5 import MAGIC as HDF5
from policyguard.scan.formats.hdf5 import scan_hdf5
from policyguard.scan.formats.numpy_safetensors import HeaderProblem, npy_data, scan_safetensors
from policyguard.scan.formats.onnx import looks_like_onnx, scan_onnx
from policyguard.scan.formats.parquet import ENCRYPTED, scan_parquet
from policyguard.scan.formats.parquet import MAGIC as PARQUET
from policyguard.scan.formats.text import scan_text
from policyguard.scan.formats.torch_zip import scan_zip
from policyguard.scan.pickles.files import probe, scan_pickles, scan_torch_tar, scan_whole
from policyguard.scan.pickles.machine import Broken, Dialect, Machine
from policyguard.scan.source import Cursor, Source, Truncated

_NPY = b"\x93NUMPY"
_OPAQUE = {
    b"ggjt": "ggml",
    b"\x7fELF": "executable",
    b"MZ": "executable",
    b"\xca\xfe\xba\xbe": "executable",
    b"\xcf\xfa\xed\xfe": "executable",
    b"SQLite format 3\0": "sqlite",
    b"Rar!": "rar",
    b"%PDF": "pdf",
    b"<?xml": "xml",
}
"""Known formats that this scanner names and does not read: never clean."""
_READ = {
    PARQUET: scan_parquet,
    ENCRYPTED: scan_parquet,
    FILE_MAGIC: scan_arrow,
    CONTINUATION: scan_arrow,
    GGUF: scan_gguf,
    HDF5: scan_hdf5,
}
"""Formats that their first bytes name and that are walked to their last."""
_TORCH_TAR = {"sys_info", "pickle", "storages", "tensors"}
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
    # A tar's members are looked at one by one; the last may be an archive, and the first begins where HDF5 may.
    if kind in ("tar", "torch_tar"):
        return kind
    if ends_as_zip(source):
        findings.add("ckpt.polyglot", f"{kind} that ends as a zip archive")
        scan_zip(source, findings, depth, scan_content)
    if kind != "hdf5" and _holds_hdf5(source):
        findings.add("ckpt.polyglot", f"{kind} that is also an HDF5 file")
    return kind


def _holds_hdf5(source: Source) -> bool:
    """HDF5's readers look for its signature at 0, 512 and every doubling."""
    at = 512
    while at < source.size:
        if source.read(at, len(HDF5)) == HDF5:
            return True
        at *= 2
    return False


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
    kind = _by_magic(source, head, findings)
    if kind:
        return kind
    if looks_like_onnx(head):
        return scan_onnx(source, findings)
    if _is_safetensors(source, head):
        scan_safetensors(source, findings)
        return "safetensors"
    if _is_pickle(source, head, findings):
        return scan_pickles(source, findings, lambda inner: _nested(inner, findings, depth))
    return scan_text(source, head, findings)


def _by_magic(source: Source, head: bytes, findings: Findings) -> str:
    """Return the format that the first bytes name, after it was walked if it is one that is read; else ""."""
    for magic, scan in _READ.items():
        if head.startswith(magic):
            return scan(source, findings)
    for magic, name in _OPAQUE.items():
        if head.startswith(magic):
            findings.add("ckpt.code_file" if name == "executable" else "ckpt.format_opaque", name)
            return name
    return ""


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


__all__ = ["DEFAULT_LIMITS", "scan_content"]
