"""Reports of a comparison: a known limit of casbin is explained, anything else is a failure."""

from __future__ import annotations

from policyguard.analysis.check_engine import Difference, Report
from policyguard.model.facts import Facts
from policyguard.model.request import Request

FACTS = Facts(Request.of("user:alice", "job:submit", "job:x"), {})
KNOWN, UNKNOWN = (
    Difference(facts=FACTS, now=0, engine=True, casbin=False, oracle=oracle, what="other answers", hazard=hazard)
    for oracle, hazard in ((True, "H11"), (None, None))
)


def report(*differences: Difference, unjudged: int = 0) -> Report:
    return Report(requests=10, allowed=4, unjudged=unjudged, reached=("r",), differences=differences)


def test_without_a_difference_all_agree() -> None:
    """The twin of both below."""
    assert report().ok
    assert report().to_text().splitlines() == [
        "10 requests, 4 allowed, 1 rules took part",
        "engine, casbin and oracle agree",
    ]


def test_a_known_limit_is_explained_and_counted() -> None:
    """Explained differences are no failure, and the text says by which limit."""
    result = report(KNOWN, KNOWN, unjudged=3)
    assert result.ok
    assert "2 differences explained by H11: casbin follows nine links" in result.to_text()
    assert "3 requests without the oracle" in result.to_text()


def test_an_unexplained_difference_is_a_failure_with_its_request() -> None:
    """One is enough; ten at most are printed."""
    result = report(KNOWN, *[UNKNOWN] * 12)
    assert (result.ok, len(result.failures)) == (False, 12)
    lines = result.to_text().splitlines()
    assert sum(line.startswith("DIFFERENT user:alice job:submit job:x at 1970-01-01") for line in lines) == 10
    assert lines[-1] == "12 unexplained differences"
