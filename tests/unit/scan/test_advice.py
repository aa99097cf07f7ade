"""Each reason code says what a loader does and what makes such a file acceptable."""

from __future__ import annotations

import pytest

from policyguard.scan.advice import _ROWS, advice
from policyguard.scan.findings import REASONS


@pytest.mark.parametrize("code", sorted(REASONS))
def test_every_code_has_advice(code: str) -> None:
    """Two full sentences, whatever the code."""
    row = advice(code)
    assert row.does.endswith(".")
    assert row.accept.endswith(".")


def test_every_row_is_of_a_code() -> None:
    """A row that no code and no family of codes has would never be printed."""
    assert [row for row in _ROWS if not any(code == row or code.startswith(row) for code in REASONS)] == []


def test_there_is_no_advice_for_an_unknown_code() -> None:
    """The command answers such a code with similar ones."""
    with pytest.raises(KeyError):
        advice("ckpt.nothing")
