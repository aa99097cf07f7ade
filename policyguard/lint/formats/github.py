"""Format for GitHub Actions: one workflow command per finding, shown at its line in the pull request.

Source: "Workflow commands for GitHub Actions", setting an error message; escaping as in actions/toolkit `command.ts`.
"""

from __future__ import annotations

from policyguard.lint.report import Report
from policyguard.lint.rule import Finding, Severity
from policyguard.text import printable

_COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "information": "notice"}


def to_github(report: Report) -> str:
    """Format each finding as a line `::error file=...::message`; empty without findings."""
    return "".join(f"{_command(finding)}\n" for finding in report.findings)


def _command(finding: Finding) -> str:
    span = finding.span
    title = _property(f"{finding.code} {finding.name}")
    location = f"file={_property(span.file)},line={span.line},col={span.column},title={title}"
    message = finding.message if finding.help is None else f"{finding.message}; {finding.help}"
    return f"::{_COMMANDS[finding.severity]} {location}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
