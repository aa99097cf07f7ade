"""Format for terminals: span, code, message, the source line with a caret, and help."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyguard.lint.report import Report
from policyguard.lint.rule import Finding, Severity
from policyguard.text import printable

_COLOURS: dict[Severity, str] = {"error": "31", "warning": "33", "information": "36"}
_WORD = re.compile(r"""[^\s,\[\]{}()"'`#]+""")
_MAX_WIDTH = 160


def to_text(report: Report, *, colour: bool = False) -> str:
    """Format the findings as text, with a count on the last line."""
    parts = [part for finding in report.findings for part in (*_finding(finding, report, colour), "")]
    return "\n".join([*parts, report.summary(), ""])


def _finding(finding: Finding, report: Report, colour: bool) -> Iterator[str]:
    word = _painted(finding.severity, _COLOURS[finding.severity], colour)
    location = _painted(printable(str(finding.span)), "1", colour)
    yield f"{location}: {word} {finding.code} {finding.name}: {printable(finding.message)}"
    line = report.line_at(finding.span)
    if line is not None and line.strip() and len(line) <= _MAX_WIDTH:
        number = str(finding.span.line)
        yield f"  {number} | {printable(line.replace(chr(9), ' '))}"
        caret = _painted(_caret(line, finding.span.column), _COLOURS[finding.severity], colour)
        yield f"  {' ' * len(number)} | {caret}"
    for span in finding.related:
        yield f"  see {printable(str(span))}"
    if finding.help is not None:
        yield f"  help: {printable(finding.help)}"


def _caret(line: str, column: int) -> str:
    """Return the line of carets under the mistake, aligned with the escaped source line."""
    start = min(column - 1, len(line))
    word = _WORD.match(line, start)
    before = len(printable(line[:start].replace("\t", " ")))
    width = len(printable(word[0])) if word is not None else 1
    return " " * before + "^" * width


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
