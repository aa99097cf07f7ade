"""Runs picklescan on files that our scan calls clean: a file that it reports is hostile, and none becomes clean.

picklescan has a list of dangerous names, we have a list of harmless ones, so each may catch what the other misses. It
only gets clean files, which were read within every limit, because its parser has no limits.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from policyguard.errors import ConfigurationError
from policyguard.fs.safe_open import open_plain
from policyguard.scan.findings import CheckpointScan, Reason, Verdict
from policyguard.text import printable_ascii

_SUFFIXES = {
    "pickle": ".pkl",
    "joblib": ".pkl",
    "torch_zip": ".pt",
    "torch_legacy": ".pt",
    "npy": ".npy",
    "npz": ".npz",
    "zip": ".zip",
    "7z": ".7z",
}
"""The suffix for each format: picklescan chooses its reader by suffix, our scan by content."""


class SecondOpinion:
    """picklescan, from the extra `scan`, imported once."""

    def __init__(self) -> None:
        """Import picklescan.

        Raises:
            ConfigurationError: it is not installed.
        """
        try:
            # From the extra `scan`; without it, only a request for a second opinion is refused.
            import picklescan.scanner as scanner
        except ImportError as problem:
            raise ConfigurationError(
                "a second opinion needs picklescan, which is not installed",
                help="install policyguard with the extra `scan`, or leave --second-opinion out",
            ) from problem
        logging.getLogger("picklescan").setLevel(logging.CRITICAL)
        self._scanner: Any = scanner

    def on(self, scan: CheckpointScan) -> CheckpointScan:
        """Return the scan, changed to hostile with `ckpt.second_opinion` if picklescan reports a clean file.

        Where picklescan cannot read a file, the verdict does not change.
        """
        if scan.verdict is not Verdict.CLEAN or scan.format not in _SUFFIXES:
            return scan
        accused = self._accused(Path(scan.path), _SUFFIXES[scan.format])
        if not accused:
            return scan
        reason = Reason("ckpt.second_opinion", printable_ascii(f"picklescan: {', '.join(accused)}", 160))
        return replace(scan, verdict=Verdict.HOSTILE, reasons=(*scan.reasons, reason))

    def _accused(self, path: Path, suffix: str) -> list[str]:
        try:
            with open(open_plain(path, follow_links=True)[0], "rb") as file:
                result = self._scanner.scan_bytes(file, str(path), suffix)
        except Exception:  # noqa: BLE001 - a guest's parser raises anything on damaged data
            return []
        dangerous = self._scanner.SafetyLevel.Dangerous
        names = sorted({f"{item.module}.{item.name}" for item in result.globals if item.safety is dangerous})
        return names or (["an import it does not name"] if result.issues_count else [])


__all__ = ["SecondOpinion"]
