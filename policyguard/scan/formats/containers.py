"""Readers of files that contain other files or pickles; every part is scanned in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from policyguard.scan.archives.compressed import PackedBroken, compression_of, unpacked
from policyguard.scan.archives.sevenzip import seven_zip_members
from policyguard.scan.archives.tar import tar_members
from policyguard.scan.archives.zip import plain_name
from policyguard.scan.findings import CODE_SUFFIXES, Findings
from policyguard.scan.formats.numpy_safetensors import HeaderProblem, npy_data
from policyguard.scan.pickles.files import begins_as_program, scan_pickles, scan_torch_tar, scan_whole
from policyguard.scan.pickles.machine import Broken, Dialect, Machine
from policyguard.scan.source import Cursor, Source, Truncated

Inner = Callable[[Source, Findings], str]
"""Scans a part of a file, one level deeper, and returns its format."""

_TORCH_TAR = {"sys_info", "pickle", "storages", "tensors"}


def is_pickle(source: Source, head: bytes, findings: Findings) -> bool:
    """Recognise a protocol 2 header, a complete pickle, or bytes that begin like one.

    A whole number or string of protocol 0, and an import of what can run code, are not how text begins.

    Args:
        source: the bytes to scan.
        head: the first bytes of the source.
        findings: its limits apply.
    """
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return True
    trial = Findings(limits=findings.limits, clock=findings.clock)
    machine = Machine(Cursor(source), trial, Dialect())
    try:
        machine.run()
    except (Broken, Truncated):
        # INVARIANT I18: what breaks after a valid prefix is a broken pickle, never text.
        return machine.lines > 0 or begins_as_program(machine)
    return True


def scan_pickle(source: Source, findings: Findings, inner: Inner) -> str:
    """Scan a stream of pickles, including joblib's and torch's older layouts.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    return scan_pickles(source, findings, _nested(findings, inner))


def scan_npy(source: Source, findings: Findings, inner: Inner) -> str:
    """Scan a numpy array; an array of objects is one pickle after a header.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    try:
        data, is_object = npy_data(source)
    except HeaderProblem as problem:
        findings.add("ckpt.npy_header", str(problem))
        return "npy"
    if is_object:
        scan_whole(data, findings, Dialect(nested=_nested(findings, inner)))
    return "npy"


def _nested(findings: Findings, inner: Inner) -> Callable[[Source], None]:
    def scan(part: Source) -> None:
        inner(part, findings)

    return scan


def scan_seven_zip(source: Source, findings: Findings, inner: Inner) -> str:
    """Scan each file of a 7z archive.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    members = seven_zip_members(source, findings)
    if members is None:
        findings.add("ckpt.compression_unknown", "7z; install the extra `scan` to read it")
    _scan_members(members or (), findings, inner)
    return "7z"


def scan_tar(source: Source, findings: Findings, inner: Inner) -> str:
    """Scan each file of a tar archive, which may also be torch's first layout.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    members = list(tar_members(source, findings))
    names = [plain_name(name) for name, _ in members]
    if len(set(names)) != len(names):
        findings.add("ckpt.archive_duplicate", "in a tar archive")
    if {name for name, _ in members} >= {"pickle", "storages"} and {name for name, _ in members} <= _TORCH_TAR:
        scan_torch_tar(dict(members), findings)
        return "torch_tar"
    _scan_members(members, findings, inner)
    return "tar"


def _scan_members(members: Iterable[tuple[str, Source]], findings: Findings, inner: Inner) -> None:
    for name, content in members:
        if name.casefold().endswith(CODE_SUFFIXES):
            findings.add("ckpt.code_file", name)
        if content.size:
            with findings.inside(name):
                inner(content, findings)


def scan_compressed(source: Source, findings: Findings, inner: Inner) -> str:
    """Decompress and scan the content; "" for data that only begins like a compressed file.

    Args:
        source: the bytes to scan.
        findings: takes what is found.
        inner: scans a file inside this one.
    """
    method = compression_of(source.read(0, 512))
    if not method:
        findings.add("ckpt.compression_unknown", "lz4, zstd or compress")
        return "compressed"
    try:
        content = unpacked(source, method, findings)
    except PackedBroken:
        if method in ("zlib", "lzma"):
            # Both have two-byte signatures, which text and raw data can begin with by chance.
            return ""
        raise
    with findings.inside(findings.name.rpartition(".")[0]):
        kind = inner(content, findings)
    return "joblib" if kind in ("pickle", "joblib") else method


def scan_opaque(name: str, code: str = "ckpt.format_opaque") -> Callable[[Source, Findings, Inner], str]:
    """Build the reader for a format that is recognised but not read."""

    def scan(_source: Source, findings: Findings, _inner: Inner) -> str:
        findings.add(code, name)
        return name

    return scan
