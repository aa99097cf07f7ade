"""Whether a path is in a folder. Who may change it: `tests/attacks/test_operator_configuration.py`."""

from __future__ import annotations

import os

import pytest

from policyguard.fs.ownership import is_below


@pytest.mark.parametrize(
    ("path", "folder", "below"),
    [
        ("/a", "/a", True),
        ("/a/b", "/a", True),
        ("/a/b", "/a/", True),
        ("/a", "/", True),
        ("/ab", "/a", False),
        ("/", "/a", False),
    ],
)
def test_below_is_the_folder_and_what_it_holds(path: str, folder: str, below: bool) -> None:
    """Of whole names only; the same for names that are bytes."""
    assert is_below(path, folder) is below
    assert is_below(os.fsencode(path), os.fsencode(folder)) is below
