"""Files that a file names: what they hold was not read, and where they lie may be none of the reader's business."""

from __future__ import annotations

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.findings import Findings


def check_location(name: str, findings: Findings) -> None:
    """Findings hold that data lies in the file of this name, and whether it leads out of the folder."""
    # INVARIANT I18: a file that names another one for its data is not clean, and hostile if that lies elsewhere.
    if leaves_folder(name) or "://" in name or name.startswith("~"):
        findings.add("ckpt.external_path", name)
    else:
        findings.add("ckpt.external_data", name)
