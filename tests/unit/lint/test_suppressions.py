"""Suppressions need a reason and an end, silence only what they name, and never what stops the load."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyguard.lint.comments import comments
from policyguard.lint.report import Report
from policyguard.lint.runner import lint
from policyguard.values import parse_instant

BASE = (Path(__file__).parents[2] / "data" / "lint" / "base.yaml").read_bytes()
NOW = parse_instant("2026-06-01T12:00:00Z")

POLICY = """\
apiVersion: policyguard/v1
kind: Policy
metadata: {{name: case}}
rules:
{above}
  - id: alice-cancels
    effect: allow
{before}
    subjects: ["user:alice"] {behind}
    actions: [job:cancel]
    resources: {{type: job}}
    description: |
      {inside}
"""
ORDER = '# policyguard: ignore PG215 until=2027-01-01 reason="alone on call"'


def report(*, above: str = "", before: str = "", behind: str = "", inside: str = "text", now: int = NOW) -> Report:
    """Lint a policy with one direct grant and comments around it."""
    text = POLICY.format(above=f"  {above}".rstrip(), before=f"    {before}".rstrip(), behind=behind, inside=inside)
    return lint({"_base.yaml": BASE, "case.yaml": text.encode()}, now)


def codes(found: Report) -> list[str]:
    return [finding.code for finding in found.findings]


@pytest.mark.parametrize("place", ["above", "before", "behind"])
def test_a_suppression_covers_its_line_the_next_line_or_the_item_below_it(place: str) -> None:
    """On the line, on the line before, or above the rule: each silences the finding, which stays in the report."""
    found = report(**{place: ORDER})  # type: ignore[arg-type]
    assert codes(found) == []
    assert [(finding.code, by.reason) for finding, by in found.suppressed] == [("PG215", "alone on call")]


def test_text_in_a_block_scalar_is_no_suppression() -> None:
    """A description that quotes a suppression suppresses nothing and is no mistake."""
    assert codes(report(inside=ORDER)) == ["PG215"]


def test_text_that_the_scan_takes_for_a_comment_is_none() -> None:
    """Prose that starts a line with an apostrophe misleads the scan; what the reader calls text stays text."""
    text = (
        "apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: case}\nrules:\n"
        "  - id: alice-cancels\n    effect: allow\n    description: it was\n      'tis the season\n"
        f"    remedy: 'ask {ORDER}'\n"
        '    subjects: ["user:alice"]\n    actions: [job:cancel]\n'
    )
    assert any("alone on call" in comment.text for comment in comments(text))
    assert codes(lint({"_base.yaml": BASE, "case.yaml": text.encode()}, NOW)) == ["PG215"]


BROKEN = {
    "without a reason": "# policyguard: ignore PG215 until=2027-01-01",
    "with an empty reason": '# policyguard: ignore PG215 until=2027-01-01 reason="  "',
    "without an end": '# policyguard: ignore PG215 reason="alone on call"',
    "with a date that is none": '# policyguard: ignore PG215 until=soon reason="alone on call"',
    "past its date": '# policyguard: ignore PG215 until=2026-06-01 reason="alone on call"',
    "without a code": '# policyguard: ignore until=2027-01-01 reason="alone on call"',
    "with a misspelt code": '# policyguard: ignore PG21 until=2027-01-01 reason="alone on call"',
    "for everything": '# policyguard: ignore all until=2027-01-01 reason="alone on call"',
    "in another tool's words": "# policyguard: noqa PG215",
}


@pytest.mark.parametrize("comment", BROKEN.values(), ids=BROKEN)
def test_a_suppression_that_is_not_in_order_suppresses_nothing(comment: str) -> None:
    """I20: the finding stays, and PG902 says what is wrong with the comment."""
    assert codes(report(before=comment)) == ["PG902", "PG215"]


def test_a_suppression_holds_until_the_last_second_before_its_date() -> None:
    """I20, the twin: one nanosecond before the date it still holds."""
    end = parse_instant("2027-01-01T00:00:00Z")
    assert codes(report(before=ORDER, now=end - 1)) == []
    assert codes(report(before=ORDER, now=end)) == ["PG902", "PG215"]


def test_a_suppression_that_silences_nothing_is_a_finding() -> None:
    """I20: an idle suppression would hide the next finding on its line."""
    idle = '# policyguard: ignore PG215,PG216 until=2027-01-01 reason="alone on call"'
    found = report(before=idle)
    assert codes(found) == ["PG902"]
    assert found.findings[0].message == "suppression of `PG216` silences nothing"


def test_findings_about_suppressions_cannot_be_suppressed() -> None:
    """I20: an ignore of PG902 is itself a PG902."""
    found = report(before='# policyguard: ignore PG902 until=2027-01-01 reason="quiet"')
    assert codes(found) == ["PG902", "PG215"]
    assert found.findings[0].message == "suppression of `PG902`, which cannot be suppressed"


def test_a_suppression_of_an_unknown_rule_is_a_finding() -> None:
    """A code that no rule has was meant to be another."""
    found = report(behind='# policyguard: ignore PG299 until=2027-01-01 reason="quiet"')
    assert codes(found) == ["PG215", "PG902"]


def test_what_stops_the_load_cannot_be_suppressed() -> None:
    """I20: a load error stays an error, whatever comment stands beside it."""
    text = (
        "apiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: case}\nrules:\n"
        '  # policyguard: ignore PG101 until=2027-01-01 reason="it will exist soon"\n'
        "  - {id: cancel, effect: deny, actions: [job:cancle]}\n"
    )
    found = lint({"_base.yaml": BASE, "case.yaml": text.encode()}, NOW)
    assert {"PG101", "PG902"} == set(codes(found))
    assert found.suppressed == ()


def test_what_stops_the_load_can_be_neither_ignored_nor_baselined() -> None:
    """I20: options and baselines leave load errors alone too."""
    broken = {"case.yaml": b"kind: [\n"}
    found = lint(broken, NOW, ignore=["PG0"])
    assert found.findings
    assert found.findings == found.without(frozenset(found.fingerprints())).findings


def test_other_comments_may_begin_with_our_name() -> None:
    """Only what reads like a suppression is judged as one."""
    assert codes(report(before="# policyguard: rules of the on-call team")) == ["PG215"]
