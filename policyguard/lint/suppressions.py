"""Suppressions: comments that silence a finding until a date.

    comment = "# policyguard: ignore" SP code *( "," code ) SP "until=" date SP 'reason="' text '"'

It covers findings on its own line or, if it is alone on its line, on the next line that is not a comment; if a rule,
role, binding or another list item begins there, on all lines of that item. A suppression without a reason or a date, or
past its date, suppresses nothing and is reported as PG902.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policyguard.lint.comments import Comment, comments
from policyguard.values import Instant, Span, parse_instant

_MARK = re.compile(r"#\s*policyguard\s*:?\s*(?:ignore|disable|suppress|noqa|nolint|skip)\b", re.IGNORECASE)
"""Recognises comments that are meant as a suppression, valid or not."""

_IGNORE = re.compile(r"#\s*policyguard:\s*ignore\s+(?P<codes>PG\d{3}(?:\s*,\s*PG\d{3})*)(?P<rest>(?:\s.*)?)", re.ASCII)
_UNTIL = re.compile(r"(?:^|\s)until=(?P<date>\S*)")
_REASON = re.compile(r'(?:^|\s)reason="(?P<text>[^"]*)"')
_EXAMPLE = '# policyguard: ignore PG215 until=2027-01-01 reason="..."'


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One ignore comment. It covers its own line and `line` to `last_line`; an invalid one has a `problem`."""

    codes: tuple[str, ...]
    span: Span
    line: int
    last_line: int = 0
    reason: str = ""
    until: str = ""
    problem: str | None = None

    def covers(self, code: str, span: Span) -> bool:
        """Return True if the comment is valid and covers a finding with this code and span."""
        if self.problem is not None or code not in self.codes or span.file != self.span.file:
            return False
        return span.line == self.span.line or self.line <= span.line <= max(self.line, self.last_line)


def suppressions(file: str, text: str, now: Instant) -> Iterator[Suppression]:
    """Yield every suppression comment of a file, including invalid ones.

    Args:
        file: the name of the file, for spans.
        text: its content.
        now: the time that end dates are compared with.
    """
    if _MARK.search(text) is None:
        return
    marked = [comment for comment in comments(text) if _MARK.match(comment.text)]
    lines = text.split("\n")
    for comment in marked:
        yield _read(comment, Span(file, comment.line, comment.column), _covered_line(comment, lines), now)


def _covered_line(comment: Comment, lines: list[str]) -> int:
    """Return the comment's own line; for a comment alone on its line, the next line that is no comment."""
    line = comment.line
    if comment.alone:
        line += 1
        while line <= len(lines) and (not lines[line - 1].strip() or lines[line - 1].lstrip().startswith("#")):
            line += 1
    return line


def _read(comment: Comment, span: Span, line: int, now: Instant) -> Suppression:
    match = _IGNORE.fullmatch(comment.text.rstrip())
    if match is None:
        problem = f"found `{comment.text.rstrip()}`, expected `{_EXAMPLE}`"
        return Suppression(codes=(), span=span, line=line, problem=problem)
    codes = tuple(code.strip() for code in match["codes"].split(","))
    reason, until = _REASON.search(match["rest"]), _UNTIL.search(_REASON.sub(" ", match["rest"]))
    reason_text = reason["text"].strip() if reason is not None else ""
    date = until["date"] if until is not None else ""
    return Suppression(
        codes=codes, span=span, line=line, reason=reason_text, until=date, problem=_problem(reason_text, date, now)
    )


def _problem(reason: str, date: str, now: Instant) -> str | None:
    # INVARIANT I20: a suppression without reason or date, or past its date, suppresses nothing.
    if not reason:
        return 'suppression without a reason, expected `reason="..."`'
    if not date:
        return "suppression without an end, expected `until=2027-01-01`"
    try:
        end = parse_instant(f"{date}T00:00:00Z")
    except ValueError:
        return f"suppression ends on `{date}`, expected a date such as `2027-01-01`"
    return f"suppression expired on {date}" if now >= end else None
