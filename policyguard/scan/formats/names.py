"""File names that promise a pickle. A name never improves a verdict; here it makes plain text suspicious."""

from __future__ import annotations

from pathlib import PurePath

from policyguard.scan.archives.compressed import SUFFIXES
from policyguard.scan.findings import Findings

PICKLE_SUFFIXES = (".pkl", ".pickle", ".distcp", ".metadata")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_PROMISING = {*PICKLE_SUFFIXES, *TORCH_SUFFIXES, ".joblib"} - {".pth"}
"""Suffixes that promise a pickle; a `.pth` of text is a path file, whose lines Python runs."""
_NO_PICKLE = ("text", "json")
_COMPRESSED = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def check_pickle_name(name: str, kind: str, findings: Findings) -> None:
    """Add a finding if a file is named like a pickle but was not read as one.

    Args:
        name: the name of the file, or of the member of an archive.
        findings: takes what is found.
        kind: the format that the scan of the content says.
    """
    path = PurePath(name)
    packed = path.suffix.lower() in _COMPRESSED and kind in SUFFIXES and not findings.pickled
    if packed:
        path = path.with_suffix("")
    # The hub's download cache keeps notes of text in `*.metadata`; only the bare name is torch's.
    named = path.suffix.lower() if path.suffix.lower() != ".metadata" else ""
    promises = named in _PROMISING or path.name == ".metadata"
    # INVARIANT I18: a reader of pickles is given this file; what this scan cannot read as one, it may.
    if promises and (packed or kind in _NO_PICKLE):
        findings.add("ckpt.pickle_name", path.name)
