"""The table of file formats: how each is recognised, named and read. Opens no file.

To add a format:

1. Write `scan/formats/<format>.py` with `scan_<format>(source, findings)`. It walks every byte of the layout, adds a
   finding for each thing that it does not understand, and returns the name of the format.
2. Add one row to `FORMATS`. Rows are tried from the first to the last, so a row that is recognised by more than its
   first bytes goes behind those with `magic`. A format inside a zip archive is a row of `_zipped`: its function
   `claims` an archive by its members, and checks what only this format has.
3. Put a harmless sample into `tests/data/scan/benign`, and hostile ones into `tests/attacks/test_formats_hostile.py`.
4. Add the format to the table in `docs/scan.md`.

The tests of this module fail until each row has a category, a scan function, and either `magic` or `recognise`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from policyguard.scan.archives import compressed, sevenzip, tar, zip
from policyguard.scan.findings import CheckpointScan, Findings, Verdict
from policyguard.scan.formats import arrow, gguf, hdf5, opaque, parquet
from policyguard.scan.formats.containers import (
    Inner,
    is_pickle,
    scan_compressed,
    scan_npy,
    scan_opaque,
    scan_pickle,
    scan_seven_zip,
    scan_tar,
)
from policyguard.scan.formats.keras_zip import is_keras
from policyguard.scan.formats.numpy_safetensors import NPY_MAGIC, is_safetensors, scan_safetensors
from policyguard.scan.formats.onnx import is_onnx, scan_onnx
from policyguard.scan.formats.sentencepiece import is_sentencepiece, scan_sentencepiece
from policyguard.scan.formats.skops import is_skops
from policyguard.scan.formats.text import scan_text
from policyguard.scan.formats.torch_export import is_program
from policyguard.scan.formats.torch_zip import is_torch, scan_torch
from policyguard.scan.formats.zip_files import ZipLayout, scan_zip
from policyguard.scan.source import Source

Category = Literal["safetensors", "pickle", "other", "side file", "unknown"]
"""`other` is arrays, models, tables and packed files; a `side file` accompanies weights."""

Scan = Callable[[Source, Findings, Inner], str]
Recognise = Callable[[Source, bytes, Findings], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One row of the table of formats.

    `magic` are the first bytes, any of them; `recognise` decides where those do not. `suffixes` are lower case. With
    `is_exclusive` a file with such a name that holds another format is `ckpt.format_spoof`. `holds_tables` marks data
    to train on, which is no checkpoint by its name alone. `layout` is for formats inside a zip archive.
    """

    name: str
    category: Category
    scan: Scan
    magic: tuple[bytes, ...] = ()
    recognise: Recognise | None = None
    suffixes: tuple[str, ...] = ()
    is_exclusive: bool = False
    layout: ZipLayout | None = None
    holds_tables: bool = False

    def begins(self, source: Source, head: bytes, findings: Findings) -> bool:
        """Return True if the content may be of this format; `scan` decides.

        Args:
            source: the bytes to scan.
            head: the first bytes of the source.
            findings: takes what is found.
        """
        if head.startswith(self.magic):
            return self.recognise is None or self.recognise(source, head, findings)
        return not self.magic and self.recognise is not None and self.recognise(source, head, findings)


def _alone(scan: Callable[[Source, Findings], str]) -> Scan:
    """Adapt a reader whose format contains no other files."""
    return lambda source, findings, _: scan(source, findings)


def _by_head(test: Callable[[bytes], bool]) -> Recognise:
    return lambda _source, head, _findings: test(head)


def _by_compression(name: str) -> Recognise:
    return lambda _source, head, _findings: compressed.compression_of(head) == name


def _always(_source: Source, _head: bytes, _findings: Findings) -> bool:
    return True


_TEXT = _alone(scan_text)
_IS_TAR = _by_head(tar.is_tar)
_ZIP = (zip.LOCAL, zip.END)


