"""Programs that hide behind a clean commit: `resource.program` says where what runs comes from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from policyguard.evidence.collector import JobInputs
from policyguard.evidence.injection import injection_variables
from policyguard.evidence.job import program_of
from policyguard.evidence.program import PROGRAM, ProgramCollector
from policyguard.model.request import Request
from policyguard.values import FrozenMap
from tests.attacks.git_lab import git

REQUEST = Request.of("user:mallory", "job:submit", "job:team/vision/run-17")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A clean repository with a program, and a script elsewhere."""
    job = tmp_path / "job"
    (job / "pkg").mkdir(parents=True)
    (job / "train.py").write_text("print(1)\n")
    (job / "pkg" / "__init__.py").write_text("")
    (job / "pkg" / "train.py").write_text("print(2)\n")
    (job / "run.sh").write_text("#!/bin/sh\nexec true\n")
    (job / ".gitignore").write_text("__pycache__\nignored/\n")
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(job, "commit", "-qm", "a job")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.py").write_text("print('stolen')\n")
    return job


def measured(job: Path, *argv: str, **environment: str) -> dict[str, Any]:
    inputs = JobInputs(argv=argv, directory=str(job), environment={"PATH": os.defpath, **environment})
    value = ProgramCollector().collect(REQUEST, inputs, 1).entries[PROGRAM].value
    assert isinstance(value, FrozenMap)
    return dict(value)


def test_a_program_of_the_commit_is_that(job: Path) -> None:
    for argv in (["train.py"], ["-m", "pkg.train"], ["-u", "-m", "cProfile", "-o", "x", "train.py"]):
        record = measured(job, sys.executable, *argv)
        assert record["origin"] == "commit"
        assert record["path"].startswith(str(job))
    record = measured(job, "/bin/sh", "run.sh")
    assert (record["kind"], record["origin"]) == ("shell", "commit")
    record = measured(job, "/bin/true")
    assert (record["kind"], record["origin"]) == ("binary", "system")


def test_a_script_from_elsewhere_is_not_of_the_commit(job: Path) -> None:
    script = job.parent / "elsewhere" / "x.py"
    assert measured(job, sys.executable, str(script))["origin"] == "elsewhere"
    assert measured(job, sys.executable, "../elsewhere/x.py")["origin"] == "elsewhere"
    (job / "link.py").symlink_to(script)
    assert measured(job, sys.executable, "link.py")["origin"] == "elsewhere"


def test_a_file_inside_a_git_folder_is_not_of_the_commit(job: Path) -> None:
    """No tool lists what is in `.git`, nor what a repository within the repository holds."""
    (job / ".git" / "x.py").write_text("print('hidden')\n")
    assert measured(job, sys.executable, ".git/x.py")["origin"] == "elsewhere"
    (job / "ignored").mkdir()
    (job / "ignored" / "x.py").write_text("print('hidden')\n")
    git(job / "ignored", "init", "-q")
    assert measured(job, sys.executable, "ignored/x.py")["origin"] == "elsewhere"


def test_an_ignored_file_is_not_of_the_commit(job: Path) -> None:
    hidden = job / "hidden"
    hidden.mkdir()
    (hidden / ".gitignore").write_text("*\n")
    (hidden / "x.py").write_text("print('hidden')\n")
    assert measured(job, sys.executable, "hidden/x.py")["origin"] == "elsewhere"


def test_a_changed_file_and_a_pointer_that_was_replaced_are_not_of_the_commit(job: Path) -> None:
    """A filter such as LFS puts another content into the working tree than the commit holds."""
    (job / "train.py").write_text("print('changed')\n")
    assert measured(job, sys.executable, "train.py")["origin"] == "elsewhere"


