"""The processes of a watched job: what comes into them from elsewhere is told, what programs do honestly is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from policyguard.evidence.processes import is_supported, process
from tests.e2e.launcher_lab import Lab
from tests.e2e.watch_lab import PERIOD_S, Obeying, eventually, obeying_lab

pytestmark = pytest.mark.skipif(not is_supported(), reason="processes are looked at on Linux only")

ATTACH = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
result = libc.ptrace(PTRACE_SEIZE, int(sys.argv[1]), None, None)
print("attached" if result == 0 else os.strerror(ctypes.get_errno()), flush=True)
time.sleep(float(sys.argv[2]))
"""
"""Attaches to a process as a debugger does, without stopping it (ptrace(2))."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return obeying_lab(tmp_path)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A real shared library at a place that no job's code comes from."""
    found = [*Path(sysconfig.get_config_var("DESTSHARED")).glob("_json*.so"), *_loaded("libc.so")]
    return Path(shutil.copy(found[0], tmp_path / "patch.so"))


def _loaded(name: str) -> list[Path]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [Path(line.split()[-1]) for line in maps if name in line]


def load(path: object) -> str:
    return f"import ctypes; ctypes.CDLL({str(path)!r})"


def test_a_library_that_comes_from_elsewhere_is_reported(lab: Lab, library: Path) -> None:
    """Code that is loaded into the running job from a folder that is nobody's names itself in the alert, and stays."""
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(load(library))
        assert eventually(lambda: bool(job.alerts))
        job.enough()
        assert job.status == 0
    assert job.reasons == [("drift.process",)]
    assert str(library) in job.words()


@pytest.mark.parametrize(("obligation", "status"), [("stop.on_drift", 0), ("stop.on_process", 77)])
def test_it_ends_the_job_only_under_its_own_obligation(lab: Lab, library: Path, obligation: str, status: int) -> None:
    """A place is a guess: a policy that ends jobs for drift does not end them for a library, one that says so does."""
    policies = lab.folder / "policies" / "jobs.yaml"
    policies.write_text(policies.read_text().rstrip() + f"\n    obligations: [{obligation}]\n")
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(load(library))
        assert eventually(lambda: bool(job.alerts))
        if status:
            job.thread.join(15)
        else:
            job.enough()
        assert job.status == status


def test_a_library_without_a_name_is_reported(lab: Lab, library: Path) -> None:
    """I15: loaded from memory (memfd), or deleted behind its back in a folder that would be allowed."""
    memory = (
        f"import ctypes, os; fd = os.memfd_create('libffi'); os.write(fd, open({str(library)!r}, 'rb').read());"
        "ctypes.CDLL(f'/proc/self/fd/{fd}')"
    )
    inside = lab.job / "fused.so"
    deleted = f"import ctypes, os, shutil; shutil.copy({str(library)!r}, {str(inside)!r});"
    deleted += f"ctypes.CDLL({str(inside)!r}); os.unlink({str(inside)!r})"
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(memory)
        assert eventually(lambda: "/memfd:libffi" in job.words())
        job.do(deleted)
        assert eventually(lambda: "fused.so" in job.words())


HONEST = """
import ctypes, mmap, os, sqlite3, ssl, subprocess, sys, threading, zlib, decimal
kept = [ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1) for _ in range(50)]
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
fd = os.memfd_create("jit")
os.write(fd, b"\\x90" * 4096)
pages = mmap.mmap(fd, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_EXEC)
threading.Thread(target=lambda: sum(range(1000))).start()
environment = {**os.environ, "PYTHONPATH": os.getcwd(), "LD_LIBRARY_PATH": "/opt/lib"}
child = subprocess.Popen([sys.executable, "-c", "import ssl, time; time.sleep(1)"], env=environment)
shell = subprocess.Popen(["/bin/sh", "-c", "sleep 1; true"])
"""


