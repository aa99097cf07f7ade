"""Format for build servers: JUnit XML, a failed test case per finding and a skipped one per suppression."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from policyguard.lint.report import Report
from policyguard.lint.rule import Finding
from policyguard.text import printable


def to_junit(report: Report) -> str:
    """Format the report as JUnit XML; without findings it has one passed test case."""
    cases = len(report.findings) + len(report.suppressed) or 1
    counts = {"tests": str(cases), "failures": str(len(report.findings)), "skipped": str(len(report.suppressed))}
    suites = Element("testsuites", name="policyguard", tests=counts["tests"], failures=counts["failures"])
    suite = SubElement(suites, "testsuite", {"name": "policyguard.lint", "errors": "0", **counts})
    for finding in report.findings:
        failure = SubElement(
            _case(suite, finding), "failure", type=finding.severity, message=printable(finding.message)
        )
        failure.text = _details(finding)
    for finding, suppression in report.suppressed:
        reason = f"until {suppression.until}: {suppression.reason}"
        SubElement(_case(suite, finding), "skipped", message=printable(reason))
    if len(suite) == 0:
        SubElement(suite, "testcase", classname="policyguard.lint", name="no findings")
    indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _case(suite: Element, finding: Finding) -> Element:
    span = finding.span
    name = f"{finding.code} {finding.name} at {span.line}:{span.column}"
    return SubElement(suite, "testcase", classname=printable(span.file), name=name)


def _details(finding: Finding) -> str:
    help_ = f"\n{printable(finding.help)}" if finding.help is not None else ""
    return f"{printable(str(finding.span))}: {finding.severity} {finding.code}: {printable(finding.message)}{help_}"
