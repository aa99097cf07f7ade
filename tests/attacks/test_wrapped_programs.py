"""Command lines whose wrapper, shell or folder runs another program than the one that the words seem to name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.evidence.collector import JobInputs
from policyguard.evidence.job import resolve_executable
from policyguard.evidence.program import PROGRAM, ProgramCollector
from policyguard.model.request import Request
from policyguard.program.follow import Program, follow
from policyguard.values import FrozenMap
from tests.attacks.git_lab import git

REQUEST = Request.of("user:mallory", "job:submit", "job:team/vision/run-17")
PRINT_NAME = "import os, sys\nprint(os.path.realpath(sys.argv[0]))\n"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A repository with a program and a package, and a folder of the attacker."""
    job, evil = tmp_path / "job", tmp_path / "evil"
    for folder in (job / "pkg", job / "inner", evil / "app"):
        folder.mkdir(parents=True)
    for file in (job / "train.py", job / "inner" / "train.py", evil / "evil.py", evil / "train.py"):
        file.write_text(PRINT_NAME)
    (job / "pkg" / "__init__.py").write_text("")
    (job / "pkg" / "__main__.py").write_text(PRINT_NAME)
    (job / "run.sh").write_text("python3 train.py\n")
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(job, "commit", "-qm", "a job")
    return job


def followed(job: Path, *argv: str, **environment: str) -> Program:
    return follow(argv, str(job), {"PATH": os.defpath, **environment}, resolve_executable)


def origin(job: Path, *argv: str, **environment: str) -> object:
    inputs = JobInputs(argv=argv, directory=str(job), environment={"PATH": os.defpath, **environment})
    value = ProgramCollector().collect(REQUEST, inputs, 1).entries[PROGRAM].value
    assert isinstance(value, FrozenMap)
    return value["origin"]


ENV = [
    "-S PYTHON -u EVIL train.py",
    "-SPYTHON -u EVIL train.py",
    "--split-string=PYTHON -u EVIL train.py",
    "-vS PYTHON -u EVIL train.py",
    "-S -i -SPYTHON -u EVIL train.py",
    "-S|-i PYTHON -u|EVIL train.py",
    "-C EVILDIR -C JOB -S PYTHON train.py",
    "-C JOB -S|-C EVILDIR PYTHON|train.py",
    "-C EVILDIR -C inner PYTHON train.py",
    "-S -C inner PYTHON train.py",
    "-C inner - PYTHON train.py",
]


@pytest.mark.parametrize("line", ENV)
def test_env_runs_what_is_followed(job: Path, line: str) -> None:
    """`env -S PYTHON -u evil.py train.py` was taken for `train.py`; the real `env` is the judge."""
    evil = job.parent / "evil"
    for word, text in (("EVILDIR", evil), ("EVIL", evil / "evil.py"), ("JOB", job), ("PYTHON", sys.executable)):
        line = line.replace(word, str(text))
    parts = line.split("|")
    # What is between bars is one argument.
    argv = ["env", *(word for index, part in enumerate(parts) for word in ([part] if index == 1 else part.split()))]
    if len(parts) > 1 and parts[0].endswith("-S"):
        argv = ["env", *parts[0].split(), parts[1], *parts[2].split()]
    ran = subprocess.run(argv, cwd=job, capture_output=True, text=True, check=True).stdout.strip()
    program = followed(job, *argv)
    assert (program.kind, program.path, program.reason) == ("script", ran, "")


@pytest.mark.parametrize(
    "text", ["python3 ${X}", "python3\\_train.py", "python3 'train.py'", "python3 # x", "-Q python3"]
)
def test_a_string_with_escapes_variables_or_unknown_options_is_unknown(job: Path, text: str) -> None:
    assert followed(job, "env", "-S", text, "train.py").kind == "unknown"
    assert followed(job, "env", "-S", "python3", "train.py").path == str(job / "train.py")


def test_srun_runs_in_the_last_folder(job: Path) -> None:
    srun = job.parent / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    program = followed(job, str(srun), "-D", str(job.parent / "evil"), "-D", "inner", "python3", "train.py")
    assert program.path == str(job / "inner" / "train.py")


SHELL_OPTIONS = (
    "-k",
    "-kc",
    "-ck",
    "+k",
    "-ek",
    "-i",
    "-l",
    "--login",
    "-norc",
    "-rcfile",
    "-s",
    "-a",
    "-t",
    "+c",
    "-E",
)


@pytest.mark.parametrize("option", SHELL_OPTIONS)
def test_an_option_of_a_shell_that_may_change_the_command_is_unknown(job: Path, option: str) -> None:
    """`bash -kc 'python train.py PATH=/evil'` runs the `python` of /evil."""
    text = "python3 train.py PATH=/evil"
    assert followed(job, "bash", option, "-c", text).kind == "unknown"
    assert followed(job, "bash", option, text).kind == "unknown"
    assert followed(job, "bash", "-euxc", text).path == str(job / "train.py")


