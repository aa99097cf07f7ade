"""Attempts to have work recorded as confined that a process outside starts: a scheduler, a remote host, a container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyguard.confinement.landlock import abi_version
from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.confinement import CONFINEMENT, ConfinementCollector
from policyguard.program.launchers import ALWAYS, COUNTING, LAUNCHERS, RANK_LAUNCHERS
from tests.e2e.launcher_lab import request

pytestmark = pytest.mark.skipif(abi_version()[0] < 1, reason=f"Landlock is needed: {abi_version()}")

PROGRAMS = sorted(name for name, row in LAUNCHERS.items() if row.outside == ALWAYS and not name.startswith("horovod."))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job" / ".git").mkdir(parents=True)
    (tmp_path / "job" / "train.py").write_text("pass\n")
    (tmp_path / "bin").mkdir()
    return tmp_path / "job"


def is_confined(job: Path, *argv: str, **environment: str) -> bool:
    """Measure the confinement of a command; the programs that it names exist."""
    for name in {word for text in argv for word in text.split()} & {*LAUNCHERS, "python"}:
        program = job.parent / "bin" / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    variables = {"PATH": f"{job.parent}/bin:/usr/bin:/bin", **environment}
    inputs = JobInputs(argv=argv, directory=str(job), environment=variables, confine=True)
    collected: list[str] = []
    with suppress_refusal():
        collected += ConfinementCollector().collect(request(), inputs, 1).entries
    return collected == [CONFINEMENT]


@contextmanager
def suppress_refusal() -> Iterator[None]:
    """Accept the refusal that is tested, and no other."""
    try:
        yield
    except EvidenceError as problem:
        if "hands it to a process outside" not in str(problem):
            raise


@pytest.mark.parametrize("name", PROGRAMS)
def test_work_that_a_process_outside_starts_is_not_confined(job: Path, name: str) -> None:
    assert not is_confined(job, name, "python", "train.py")
    assert not is_confined(job, "env", "A=1", name, "python", "train.py")
    assert not is_confined(job, "bash", "-c", f"{name} python train.py")
    assert not is_confined(job, "bash", "-c", f"cd /tmp && A=1 {name} python train.py; wait")


def test_every_launcher_of_the_table_says_where_it_starts_work() -> None:
    """One that counts ranks either starts them itself, as its children, or hands them over."""
    assert {name for name in COUNTING if LAUNCHERS[name].outside != ALWAYS} == set(RANK_LAUNCHERS)


OPTIONS = [
    ("deepspeed", "--hostfile", "hosts", "train.py"),
    ("deepspeed", "--hostf=hosts", "train.py"),
    ("deepspeed", "-Hhosts", "train.py"),
    ("deepspeed", "--force_multi", "train.py"),
    ("python3", "-m", "deepspeed.launcher.runner", "--hostfile", "hosts", "train.py"),
    ("python3", "-mdeepspeed", "--launcher", "slurm", "train.py"),
    ("python3", "-m", "horovod.runner", "-np", "2", "python", "train.py"),
    ("accelerate", "launch", "--deepspeed_hostfile", "hosts", "train.py"),
    ("parallel", "-S", "node-2", "python", ":::", "train.py"),
    ("parallel", "-Snode-2", "python", ":::", "train.py"),
    ("parallel", "--sshlogin=node-2", "python", ":::", "train.py"),
    ("bash", "-c", "sleep 1; deepspeed --hostfile hosts train.py"),
    ("bash", "-c", "out=$(ssh node-2 python train.py)"),
    ("bash", "-c", "for host in a b; do ssh $host python train.py; done"),
]

TWINS = [
    ("deepspeed", "--num_gpus", "2", "train.py"),
    ("deepspeed", "train.py", "--launcher", "pytorch", "--hostfile", "hosts"),
    ("python3", "-m", "deepspeed.launcher.runner", "train.py"),
    ("accelerate", "launch", "--num_machines", "1", "train.py"),
    ("torchrun", "--nproc-per-node", "2", "train.py"),
    ("parallel", "-j", "2", "python", ":::", "train.py"),
    ("bash", "-c", "echo ssh; python train.py --name docker"),
    ("python3", "train.py", "ssh", "srun"),
    ("nohup", "python3", "train.py"),
]


@pytest.mark.parametrize("argv", OPTIONS, ids=" ".join)
def test_an_option_that_names_other_hosts_is_seen(job: Path, argv: tuple[str, ...]) -> None:
    assert not is_confined(job, *argv)


@pytest.mark.parametrize("argv", TWINS, ids=" ".join)
def test_work_that_stays_is_confined(job: Path, argv: tuple[str, ...]) -> None:
    assert is_confined(job, *argv)


def test_a_variable_may_hold_the_options(job: Path) -> None:
    argv = ("parallel", "python", ":::", "train.py")
    assert is_confined(job, *argv)
    assert not is_confined(job, *argv, PARALLEL="-S node-2")


@pytest.mark.parametrize(("line", "stays"), [("srun python train.py", False), ("python train.py # not srun", True)])
def test_a_shell_script_is_read(job: Path, line: str, stays: bool) -> None:
    script = job / "run.sh"
    script.write_text(f"#!/usr/bin/env bash\nset -e\n{line}\n")
    script.chmod(0o755)
    assert is_confined(job, "bash", "run.sh") is stays
    assert is_confined(job, "./run.sh") is stays
    script.write_text("import os\nssh = 1\n")
    assert is_confined(job, "bash", "-c", "python3 run.sh")
