"""The profile of a confined job: which parts of an environment it opens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import confinement_record
from policyguard.values import FrozenMap

pytestmark = pytest.mark.skipif(abi_version()[0] < 1, reason=f"Landlock is needed: {abi_version()}")


def test_only_what_an_interpreter_needs_of_an_environment_is_opened(tmp_path: Path) -> None:
    """Neither weights beside `bin` nor the folder that a part links to."""
    team, job = tmp_path / "team", tmp_path / "job"
    for folder in (job, team / "bin", team / "lib", team / "runs", tmp_path / "private"):
        folder.mkdir(parents=True)
    (team / "bin" / "python").symlink_to(os.path.realpath("/usr/bin/env"))
    (team / "pyvenv.cfg").touch()
    (team / "colleague.pt").touch()
    (team / "share").symlink_to(tmp_path / "private")
    inputs = JobInputs(argv=(str(team / "bin" / "python"),), directory=str(job), confine=True)
    record = confinement_record(inputs, {})
    assert record["paths"] == FrozenMap(
        {"{env}/bin": "rx", "{env}/lib": "rx", "{env}/pyvenv.cfg": "rx", "{private}": "rw", "{tree}": "rx"}
    )