def scan_zip_file(source: Source, findings: Findings, inner: Inner) -> str:
    """Scan a zip archive; the rows with a layout say which formats it may be of.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    return scan_zip(source, findings, inner, {one.name: one.layout for one in FORMATS if one.layout})


def _zipped(
    name: str, category: Category, suffixes: tuple[str, ...] = (), is_exclusive: bool = False, **layout: Any
) -> Format:
    """Build the row of a format inside a zip archive."""
    return Format(
        name=name,
        category=category,
        scan=scan_zip_file,
        magic=_ZIP,
        suffixes=suffixes,
        is_exclusive=is_exclusive,
        layout=ZipLayout(**layout),
    )


_PICKLE_SUFFIXES = (".pkl", ".pickle", ".pk", ".pckl", ".dill", ".distcp", ".metadata")
FORMATS: tuple[Format, ...] = (
    _zipped("torch_zip", "pickle", (".pt", ".pth", ".bin", ".ckpt", ".ptl"), claims=is_torch, scan=scan_torch),
    _zipped("torch_shard", "pickle", series_of="torch_zip"),
    _zipped("torchscript", "pickle"),
    _zipped("keras", "other", (".keras",), claims=is_keras),
    _zipped("skops", "other", (".skops",), claims=is_skops),
    _zipped("torch_export", "pickle", (".pt2",), claims=is_program),
    _zipped("npz", "other", (".npz",), is_exclusive=True, holds="npy"),
    _zipped("zip", "other", (".zip", ".mar")),
    Format(name="npy", category="other", scan=scan_npy, magic=(NPY_MAGIC,), suffixes=(".npy",), is_exclusive=True),
    Format(name="7z", category="other", scan=scan_seven_zip, magic=(sevenzip.MAGIC,), suffixes=(".7z",)),
    Format(name="torch_tar", category="pickle", scan=scan_tar, recognise=_IS_TAR),
    Format(
        name="tar",
        category="other",
        scan=scan_tar,
        recognise=_IS_TAR,
        suffixes=(".tar", ".nemo"),
    ),
    *(
        Format(
            name=name,
            category="other",
            scan=scan_compressed,
            recognise=_by_compression(name),
            suffixes=suffixes,
        )
        for name, suffixes in compressed.SUFFIXES.items()
    ),
    Format(
        name="compressed",
        category="unknown",
        scan=scan_compressed,
        recognise=_by_compression(""),
    ),
    Format(
        name="parquet",
        category="other",
        scan=_alone(parquet.scan_parquet),
        magic=(parquet.MAGIC, parquet.ENCRYPTED),
        suffixes=(".parquet",),
        is_exclusive=True,
        holds_tables=True,
    ),
    Format(
        name="arrow",
        category="other",
        scan=_alone(arrow.scan_arrow),
        magic=(arrow.FILE_MAGIC, arrow.CONTINUATION),
        suffixes=(".arrow", ".feather"),
        is_exclusive=True,
        holds_tables=True,
    ),
    Format(
        name="gguf",
        category="other",
        scan=_alone(gguf.scan_gguf),
        magic=(gguf.MAGIC,),
        suffixes=(".gguf",),
        is_exclusive=True,
    ),
    Format(
        name="hdf5",
        category="other",
        scan=_alone(hdf5.scan_hdf5),
        magic=(hdf5.MAGIC,),
        suffixes=(".h5", ".hdf5"),
        is_exclusive=True,
    ),
    # Recognised but not read: never clean.
    Format(name="ggml", category="unknown", scan=scan_opaque("ggml"), magic=(b"ggjt",)),
    Format(
        name="executable",
        category="unknown",
        scan=scan_opaque("executable", "ckpt.code_file"),
        magic=(b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe"),
    ),
    Format(name="sqlite", category="unknown", scan=scan_opaque("sqlite"), magic=(b"SQLite format 3\0",)),
    Format(name="rar", category="unknown", scan=scan_opaque("rar"), magic=(b"Rar!",)),
    Format(name="pdf", category="unknown", scan=scan_opaque("pdf"), magic=(b"%PDF",)),
    Format(name="xml", category="unknown", scan=scan_opaque("xml"), recognise=_by_head(opaque.is_xml)),
    Format(name="r_data", category="unknown", scan=scan_opaque("r_data"), recognise=_by_head(opaque.is_r_data)),
    Format(name="tflite", category="unknown", scan=scan_opaque("tflite"), recognise=_by_head(opaque.is_tflite)),
    Format(name="catboost", category="unknown", scan=scan_opaque("catboost"), magic=(b"CBM1",)),
    Format(name="matlab", category="unknown", scan=scan_opaque("matlab"), magic=opaque.MATLAB),
    Format(
        name="sentencepiece",
        category="side file",
        scan=_alone(scan_sentencepiece),
        recognise=_by_head(is_sentencepiece),
    ),
    Format(
        name="onnx",
        category="other",
        scan=_alone(scan_onnx),
        recognise=_by_head(is_onnx),
        suffixes=(".onnx",),
        is_exclusive=True,
    ),
    Format(
        name="safetensors",
        category="safetensors",
        scan=_alone(scan_safetensors),
        recognise=lambda source, head, _: is_safetensors(source, head),
        suffixes=(".safetensors",),
        is_exclusive=True,
    ),
    Format(name="joblib", category="pickle", scan=scan_pickle, recognise=is_pickle, suffixes=(".joblib",)),
    Format(name="torch_legacy", category="pickle", scan=scan_pickle, recognise=is_pickle),
    Format(
        name="pickle",
        category="pickle",
        scan=scan_pickle,
        recognise=is_pickle,
        suffixes=_PICKLE_SUFFIXES,
    ),
    # Everything else is text, or unknown.
    Format(name="json", category="side file", scan=_TEXT, recognise=_always),
    Format(name="lfs_pointer", category="side file", scan=_TEXT, recognise=_always),
    Format(name="text", category="side file", scan=_TEXT, recognise=_always),
    Format(name="unknown", category="unknown", scan=_TEXT, recognise=_always),
)
BY_NAME = {one.name: one for one in FORMATS}
BY_SUFFIX = {suffix: one for one in FORMATS for suffix in one.suffixes}
SIDE_FILES = (*(one.name for one in FORMATS if one.category == "side file"), "empty")
"""Formats of files beside weights. An empty file has no format."""

UNDECIDED = ("unknown", "empty", "lfs_pointer")
"""The formats reported for content that was not read; no file name contradicts them."""


def scan_format(source: Source, head: bytes, findings: Findings, inner: Inner) -> str:
    """Read the content with the first row that recognises it.

    Args:
        head: the first 512 bytes.
        findings: receives a finding for everything that keeps the file from being clean.
        inner: scans a part of the file, one level deeper.

    Returns:
        The name of the format; `unknown` if no row reads it.
    """
    tried: set[object] = set()
    for one in FORMATS:
        # Several formats share a reader and a test: the reader's answer holds for all of them.
        reader = (one.scan, one.recognise)
        if reader not in tried:
            tried.add(reader)
            if one.begins(source, head, findings) and (name := one.scan(source, findings, inner)):
                return name
    return "unknown"


def begins_as_model(source: Source, head: bytes, findings: Findings) -> bool:
    """Return True if a file begins as weights, a pickle or an archive; text, images and programs do not.

    Args:
        source: the bytes.
        head: the first 512 of them.
        findings: its limits apply.
    """
    models = (one for one in FORMATS if one.category in ("safetensors", "pickle", "other"))
    return bool(head) and any(one.begins(source, head, findings) for one in models)


def is_read_as(name: str, scan: Scan) -> bool:
    """Return True if this is the reader of the format."""
    return name in BY_NAME and BY_NAME[name].scan is scan


def format_category(scan: CheckpointScan) -> Category:
    """Return the category of a file's content: `pickle` if any part is one, `unknown` if not read completely."""
    if scan.pickled:
        return "pickle"
    category = BY_NAME[scan.format].category if scan.format in BY_NAME else "unknown"
    if category == "safetensors":
        return category
    return "other" if category == "other" and scan.verdict is not Verdict.UNKNOWN else "unknown"


