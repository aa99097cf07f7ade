"""Data files that a model file names: they are not scanned with it, and may be outside its folder."""

from __future__ import annotations

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.findings import Findings


def check_location(name: str, findings: Findings) -> None:
    """Add a finding for data in another file; hostile if its path leaves the folder."""
    # INVARIANT I18: a file that names another one for its data is not clean, and hostile if that lies elsewhere.
    if leaves_folder(name) or "://" in name or name.startswith("~"):
        findings.add("ckpt.external_path", name)
    else:
        findings.add("ckpt.external_data", name)
