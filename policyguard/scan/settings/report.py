"""Records the findings of settings rules: a reason code, the name concerned, and the path to it."""

from __future__ import annotations

from dataclasses import dataclass

from policyguard.scan.archives.zip import leaves_folder
from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.settings.names import judge_name
from policyguard.scan.settings.tree import Location


@dataclass(frozen=True, slots=True)
class Report:
    """Adds findings for one file; its name can only make a verdict stricter."""

    findings: Findings
    name: str = ""

    def add(self, code: str, detail: str, location: Location) -> None:
        """Add a finding at this path.

        Args:
            code: a key of `REASONS`.
            detail: what it is about.
            location: the path to it.
        """
        self.findings.add(code, detail, str(location))

    def check_time(self) -> None:
        """Raise `Exhausted` if the time of the scan is up."""
        self.findings.check_time()

    def called(self, name: str, location: Location) -> None:
        """Add a finding for a name that a loader imports and calls, unless it is listed."""
        # INVARIANT I18: settings that name code are clean only if the whole name is listed.
        verdict = judge_name(name)
        if verdict is not Verdict.CLEAN:
            self.add("ckpt.target_call" if verdict is Verdict.HOSTILE else "ckpt.target_unlisted", name, location)

    def path(self, name: str, location: Location) -> None:
        """Add a finding for a file that a loader opens by this name, if it is outside the folder."""
        # INVARIANT I18: settings that lead a loader out of their folder are not clean.
        if leaves_folder(name) or "://" in name or name.startswith("~"):
            self.add("ckpt.external_path", name, location)
