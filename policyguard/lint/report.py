"""A lint report: ordered findings, with fingerprints that survive edits elsewhere in a file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from policyguard.lint.rule import SEVERITIES, Finding, Severity
from policyguard.lint.suppressions import Suppression
from policyguard.values import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Findings ordered by span; `suppressed` pairs each silenced finding with its comment."""

    findings: tuple[Finding, ...]
    suppressed: tuple[tuple[Finding, Suppression], ...] = ()
    baselined: int = 0
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def clean(self) -> bool:
        """True if there is no error and no warning; information does not fail a build."""
        return not any(finding.severity != "information" for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """Count the findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def summary(self) -> str:
        """Return one line such as `2 errors, 1 warning, 3 suppressed`, or `no findings`."""
        parts = [_counted(self.count(severity), severity) for severity in SEVERITIES if self.count(severity)]
        parts += [f"{len(self.suppressed)} suppressed"] if self.suppressed else []
        parts += [f"{self.baselined} in the baseline"] if self.baselined else []
        return ", ".join(parts) if self.findings else ", ".join(["no findings", *parts])

    def line_at(self, span: Span) -> str | None:
        """Return the source line of a span without its line break; None if the file is not in the report."""
        text = self.sources.get(span.file)
        if text is None:
            return None
        lines = _lines(text)
        return lines[span.line - 1].removesuffix("\r") if 0 < span.line <= len(lines) else None

    def fingerprints(self) -> tuple[str, ...]:
        """Return the fingerprints of the findings, in their order.

        A fingerprint is made of code, file, the text of the line and, for equal findings, a number. Lines that are
        added or removed elsewhere do not change it (SARIF 2.1.0, section 3.27.17).
        """
        seen: Counter[str] = Counter()
        prints = []
        for finding in self.findings:
            key = "\0".join((finding.code, finding.span.file, (self.line_at(finding.span) or "").strip()))
            prints.append(hashlib.sha256(f"{key}\0{seen[key]}".encode("utf-8", "surrogatepass")).hexdigest()[:32])
            seen[key] += 1
        return tuple(prints)

    def without(self, baseline: frozenset[str]) -> Report:
        """Return the report without the findings of a baseline; findings that stop the load stay."""
        known = [
            print_ in baseline and not finding.stops_load
            for finding, print_ in zip(self.findings, self.fingerprints(), strict=True)
        ]
        new = tuple(finding for finding, is_known in zip(self.findings, known, strict=True) if not is_known)
        return replace(self, findings=new, baselined=self.baselined + sum(known))


@lru_cache(maxsize=64)
def _lines(text: str) -> list[str]:
    return text.split("\n")


def _counted(number: int, severity: Severity) -> str:
    if severity == "information":
        return f"{number} for information"
    return f"{number} {severity}{'s' if number != 1 else ''}"