@pytest.mark.parametrize("name", ["keyword", "allexport", "vi", "", "nothing"])
def test_a_named_option_of_a_shell_is_known_to_be_harmless(job: Path, name: str) -> None:
    for sign in ("-o", "+o", "-eo"):
        assert followed(job, "bash", sign, name, "-c", "python3 train.py").kind == "unknown"
    assert followed(job, "bash", "-O", "expand_aliases", "-c", "python3 train.py").kind == "unknown"
    assert followed(job, "bash", "-euo", "pipefail", "-c", "python3 train.py").path == str(job / "train.py")
    assert followed(job, "bash", "-o", "errexit", "run.sh").path == str(job / "run.sh")


@pytest.mark.parametrize("text", ["set -k", "compgen -C python3", "chdir /evil", "PATH=/evil python3 train.py"])
def test_a_builtin_in_the_text_of_a_shell_is_unknown(job: Path, text: str) -> None:
    assert followed(job, "bash", "-c", text).kind == "unknown"


@pytest.mark.parametrize("variable", ["BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "BASH_FUNC_python3%%"])
def test_a_variable_that_a_shell_obeys_makes_its_command_unknown(job: Path, variable: str) -> None:
    command = ("bash", "-c", "python3 train.py")
    assert followed(job, *command, **{variable: "() { evil; }"}).kind == "unknown"
    assert followed(job, "env", f"{variable}=keyword", *command).kind == "unknown"
    assert followed(job, "env", "-u", variable, *command, **{variable: "x"}).path == str(job / "train.py")
    assert followed(job, *command, **{"BASH_FUNC_module%%": "() { :; }"}).path == str(job / "train.py")


def test_a_folder_is_the_origin_of_what_it_imports(job: Path) -> None:
    """`python evil/app`, whose `__main__.py` is a link to the committed file, imports `helper.py` of evil/app."""
    app = job.parent / "evil" / "app"
    (app / "__main__.py").symlink_to(job / "train.py")
    (app / "helper.py").write_text("print('stolen')\n")
    assert origin(job, sys.executable, str(app)) == "none"
    assert origin(job, sys.executable, "pkg") == "commit"


def test_a_link_to_a_script_imports_from_the_folder_of_the_file(job: Path) -> None:
    """CPython resolves the link of a script before it makes its folder the first of `sys.path`; cProfile does not."""
    link = job.parent / "evil" / "link.py"
    link.symlink_to(job / "train.py")
    assert origin(job, sys.executable, str(link)) == "commit"
    assert origin(job, sys.executable, "-m", "cProfile", str(link)) == "none"
    assert origin(job, sys.executable, "-m", "cProfile", "train.py") == "commit"


def test_a_link_to_a_shell_script_has_a_folder_of_its_own(job: Path) -> None:
    """`. "$(dirname "$0")/lib.sh"` reads from beside the link."""
    link = job.parent / "evil" / "run.sh"
    link.symlink_to(job / "run.sh")
    assert origin(job, "bash", str(link)) == "none"
    assert origin(job, "bash", "run.sh") == "commit"


def test_a_module_that_is_a_link_imports_from_where_it_is(job: Path) -> None:
    evil = job.parent / "evil"
    (evil / "module.py").symlink_to(job / "train.py")
    (evil / "__main__.py").symlink_to(job / "train.py")
    (evil / "__init__.py").write_text("print('stolen')\n")
    (job / "linked").symlink_to(evil)
    assert origin(job, sys.executable, "-m", "linked") == "none"
    assert origin(job, "env", "-C", str(evil), sys.executable, "-m", "module") == "none"
    assert origin(job, sys.executable, "-m", "pkg") == "commit"


def test_python_ignores_the_variable_for_safe_paths_with_an_option(job: Path) -> None:
    """`python -E` reads no PYTHON variables: the job's `pdb.py` runs."""
    (job / "pdb.py").write_text("print('shadow')\n")
    shadow = str(job / "pdb.py")
    assert followed(job, "python3", "-E", "-m", "pdb", PYTHONSAFEPATH="1").path == shadow
    assert followed(job, "python3", "-m", "pdb", PYTHONSAFEPATH="1").path == ""
    assert followed(job, "python3", "-EP", "-m", "pdb").path == ""


def test_a_launcher_starts_pythons_without_the_options_of_its_own(job: Path) -> None:
    """`python -I -m torch.distributed.run -m pkg` runs the job's package, as the ranks have no `-I`."""
    command = ("-m", "torch.distributed.run", "-m", "pkg")
    assert followed(job, "python3", "-I", *command).path == str(job / "pkg" / "__main__.py")
    assert followed(job, "python3", "-I", *command, PYTHONSAFEPATH="1").path == ""