def _format_by_suffix(path: str) -> Format | None:
    named = PurePath(path)
    return BY_SUFFIX.get(named.suffix.lower() or named.name)


def category_by_suffix(path: str) -> Category:
    """Return the category that a file's name promises."""
    named = _format_by_suffix(path)
    return "unknown" if named is None else named.category


def is_named_as_checkpoint(path: str) -> bool:
    """Return True for a name that promises weights; tables are scanned only where a job names them."""
    named = _format_by_suffix(path)
    return named is not None and not named.holds_tables


def promised_format(suffix: str) -> str | None:
    """Return the only format for a file with this suffix; None if there are several."""
    named = BY_SUFFIX.get(suffix)
    return named.name if named is not None and named.is_exclusive else None


_PICKLES = {suffix for one in FORMATS if one.category == "pickle" for suffix in one.suffixes} - {".pth"}
"""A `.pth` of text is code: a path file that the interpreter runs."""
_NO_PICKLE = ("text", "json")
_COMPRESSED = tuple(suffix for suffixes in compressed.SUFFIXES.values() for suffix in suffixes)


def check_pickle_name(name: str, kind: str, findings: Findings) -> None:
    """Add a finding if a file is named like a pickle but was not read as one.

    Args:
        name: the name of the file, or of the member of an archive.
        findings: takes what is found.
        kind: the format that the scan of the content says.
    """
    path = PurePath(name)
    packed = path.suffix.lower() in _COMPRESSED and kind in compressed.SUFFIXES and not findings.pickled
    if packed:
        path = path.with_suffix("")
    # The hub's download cache keeps notes of text in `*.metadata`; only the bare name is torch's.
    named = path.suffix.lower() if path.suffix.lower() != ".metadata" else ""
    promises = named in _PICKLES or path.name == ".metadata"
    # INVARIANT I18: a reader of pickles is given this file; what this scan cannot read as one, it may.
    if promises and (packed or kind in _NO_PICKLE):
        findings.add("ckpt.pickle_name", path.name)
