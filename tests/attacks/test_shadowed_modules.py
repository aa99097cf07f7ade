"""Modules in the job's folder that run instead of the one that `python -m` seems to name, and the other way round."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from pathlib import Path

import pytest

from policyguard.evidence.job import resolve_executable
from policyguard.program.follow import Program, follow

BINARY = (*importlib.machinery.EXTENSION_SUFFIXES, ".cpython-399-x86_64-linux-gnu.so", ".pyc")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)\n")
    return tmp_path


def add(job: Path, *names: str) -> None:
    for name in names:
        (job / name).parent.mkdir(parents=True, exist_ok=True)
        (job / name).write_bytes(b"")


def followed(job: Path, *argv: str, home: str = "/nonexistent", directory: str = "") -> Program:
    environment = {"PATH": os.defpath, "HOME": home}
    return follow((sys.executable, *argv), directory or str(job), environment, resolve_executable)


@pytest.mark.parametrize("suffix", BINARY)
@pytest.mark.parametrize("runner", ["coverage run", "cProfile", "torch.distributed.run"])
def test_byte_code_or_a_library_named_like_a_runner_runs_instead_of_it(job: Path, runner: str, suffix: str) -> None:
    """A committed `coverage.pyc`: the decision was about `train.py`."""
    argv = ("-m", *runner.split(), "train.py")
    first = runner.split()[0].partition(".")[0]
    assert followed(job, *argv).path == str(job / "train.py")
    for name in (first + suffix, f"{first}/__init__{suffix}"):
        add(job, name)
        assert followed(job, *argv).kind == "unknown"
        # With -I the folder is not searched.
        assert followed(job, "-I", *argv).path == str(job / "train.py")
        (job / name).unlink()
    add(job, f"{first}x{suffix}", f"x{first}{suffix}")


@pytest.mark.parametrize("suffix", importlib.machinery.EXTENSION_SUFFIXES)
def test_a_library_comes_before_the_source_beside_it(job: Path, suffix: str) -> None:
    add(job, "pkg/__init__.py", "pkg/train.py", "tool.py", "app/__main__.py")
    assert followed(job, "-m", "pkg.train").path == str(job / "pkg" / "train.py")
    assert followed(job, "-m", "tool").path == str(job / "tool.py")
    assert followed(job, "app").path == str(job / "app" / "__main__.py")
    add(job, f"pkg/train{suffix}", f"tool{suffix}", f"app/__main__{suffix}")
    for argv in (("-m", "pkg.train"), ("-m", "tool"), ("app",)):
        assert followed(job, *argv).kind == "unknown"
    add(job, "other/__init__.py", f"other/__init__{suffix}", "other/train.py")
    assert followed(job, "-m", "other.train").kind == "unknown"


def test_byte_code_comes_after_the_source_beside_it(job: Path) -> None:
    """The twin: Python takes `tool.py`, and so does the decision; a package comes before both."""
    add(job, "tool.py", "tool.pyc")
    assert followed(job, "-m", "tool").path == str(job / "tool.py")
    add(job, "tool/__main__.py")
    assert followed(job, "-m", "tool").path == str(job / "tool.py")
    add(job, "tool/__init__.py")
    assert followed(job, "-m", "tool").path == str(job / "tool" / "__main__.py")
    (job / "tool" / "__main__.py").rename(job / "tool" / "__main__.pyc")
    assert followed(job, "-m", "tool").kind == "unknown"


def test_a_folder_without_init_comes_after_what_is_installed(job: Path) -> None:
    """A committed `pytest/__main__.py` is a decoy: `python -m pytest` runs the installed one, with any plug-in."""
    add(job, "pytest/__main__.py", "json/tool.py", "scripts/train.py")
    for argv in (("-m", "pytest", "-p", "evil"), ("-m", "json.tool")):
        assert followed(job, *argv).kind == "unknown"
    add(job, "pytest/__init__.py")
    assert followed(job, "-m", "pytest").path == str(job / "pytest" / "__main__.py")
    # The twin: folders without `__init__.py` are common.
    assert followed(job, "-m", "scripts.train").path == str(job / "scripts" / "train.py")
    add(job, "home/.local/lib/python3.11/site-packages/scripts/__init__.py")
    assert followed(job, "-m", "scripts.train", home=str(job / "home")).kind == "unknown"


def test_a_module_that_is_part_of_the_interpreter_is_shadowed_by_nothing(job: Path) -> None:
    """`runpy.py` in the folder is a decoy where runpy is frozen: `python -m runpy pdb` runs the debugger."""
    add(job, "runpy.py", "tool.py")
    assert followed(job, "-m", "runpy", "pdb").kind == "unknown"
    assert followed(job, "-m", "tool").path == str(job / "tool.py")
    (job / "runpy.py").unlink()
    assert followed(job, "-m", "runpy", "tool").path == str(job / "tool.py")


def test_variables_that_srun_does_not_pass_on_protect_nothing(job: Path, tmp_path: Path) -> None:
    """`PYTHONSAFEPATH=1 srun --export=NONE python -m cProfile`: the folder is searched on the node."""
    add(job, "cProfile.py")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_bytes(Path("/usr/bin/true").read_bytes())
    (tmp_path / "bin" / "srun").chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.defpath}", "PYTHONSAFEPATH": "1"}
    for export, path in (("ALL", "train.py"), ("NONE", "cProfile.py")):
        argv = ("srun", f"--export={export}", sys.executable, "-m", "cProfile", "train.py")
        assert follow(argv, str(job), environment, resolve_executable).path == str(job / path)


def test_a_script_run_by_an_unknown_interpreter_behind_env_is_not_followed(job: Path) -> None:
    """`#!/usr/bin/env perl` takes modules from PERL5OPT, as `#!/usr/bin/perl` does."""
    kinds = {"env true": "unknown", "env sh": "script", "env -S sh -e": "script", "nice sh": "unknown"}
    for line, kind in kinds.items():
        script = job / "run"
        script.write_text(f"#!/usr/bin/{line}\n")
        script.chmod(0o755)
        program = follow(("./run",), str(job), {"PATH": os.defpath}, resolve_executable)
        assert program.kind == kind
        assert program.reason or program.path == str(script)
    script.write_text(f"#!/bin/sh {'-' + 'e' * 300}\n")
    assert follow(("./run",), str(job), {}, resolve_executable).kind == "unknown"


def test_env_has_no_exec(job: Path) -> None:
    """`env -S 'exec python train.py'` starts a program named exec."""
    text = f"{sys.executable} train.py"
    assert follow(("env", "-S", text), str(job), {}, resolve_executable).kind == "script"
    assert follow(("env", "-S", f"exec {text}"), str(job), {}, resolve_executable).kind == "unknown"
