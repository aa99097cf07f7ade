"""Attempts to be somebody or something else by spelling an id another way."""

from __future__ import annotations

import pytest

from policyguard.errors import RequestError
from policyguard.model.request import Request
from policyguard.patterns.overlap import pattern_problem

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "identifier",
    [
        DECOMPOSED,
        "al\u00adice",
        "al\u2060ice",
        "al\u061cice",
        "al\U000e0061ice",
        "al\ue000ice",
        "al\u3000ice",
        "\u212bke",
    ],
    ids=["decomposed", "soft hyphen", "word joiner", "bidi mark", "tag", "private use", "wide space", "angstrom"],
)
def test_another_encoding_of_an_id_is_refused(identifier: str) -> None:
    """INVARIANT I5: what reads the same, or folds to the same file name, is not a second id past a deny."""
    for subject, resource in ((f"user:{identifier}", "job:a"), ("user:a", f"job:team/{identifier}/x")):
        with pytest.raises(RequestError):
            Request.of(subject, "job:submit", resource)


@pytest.mark.parametrize("identifier", [COMPOSED, "\u540d\u524d", "alice", "\U0001f600"])
def test_an_id_in_its_one_encoding_is_accepted(identifier: str) -> None:
    """The twin: other scripts are fine."""
    assert Request.of(f"user:{identifier}", "job:submit", "job:a").subject.id == identifier


@pytest.mark.parametrize("pattern", [f"team/{DECOMPOSED}/**", "team/../x", "./**", "team/a\u00adb/**"])
def test_a_pattern_that_no_id_can_match_is_refused(pattern: str) -> None:
    """A deny over ids that cannot be asked for would deny nothing, in silence; the twin in one form is fine."""
    assert pattern_problem(pattern) is not None
    assert pattern_problem(f"team/{COMPOSED}/**") is None
    assert pattern_problem("team/.hidden/a..b/**") is None
