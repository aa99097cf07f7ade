"""Decisions: no truth value, and the attribute that 0.1.0 called otherwise."""

from __future__ import annotations

import pytest

from tests.attest_lab import decision_of


def test_the_former_name_of_unmet_approvals_warns() -> None:
    """A host written for 0.1.0 reads `gaps`; it gets the same tuple, and a warning that names the present word."""
    denied = decision_of(allowed=False)
    with pytest.warns(DeprecationWarning, match="unmet_approvals"):
        assert denied.gaps is denied.unmet_approvals
    assert denied.unmet_approvals != ()