def test_what_programs_do_honestly_is_no_drift(lab: Lab, library: Path) -> None:
    """Call-backs, pages of a just-in-time compiler, threads, workers with paths of their own, a private cache."""
    cache = lab.folder / ".cache" / "kernels"
    cache.mkdir(parents=True, mode=0o700)
    compiled = Path(shutil.copy(library, cache / "kernel.so"))
    compiled.chmod(0o644)
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(HONEST)
        job.do(load(compiled))
        time.sleep(6 * PERIOD_S)
    assert (job.status, job.alerts, job.problems) == (0, [], [])


def test_a_cache_that_others_may_write_is_none(lab: Lab, library: Path) -> None:
    """One step further: the same kernel in the same cache, in a folder that a colleague may write to."""
    cache = lab.folder / ".cache" / "kernels"
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    compiled = shutil.copy(library, cache / "kernel.so")
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(load(compiled))
        assert eventually(lambda: "kernel.so" in job.words())


def test_a_folder_of_the_operators_is_no_drift(lab: Lab, library: Path, tmp_path: Path) -> None:
    """What `watch: {libraries: [...]}` names is where code may come from."""
    shared = tmp_path / "shared"
    shared.mkdir()
    moved = shutil.copy(library, shared / "kernel.so")
    with lab.guard() as guard, Obeying(lab, guard, libraries=[str(shared)]) as job:
        job.do(load(moved))
        time.sleep(4 * PERIOD_S)
    assert job.alerts == []


def test_a_process_that_attaches_to_a_job_is_reported(lab: Lab) -> None:
    """I15: a debugger from outside names itself by process id and program; that it went does not make it undone."""
    with lab.guard() as guard, Obeying(lab, guard) as job:
        words = [sys.executable, "-c", ATTACH, str(job.pid), "20"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as debugger:
            assert debugger.stdout is not None
            said = debugger.stdout.readline().strip()
            if said != "attached":
                debugger.kill()
                pytest.skip(f"attaching is not permitted here: {said}")
            assert eventually(lambda: bool(job.alerts))
            debugger.kill()
        time.sleep(3 * PERIOD_S)
    assert job.reasons == [("drift.process",)]
    assert f"traced by pid {debugger.pid}" in job.words()


def test_a_debugger_that_the_job_started_is_no_drift(lab: Lab) -> None:
    """The twin: who was started under the decision belongs to the job, as profilers do."""
    words = f"[sys.executable, '-c', {ATTACH!r}, str(os.getpid()), '1']"
    text = f"import os, subprocess, sys; kept = subprocess.Popen({words})"
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(text)
        time.sleep(5 * PERIOD_S)
    assert job.alerts == []


def test_a_preloaded_child_is_reported(lab: Lab, library: Path) -> None:
    """A door that the decision did not know, opened for a process that the job starts."""
    preloaded = _loaded("libc.so")[0]
    environment = f"{{**os.environ, 'LD_PRELOAD': '{preloaded}'}}"
    text = f"import os, subprocess; subprocess.Popen(['/bin/sleep', '2'], env={environment})"
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(text)
        assert eventually(lambda: f"LD_PRELOAD={preloaded}" in job.words())


def test_a_process_that_left_its_family_is_found(lab: Lab, library: Path) -> None:
    """A daemon, in a session of its own and below init, still carries the decision that it was started under."""
    daemon = f"import ctypes, time; ctypes.CDLL({str(library)!r}); time.sleep(4)"
    text = (
        "import os, subprocess, sys; pid = os.fork();"
        f"pid or (os.setsid(), subprocess.Popen([sys.executable, '-c', {daemon!r}]), os._exit(0)); os.waitpid(pid, 0)"
    )
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(text)
        assert eventually(lambda: str(library) in job.words())


def test_a_process_that_may_not_be_inspected_is_reported() -> None:
    """Another user's process is a PermissionError, not one without mappings; one that has ended is None."""
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            process(1)
    else:
        ours, child = os.getpid(), os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                process(ours)
            except PermissionError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    assert process(ended.pid) is None