def test_byte_code_and_text_are_no_program_of_the_commit(job: Path) -> None:
    (job / "__pycache__").mkdir()
    (job / "__pycache__" / "e.pyc").write_bytes(b"\xa7\x0d\r\n" + bytes(12))
    assert measured(job, sys.executable, "__pycache__/e.pyc")["kind"] == "unknown"
    assert measured(job, sys.executable, "-c", "import x")["kind"] == "inline"
    assert measured(job, sys.executable, "-m", "pdb", "-c", "!x", "train.py")["origin"] == "environment"


def test_a_wrapper_of_ones_own_is_not_followed(job: Path) -> None:
    """A script named torchrun does what it likes with the words after it."""
    fake = job.parent / "elsewhere" / "torchrun"
    fake.write_text(f"#!{sys.executable}\n")
    fake.chmod(0o755)
    record = measured(job, str(fake), "train.py")
    assert (record["kind"], record["origin"]) == ("unknown", "none")
    assert "torchrun" in record["reason"]


def test_a_link_named_python_to_ones_own_interpreter_is_not_followed(job: Path) -> None:
    fake = job.parent / "elsewhere" / "python3"
    fake.write_bytes(Path("/bin/true").read_bytes())
    fake.chmod(0o755)
    assert measured(job, str(fake), "train.py")["kind"] == "unknown"


def test_a_folder_that_only_resembles_an_environment_is_the_one_that_is_measured(job: Path) -> None:
    """`pyvenv.cfg` can be written by anybody: what runs the program is what `resource.environment` measures."""
    fake = job.parent / "elsewhere" / "env" / "bin"
    fake.mkdir(parents=True)
    (fake.parent / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (fake / "python").write_bytes(Path("/bin/true").read_bytes())
    (fake / "python").chmod(0o755)
    python = str(fake / "python")
    for argv in ((python, "train.py"), ("/usr/bin/env", python, "train.py"), ("/usr/bin/nohup", python, "train.py")):
        inputs = JobInputs(argv=argv, directory=str(job), environment={"PATH": os.defpath})
        assert program_of(inputs).interpreter == python
    # Two environments in one command are one too many.
    launch = ("-m", "torch.distributed.run", "--no-python")
    assert measured(job, sys.executable, *launch, python, "train.py")["kind"] == "unknown"
    assert measured(job, python, *launch, sys.executable, "train.py")["kind"] == "unknown"
    (fake.parent / "pyvenv.cfg").unlink()
    assert measured(job, "/usr/bin/env", python, "train.py")["kind"] == "unknown"


@pytest.mark.parametrize("variable", ["PET_NO_PYTHON", "PET_NPROC_PER_NODE"])
def test_a_launcher_that_takes_options_from_variables_is_not_followed(job: Path, variable: str) -> None:
    """`PET_NO_PYTHON=1 torchrun train.py` runs a `train.py` of PATH."""
    argv = (sys.executable, "-m", "torch.distributed.run", "train.py")
    assert measured(job, *argv)["origin"] == "commit"
    assert variable in measured(job, *argv, **{variable: "1"})["reason"]


def test_a_script_of_another_interpreter_is_not_followed(job: Path) -> None:
    """perl takes modules from PERL5OPT, zsh runs files of the home folder."""
    script = job / "run.pl"
    script.write_text("#!/usr/bin/perl\n")
    script.chmod(0o755)
    git(job, "add", ".")
    git(job, "commit", "-qm", "perl")
    assert measured(job, str(script))["kind"] == "unknown"


@pytest.mark.parametrize(
    "argv",
    [
        ("env", "PYTHONPATH=/evil", "python3", "train.py", "PYTHONPATH="),
        ("bash", "-c", "env A=1 LD_PRELOAD=/evil.so python3 train.py"),
        ("env", "-S", "env A=1 PYTHONPATH=/evil python3 train.py"),
    ],
)
def test_an_assignment_in_a_text_or_given_twice_is_reported(argv: tuple[str, ...]) -> None:
    assert set(injection_variables({}, argv)) & {"PYTHONPATH", "LD_PRELOAD"}
    assert not injection_variables({}, ("python3", "train.py", "--name=PYTHONPATH"))
