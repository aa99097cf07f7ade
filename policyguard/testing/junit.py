"""Outcomes of tests as JUnit XML, for build servers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from policyguard.testing.run import Outcome, count_results
from policyguard.text import printable


def to_junit(outcomes: Sequence[Outcome]) -> str:
    """Format outcomes as JUnit XML, a test case each."""
    results = count_results(outcomes)
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(results["failed"]),
        "errors": "0",
        "skipped": str(results["skipped"]),
    }
    suites = Element("testsuites", name="policyguard", tests=counts["tests"], failures=counts["failures"])
    suite = SubElement(suites, "testsuite", {"name": "policyguard.test", **counts})
    for outcome in outcomes:
        span = outcome.case.span
        case = SubElement(
            suite,
            "testcase",
            classname=printable(span.file),
            name=printable(outcome.case.name),
            file=printable(span.file),
            line=str(span.line),
        )
        if outcome.case.skip is not None:
            SubElement(case, "skipped", message=printable(outcome.case.skip))
        elif outcome.problem and outcome.decision is not None:
            failure = SubElement(case, "failure", message=printable(outcome.problem))
            failure.text = printable(outcome.decision.explain())
    indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(suites, encoding="unicode")}\n'
