"""The folders of a job, in which no file of the operator may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.config.paths import job_folders


@pytest.mark.parametrize("depth", [0, 1, 300])
def test_the_repository_of_a_job_is_found_from_any_depth(tmp_path: Path, depth: int) -> None:
    """Below 256 levels it was not, and a configuration in the job's own repository was accepted."""
    (tmp_path / ".git").mkdir()
    folder = tmp_path.joinpath(*["d"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    top = os.path.realpath(tmp_path)
    assert job_folders(str(folder)) == (os.path.realpath(folder), top)


def test_a_job_outside_a_repository_has_one_folder(tmp_path: Path) -> None:
    """The twin: nothing above it has a `.git`."""
    assert job_folders(str(tmp_path)) == (os.path.realpath(tmp_path),)
