"""Format for programs: one JSON object with stable names; every finding has its fingerprint."""

from __future__ import annotations

import json
from typing import Any

from policyguard.lint.report import Report
from policyguard.lint.rule import SEVERITIES, Finding
from policyguard.values import Span

FORMAT = 1
"""Incremented when a name in the output changes its meaning, not when a name is added."""


def to_json(report: Report) -> str:
    """Format the report as one indented JSON object."""
    data = {
        "format": FORMAT,
        "clean": report.clean,
        "counts": {severity: report.count(severity) for severity in SEVERITIES}
        | {"suppressed": len(report.suppressed), "baselined": report.baselined},
        "findings": [
            _finding(finding) | {"fingerprint": fingerprint}
            for finding, fingerprint in zip(report.findings, report.fingerprints(), strict=True)
        ],
        "suppressed": [
            _finding(finding) | {"reason": by.reason, "until": by.until} for finding, by in report.suppressed
        ],
    }
    return json.dumps(data, indent=2) + "\n"


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity,
        **_location(finding.span),
        "message": finding.message,
        "help": finding.help,
        "fixable": finding.fixable,
        "stops_load": finding.stops_load,
        "related": [_location(span) for span in finding.related],
    }


def _location(span: Span) -> dict[str, Any]:
    return {"file": span.file, "line": span.line, "column": span.column}
