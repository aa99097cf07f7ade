"""`approve` and `grant` refuse to sign what lasts too long: one line, exit code 65."""

from __future__ import annotations

import pytest

from tests.e2e.cli_lab import CliLab


@pytest.mark.parametrize("text", ["8d", "367d", "99999999999999999d", "0s"])
def test_an_approval_cannot_be_asked_for_longer_than_it_counts(lab: CliLab, text: str) -> None:
    """Exit code 65 and one line, never an overflow."""
    ended = lab.here(
        *("approve", "--request", "requests/allowed.json", "--reason", "x", "--as", "user:bob", "--key", "guard.key"),
        *("--expires", text),
    )
    assert ended.code == 65, ended.err
    assert "--expires" in ended.complaint
    assert "at most 7 days" in ended.complaint


@pytest.mark.parametrize("text", ["32d", "367d", "99999999999999999d", "9999-12-31T23:59:59Z"])
def test_a_grant_cannot_be_asked_for_without_an_end_in_sight(lab: CliLab, text: str) -> None:
    """Exit code 65 and one line; the verb's own limit is a month."""
    ended = lab.here("grant", "user:ivan", "--gpus", "8", "--out", "g.json", "--key", "guard.key", "--until", text)
    assert ended.code == 65, ended.err
    assert "within the next 31 days" in ended.complaint
