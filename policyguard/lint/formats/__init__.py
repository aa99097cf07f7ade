"""Formats of a lint report: one module for each, with one function from report to text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policyguard.lint.formats.github import to_github
from policyguard.lint.formats.json import to_json
from policyguard.lint.formats.junit import to_junit
from policyguard.lint.formats.sarif import to_sarif
from policyguard.lint.formats.text import to_text
from policyguard.lint.report import Report

FORMATS: Mapping[str, Callable[[Report], str]] = {
    "text": to_text,
    "json": to_json,
    "sarif": to_sarif,
    "github": to_github,
    "junit": to_junit,
}
"""The values of `--format`. Every text ends with one line break; only that of `github` may be empty."""
