"""Recognises data by its content, never by its name, and reports what can carry code.

`scan_content` determines the format and scans the content of archives; each part must be explained by its format or be
clean itself. `docs/scan.md` describes the formats and their readers; `formats/registry.py` has the table.
"""

from __future__ import annotations

from policyguard.scan.archives.compressed import PackedBroken
from policyguard.scan.archives.zip import NoZip, ends_as_zip
from policyguard.scan.findings import DEFAULT_LIMITS, Exhausted, Findings
from policyguard.scan.formats.containers import Inner, scan_pickle, scan_tar
from policyguard.scan.formats.hdf5 import MAGIC as HDF5
from policyguard.scan.formats.registry import BY_NAME, check_pickle_name, is_read_as, scan_format, scan_zip_file
from policyguard.scan.pickles.files import probe
from policyguard.scan.pickles.machine import Broken
from policyguard.scan.source import Source, Truncated


def scan_content(source: Source, findings: Findings, depth: int = 0) -> str:
    """Scan one source and everything packed in it; never raises on data.

    Args:
        findings: receives a finding for each thing that keeps the file from being clean.
        depth: how many archives the source is packed in.

    Raises:
        Exhausted: files are nested too deep.

    Returns:
        The format of the content, a name of `formats/registry.py`, or `empty`.
    """
    # INVARIANT I18: whatever the bytes, the answer is a format and findings; a limit or a defect is one of them.
    outer, findings.pickled = findings.pickled, False
    kind = "unknown"
    try:
        if depth > findings.limits.depth:
            raise Exhausted("ckpt.too_deep", f"more than {findings.limits.depth} levels")
        findings.check_time()
        kind = _scan(source, findings, lambda part, of_part: scan_content(part, of_part, depth + 1))
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
    check_pickle_name(findings.name, kind, findings)
    findings.pickled |= outer
    return kind


def _scan(source: Source, findings: Findings, inner: Inner) -> str:
    head = source.read(0, 512)
    if not head:
        findings.add("ckpt.empty")
        return "empty"
    kind = scan_format(source, head, findings, inner)
    if is_read_as(kind, scan_zip_file):
        return kind
    # INVARIANT I18: the reader chooses how to read; what one reader takes for data must not be code for another.
    by_pickle = is_read_as(kind, scan_pickle) or BY_NAME[kind].category == "side file"
    if not by_pickle and probe(source, findings):
        findings.add("ckpt.polyglot", f"{kind} that is also a pickle")
    # Each member of a tar is scanned; the last may be an archive, and the first begins where HDF5 may.
    if is_read_as(kind, scan_tar):
        return kind
    if ends_as_zip(source):
        findings.add("ckpt.polyglot", f"{kind} that ends as a zip archive")
        scan_zip_file(source, findings, inner)
    # MATLAB 7.3 writes HDF5 behind a header; what is no format at all is none of two.
    if kind not in ("hdf5", "matlab", "unknown") and _holds_hdf5(source):
        findings.add("ckpt.polyglot", f"{kind} that is also an HDF5 file")
    return kind


def _holds_hdf5(source: Source) -> bool:
    """Return True if the HDF5 signature is where readers search for it: at 0, 512, and every doubling."""
    at = 512
    while at < source.size:
        if source.read(at, len(HDF5)) == HDF5:
            return True
        at *= 2
    return False


__all__ = ["DEFAULT_LIMITS", "scan_content"]
