"""Byte code that was planted in `__pycache__` of a clean repository, and commands that make Python load it."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.evidence.collector import JobInputs
from policyguard.evidence.repository import CODE, RepositoryCollector
from policyguard.model.request import Request
from policyguard.values import FrozenMap
from tests.attacks.git_lab import git

CACHED = f"__pycache__/model.{sys.implementation.cache_tag}.pyc"
FILES = {
    "model.py": "WORD = 'good'\n",
    "train.py": "import model\nprint(model.WORD)\n",
    "run.sh": f"#!/bin/sh\nexec {sys.executable} -E train.py\n",
    "strict": f"#!{sys.executable} -E\nimport model\nprint(model.WORD)\n",
    "plain": f"#!{sys.executable}\nimport model\nprint(model.WORD)\n",
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A clean repository, a program that does nothing with the name srun, and `python` first on PATH."""
    job = tmp_path / "job"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text('#!/bin/sh\nshift; exec env -i "$@"\n')
    job.mkdir()
    (job / ".gitignore").write_text("__pycache__\n")
    for name, text in FILES.items():
        (job / name).write_text(text)
    for path in (tmp_path / "bin" / "srun", job / "run.sh", job / "strict", job / "plain"):
        path.chmod(0o755)
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(job, "commit", "-qm", "a job")
    return job


def plant(job: Path, *, evil: bool = True, mode: str = "TIMESTAMP") -> None:
    """Compile `model.py`; a planted one has the times and the size of the source, and another content."""
    py_compile.compile(
        str(job / "model.py"), cfile=str(job / CACHED), invalidation_mode=py_compile.PycInvalidationMode[mode]
    )
    if evil:
        (job / CACHED).write_bytes((job / CACHED).read_bytes().replace(b"good", b"EVIL"))


def code(job: Path, *argv: str, private: bool = True) -> tuple[bool, object]:
    variables = {"PATH": f"{job.parent / 'bin'}:{os.defpath}"}
    inputs = JobInputs(argv=argv, directory=str(job), environment=variables, private_bytecode=private)
    value = RepositoryCollector().collect(Request.of("user:m", "job:submit", "job:x"), inputs, 1).entries[CODE].value
    assert isinstance(value, FrozenMap)
    assert value["dirty"] == bool(value["untracked_files"])
    return bool(value["dirty"]), value["untracked_files"]


P = sys.executable
LOADS = {
    "-E": (P, "-E", "train.py"),
    "-I": (P, "-BI", "-m", "cProfile", "train.py"),
    "env -u": ("env", "-u", "PYTHONPYCACHEPREFIX", P, "train.py"),
    "env -i": ("env", "-i", P, "train.py"),
    "env NAME=": ("env", "PYTHONPYCACHEPREFIX=", P, "train.py"),
    "nested env": ("nohup", "env", "A=1", "env", "-i", P, "train.py"),
    "srun --export=NONE": ("srun", "--export=NONE", P, "train.py"),
    "an interpreter line": ("./strict",),
    "a shell script": ("./run.sh",),
    "a shell": ("sh", "run.sh"),
    "text": (P, "-c", "import os, sys; os.execve(sys.executable, ['python', 'train.py'], {})"),
}
KEEPS = {
    "a script": (P, "train.py"),
    "options": (P, "-u", "-B", "-OO", "train.py"),
    "a module": (P, "-m", "train"),
    "a wrapper": (P, "-m", "cProfile", "train.py"),
    "env": ("env", "A=1", P, "train.py"),
    "srun": ("srun", "--export=ALL", P, "train.py"),
    "an interpreter line": ("./plain",),
}


@pytest.mark.parametrize("argv", LOADS.values(), ids=LOADS.keys())
def test_planted_byte_code_that_may_run_is_dirt(job: Path, argv: tuple[str, ...]) -> None:
    """The launcher's variable does not reach this Python, and it runs; honest byte code is no dirt."""
    plant(job, evil=False)
    assert code(job, *argv) == (False, ())
    plant(job)
    assert code(job, *argv) == (True, (CACHED,))
    environment = {
        "PATH": f"{job.parent / 'bin'}:{os.environ['PATH']}",
        "PYTHONPYCACHEPREFIX": str(job.parent / "private"),
    }
    ended = subprocess.run(argv, cwd=job, env=environment, check=True, capture_output=True, text=True)
    assert "EVIL" in ended.stdout


@pytest.mark.parametrize("argv", KEEPS.values(), ids=KEEPS.keys())
def test_byte_code_that_the_launcher_hides_is_no_dirt(job: Path, argv: tuple[str, ...]) -> None:
    """The twin: it is not loaded. Without the launcher it would be."""
    plant(job)
    assert code(job, *argv) == (False, ())
    assert code(job, *argv, private=False) == (True, (CACHED,))
    # A folder of the job, which has the name of the variable.
    for value in ("PYTHONPYCACHEPREFIX", "bytecode", "/evil"):
        assert code(job, "env", f"PYTHONPYCACHEPREFIX={value}", *argv) == (True, (CACHED,))


@pytest.mark.parametrize("mode", ["CHECKED_HASH", "UNCHECKED_HASH"])
def test_byte_code_with_a_hash_is_compared(job: Path, mode: str) -> None:
    argv = (sys.executable, "-E", "train.py")
    plant(job, evil=False, mode=mode)
    assert code(job, *argv) == (False, ())
    plant(job, mode=mode)
    assert code(job, *argv) == (True, (CACHED,))


def test_byte_code_of_another_python_is_not_known(job: Path) -> None:
    """The job may run with that one; an older file, or one without a source, is never loaded."""
    argv = (sys.executable, "-E", "train.py")
    plant(job, evil=False)
    other = job / CACHED.replace(str(sys.implementation.cache_tag), "cpython-399")
    shutil.copy(job / CACHED, other)
    assert code(job, *argv) == (True, (f"__pycache__/{other.name}",))
    os.utime(job / "model.py", (1, 1))
    assert code(job, *argv) == (False, ())
    other.rename(other.with_name("gone.cpython-399.pyc"))
    assert code(job, *argv) == (False, ())
    shutil.copy(job / CACHED, job / "__pycache__" / "model.cpython-36.pyc")
    assert code(job, *argv) == (True, ("__pycache__/model.cpython-36.pyc",))


def test_a_folder_of_byte_code_elsewhere_is_not_followed(job: Path) -> None:
    """`__pycache__` is a link, which a committed `.gitignore` ignores."""
    plant(job)
    shutil.move(job / "__pycache__", job.parent / "elsewhere")
    (job / "__pycache__").symlink_to(job.parent / "elsewhere")
    assert code(job, sys.executable, "-E", "train.py") == (True, ("__pycache__",))
    assert code(job, sys.executable, "train.py") == (False, ())


def test_what_was_equal_once_is_compared_again_when_it_changed(job: Path) -> None:
    """Of the byte code, and of the source."""
    argv = (sys.executable, "-E", "train.py")
    plant(job, evil=False)
    assert code(job, *argv) == code(job, *argv) == (False, ())
    head = (job / CACHED).read_bytes()[:16]
    plant(job)
    assert code(job, *argv) == (True, (CACHED,))
    (job / CACHED).write_bytes(head + b"x")
    assert code(job, *argv) == (True, (CACHED,))
    (job / CACHED).unlink()
    os.symlink("/dev/null", job / CACHED)
    assert code(job, *argv)[0]
    assert importlib.util.cache_from_source(str(job / "model.py")) == str(job / CACHED)
