"""Attempts to run a file in a job that the kernel takes for data: by the dynamic linker, an interpreter, or quickly."""

from __future__ import annotations

import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from policyguard.evidence.collector import JobInputs
from policyguard.evidence.processes import is_supported
from policyguard.hooks.launcher.start_check import StartCheck
from policyguard.hooks.watch.processes import JobProcesses, measured_libraries
from policyguard.values import EMPTY_MAP, FrozenMap, Value

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
def running(
    job: Path,
    decided: tuple[str, ...],
    started: tuple[str, ...],
    *,
    bound: Mapping[str, Value] = EMPTY_MAP,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Start one command under the decision for another, and yield what the watch reports."""
    variables = {"PATH": "/usr/bin:/bin", **(environment or {})}
    inputs = JobInputs(argv=decided, directory=str(job), environment=variables)
    with subprocess.Popen(started, **{"cwd": job, "env": variables, "stdin": subprocess.DEVNULL, **options}) as process:
        try:
            time.sleep(0.4)
            processes = JobProcesses(inputs, libraries=measured_libraries(inputs, bound))
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


@pytest.fixture
def elsewhere(job: Path) -> Path:
    """A folder of files that nothing measured, one for each way to start them."""
    folder = job.parent / "elsewhere"
    (folder / "s.py").write_text(SLEEP)
    (folder / "s.sh").write_text("sleep 30; true\n")
    (folder / "s.pl").write_text("sleep 30;\n")
    (folder / "evil").mkdir()
    (folder / "evil" / "__main__.py").write_text(SLEEP)
    py_compile.compile(str(folder / "s.py"), cfile=str(folder / "s.pyc"))
    with zipfile.ZipFile(folder / "s.zip", "w") as archive:
        archive.writestr("__main__.py", SLEEP)
    return folder


FOREIGN = [
    "{python} {elsewhere}/s.pyc",
    "{python} {elsewhere}/s.zip",
    "{python} {elsewhere}/evil",
    "{python} -X nosuch {elsewhere}/s.py",
    "{python} -X pycache_prefix=/tmp/x {elsewhere}/s.py",
    "{python} -W ignore.x {elsewhere}/s.py",
    "{python} -i {elsewhere}/s.py",
    "{python} ../elsewhere/s.py",
    "{python} -X pycache_prefix={elsewhere} train.py",
    "{python} -X nosuch train.py",
    "{python} -i train.py",
    "bash {elsewhere}/s.sh",
    "bash -l {elsewhere}/s.sh",
    "bash -c .|{elsewhere}/s.sh;true",
    "bash -c true&&source|{elsewhere}/s.sh;true",
    "perl {elsewhere}/s.pl",
]


@pytest.mark.parametrize("command", FOREIGN)
def test_a_program_from_elsewhere_is_reported_however_it_is_started(job: Path, elsewhere: Path, command: str) -> None:
    """What cannot be followed counted as fine: byte code, archives, and options that the grammar does not know."""
    text = command.format(python=sys.executable, elsewhere=elsewhere)
    started = tuple(word.replace("|", " ") for word in text.split())
    if shutil.which(started[0]) is None:
        pytest.skip(f"{started[0]} is not installed")
    with running(job, (sys.executable, "train.py"), started) as report:
        assert started[-1].rpartition("|")[2].split(";")[0].split()[-1].split("/")[-1].split(".")[0] in report


def test_shared_memory_is_no_folder_of_code(job: Path) -> None:
    """Every confined job may write it."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir="/dev/shm") as script:
        script.write(SLEEP)
        script.flush()
        with running(job, (sys.executable, "train.py"), (sys.executable, script.name)) as report:
            assert script.name in report


def test_a_program_in_shared_memory_is_not_the_one_that_was_measured(job: Path) -> None:
    """The check after the start took all of /dev for the system."""
    argv, environment = ("/bin/sleep", "30"), {"PATH": "/usr/bin:/bin"}
    inputs = JobInputs(argv=argv, directory=str(job), environment=environment)
    check = StartCheck(inputs)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        program = shutil.copy("/bin/sleep", folder)
        for executable, expected in ((str(program), str(program)), ("/bin/sleep", "")):
            with subprocess.Popen(argv, executable=executable, cwd=job, env=environment) as process:
                time.sleep(0.1)
                problem = check.first_problem(process.pid, environment)
                process.kill()
            assert expected in problem
            assert bool(problem) is bool(expected)
    check.close()


def test_a_module_of_another_folder_is_reported(job: Path, elsewhere: Path) -> None:
    command = (sys.executable, "-m", "evil")
    with running(job, (sys.executable, "train.py"), command, cwd=elsewhere) as report:
        assert str(elsewhere / "evil" / "__main__.py") in report
    with running(job, (sys.executable, "train.py"), (sys.executable, "-m", "train")) as report:
        assert report == ""


def test_a_program_on_standard_input_is_reported(job: Path, elsewhere: Path) -> None:
    """No command line shows it. A process with a title of its own counts only if a file from elsewhere is its input."""
    for name in (sys.executable, "title of a worker"):
        with (elsewhere / "s.py").open() as script:
            decided = (sys.executable, "train.py")
            with running(job, decided, (name,), executable=sys.executable, stdin=script) as report:
                assert "cannot be followed" in report
    with running(job, decided, ("title of a worker",), executable=sys.executable, stdin=subprocess.PIPE) as report:
        assert report == ""


@pytest.fixture
def fake(job: Path) -> Path:
    """A folder with `bin` and `lib`, which the submitter puts on PATH."""
    folder = job.parent / "m"
    for name in ("bin", "lib"):
        (folder / name).mkdir(parents=True)
    (folder / "lib" / "evil.py").write_text(SLEEP)
    shutil.copy("/bin/sleep", folder / "lib" / "evil")
    return folder


@pytest.mark.parametrize("program", ["{python} {fake}/lib/evil.py", "{fake}/lib/evil 30"])
def test_a_folder_on_path_is_no_folder_of_the_jobs(job: Path, fake: Path, program: str) -> None:
    """The submitter chooses PATH, and nothing measures what it names."""
    started = tuple(program.format(python=sys.executable, fake=fake).split())
    path = {"PATH": f"{fake}/bin:/usr/bin:/bin"}
    with running(job, (sys.executable, "train.py"), started, environment=path) as report:
        assert str(fake / "lib" / "evil") in report


def test_a_folder_on_the_library_path_counts_only_if_its_content_was_measured(job: Path, fake: Path) -> None:
    started, variables = (str(fake / "lib" / "evil"), "30"), {"LD_LIBRARY_PATH": str(fake / "lib")}
    with running(job, (sys.executable, "train.py"), started, environment=variables) as report:
        assert str(fake / "lib" / "evil") in report
    bound = {"resource.injected_files": FrozenMap({str(fake / "lib"): "sha256:0"})}
    with running(job, (sys.executable, "train.py"), started, environment=variables, bound=bound) as report:
        assert report == ""


WORKERS = """
import multiprocessing, os, subprocess, sys, time
if __name__ == "__main__":
    os.chdir("/")
    workers = []
    for method in ("spawn", "forkserver", "fork"):
        context = multiprocessing.get_context(method)
        context.Semaphore()
        workers.append(context.Process(target=time.sleep, args=(30,), daemon=True))
    for worker in workers:
        worker.start()
    subprocess.Popen("sleep 30; true", shell=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("options", [(), ("-W", "ignore::x.Y"), ("-u", "-X", "dev", "-Wignore")])
def test_worker_processes_are_not_reported(job: Path, options: tuple[str, ...]) -> None:
    """The twin: data loaders start workers by fork, spawn and a fork server, and semaphores a tracker."""
    (job / "train.py").write_text(WORKERS)
    command = (sys.executable, *options, "train.py")
    with running(job, command, command, start_new_session=True) as report:
        assert report == ""


@pytest.fixture
def python(job: Path) -> Path:
    """The interpreter of an environment with a launcher and a compiler."""
    folder = job.parent / "env"
    worker = folder / "lib" / "torch" / "_inductor" / "compile_worker" / "__main__.py"
    worker.parent.mkdir(parents=True)
    worker.write_text(SLEEP)
    (folder / "bin").mkdir()
    (folder / "bin" / "torchrun").write_text(SLEEP)
    real = Path(sys.executable).resolve()
    (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    (folder / "bin" / "python").symlink_to(real)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    "command",
    [
        "-u {env}/lib/torch/_inductor/compile_worker/__main__.py --pickler=torch --workers=8 --parent=1",
        "{env}/bin/torchrun --standalone --nproc-per-node 2 train.py",
        "-u train.py --lr 3",
    ],
)
def test_ranks_and_workers_of_compilers_are_not_reported(job: Path, python: Path, command: str) -> None:
    """The twin: what belongs to the environment of the decided interpreter, and the ranks of a launcher."""
    started = (str(python), *command.format(env=python.parent.parent).split())
    with running(job, (str(python), "{env}/bin/torchrun", "train.py"), started) as report:
        assert report == ""


@pytest.mark.parametrize("command", ["bash -lc sleep|30;true", "{python} -X nosuch train.py", "{python} -i train.py"])
def test_a_command_that_was_decided_is_not_reported(job: Path, command: str) -> None:
    """The twin: it is unknown in the decision, which policies can deny."""
    text = command.format(python=sys.executable)
    argv = tuple(word.replace("|", " ") for word in text.split())
    with running(job, argv, argv) as report:
        assert report == ""
