"""Attempts to run a file in a job that the kernel takes for data: by the dynamic linker, an interpreter, or quickly."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyguard.evidence.collector import JobInputs
from policyguard.evidence.processes import is_supported
from policyguard.hooks.watch.processes import JobProcesses

pytestmark = pytest.mark.skipif(not is_supported(), reason="processes are inspected on Linux only")

SLEEP = "import time; time.sleep(30)\n"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A repository, and a script of it."""
    (tmp_path / "job" / ".git").mkdir(parents=True)
    (tmp_path / "job" / "train.py").write_text(SLEEP)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "job"


@contextmanager
def running(job: Path, decided: tuple[str, ...], started: tuple[str, ...]) -> Iterator[str]:
    """Start one command under the decision for another, and yield what the watch reports."""
    inputs = JobInputs(argv=decided, directory=str(job), environment={"PATH": "/usr/bin:/bin"})
    with subprocess.Popen(started, cwd=job, env={"PATH": "/usr/bin:/bin"}) as process:
        try:
            time.sleep(0.4)
            processes = JobProcesses(inputs)
            processes.started(process.pid)
            yield " ".join(drift.state for drift in processes.check())
        finally:
            process.kill()


def linker() -> str:
    """Find the dynamic linker of this interpreter."""
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"(/\S*/ld-\S+\.so\S*)", maps)
    if found is None:
        pytest.skip("no dynamic linker is mapped")
    return found[1]


def test_a_file_run_by_the_dynamic_linker_is_reported(job: Path) -> None:
    """The file needs no right to be executed, and may lie in any folder."""
    program = shutil.copy("/bin/sleep", job / "data.bin")
    Path(program).chmod(0o644)
    with running(job, (sys.executable, "train.py"), (linker(), str(program), "30")) as report:
        assert "by the dynamic linker" in report
        assert "data.bin" in report


def test_a_job_that_is_decided_to_run_by_the_linker_is_not_reported(job: Path) -> None:
    """The twin."""
    command = (linker(), "/bin/sleep", "30")
    with running(job, command, command) as report:
        assert report == ""


@pytest.mark.parametrize("options", [(), ("-u",), ("-X", "dev")])
def test_a_script_from_elsewhere_is_reported(job: Path, options: tuple[str, ...]) -> None:
    """An interpreter reads it as data; no mapping shows it."""
    script = job.parent / "elsewhere" / "evil.py"
    script.write_text(SLEEP)
    with running(job, (sys.executable, "train.py"), (sys.executable, *options, str(script))) as report:
        assert str(script) in report


@pytest.mark.parametrize("started", [("train.py",), ("-c", SLEEP), ("-m", "http.server", "0")])
def test_scripts_of_the_repository_and_text_are_not_reported(job: Path, started: tuple[str, ...]) -> None:
    """The twin: workers of data loaders are started with text."""
    with running(job, (sys.executable, "train.py"), (sys.executable, *started)) as report:
        assert report == ""


def test_the_script_that_was_decided_is_not_reported(job: Path) -> None:
    """The twin: a small job may run one from elsewhere, and its digest is bound."""
    script = job.parent / "elsewhere" / "own.py"
    script.write_text(SLEEP)
    command = (sys.executable, str(script))
    with running(job, command, command) as report:
        assert report == ""


def test_a_program_from_elsewhere_is_reported_also_at_the_first_check(job: Path) -> None:
    """Its `bin` folder was taken for one of the job if it was there before the watch began."""
    folder = job.parent / "elsewhere" / "bin"
    folder.mkdir()
    program = shutil.copy("/bin/sleep", folder / "evil")
    with running(job, (sys.executable, "train.py"), (str(program), "30")) as report:
        assert str(program) in report
