"""Format for code-scanning services: SARIF 2.1.0, with the whole catalogue as rule metadata.

Source: OASIS Static Analysis Results Interchange Format (SARIF) Version 2.1.0; the tests validate against its schema.
"""

from __future__ import annotations

import json
from typing import Any

from policyguard.lint.catalogue import catalogue
from policyguard.lint.report import Report
from policyguard.lint.rule import Finding, Rule, Severity
from policyguard.lint.suppressions import Suppression
from policyguard.values import Span

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Severity, str] = {"error": "error", "warning": "warning", "information": "note"}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def to_sarif(report: Report) -> str:
    """Format the report as a SARIF log with one run; suppressed findings are included and marked."""
    rules = list(catalogue().values())
    index = {rule.code: position for position, rule in enumerate(rules)}
    results = [
        _result(finding, index) | {"partialFingerprints": {"policyguard/v1": fingerprint}}
        for finding, fingerprint in zip(report.findings, report.fingerprints(), strict=True)
    ]
    results += [_result(finding, index) | _suppressed(by) for finding, by in report.suppressed]
    driver = {"name": "policyguard", "rules": [_rule(rule) for rule in rules]}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "help": {"text": f"{rule.summary} {rule.help}", "markdown": f"{rule.summary}\n\n{rule.help}"},
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        "properties": {"producedBy": rule.produced_by, "fixable": rule.fixable},
    }


def _result(finding: Finding, index: dict[str, int]) -> dict[str, Any]:
    text = finding.message if finding.help is None else f"{finding.message}; {finding.help}"
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": _LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [_location(finding.span)],
    }
    if finding.code in index:
        result["ruleIndex"] = index[finding.code]
    if finding.related:
        result["relatedLocations"] = [_location(span) for span in finding.related]
    return result


def _location(span: Span) -> dict[str, Any]:
    region = {"startLine": span.line, "startColumn": span.column}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(span.file)}, "region": region}}


def _uri(file: str) -> str:
    """Encode a file name as a relative URI reference (RFC 3986) with forward slashes."""
    data = file.replace("\\", "/").encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in data)


def _suppressed(by: Suppression) -> dict[str, Any]:
    justification = f"until {by.until}: {by.reason}"
    return {"suppressions": [{"kind": "inSource", "status": "accepted", "justification": justification}]}
