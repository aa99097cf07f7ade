"""Attacks by a job whose processes leave it, or that kills what supervises it; each has a twin that is allowed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.audit.receipt import SignedDecision
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.hooks.launcher.process_tree import is_available
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request
from tests.e2e.watch_lab import Obeying, eventually, obeying_lab

pytestmark = pytest.mark.skipif(not is_available(), reason="what leaves a job is found on Linux only")

ROOT = Path(__file__).parents[2]
WITHIN_S = 60
"""Generous: every test ends as soon as the condition holds."""

LEAVE = """
import os, sys, time
def leave(path, then):
    "Run `then` in a process with another parent, session and environment; return once it has written its pid."
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        ready = f"open({path!r}, 'w').write(str(os.getpid()))"
        program = "import os, signal, sys, time; " + then.replace("READY", ready)
        os.execve("/usr/bin/env", ["env", "-i", sys.executable, "-c", program], {})
    os.wait()
    while not os.path.exists(path) or not open(path).read():
        time.sleep(0.01)
path = sys.argv[1]
"""


def leaving(path: Path, then: str, after: str = "") -> str:
    """Return a program of which a process leaves; `then` runs in that process, `after` in the first one."""
    return f"{LEAVE}\nleave({str(path)!r}, {then!r})\n{after}\n"


AWAY = {
    "sleeps": "READY; time.sleep(600)",
    "ignores SIGTERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN); READY; time.sleep(600)",
    "is stopped": "READY; os.kill(os.getpid(), signal.SIGSTOP); time.sleep(600)",
    "leaves again": "READY; os.fork() and os._exit(0); os.setsid(); time.sleep(600)",
    "ends its first thread": (
        "import ctypes, threading; threading.Thread(target=time.sleep, args=(600,)).start(); READY; "
        "ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)"
    ),
}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def run(lab: Lab, source: str, *command: str) -> tuple[int, list[SignedDecision]]:
    """Let the job run this program, and return its exit status and the alerts."""
    (lab.job / "train.py").write_text(source)
    commit_all(lab.job)
    alerts: list[SignedDecision] = []
    with lab.guard() as guard:
        inputs = lab.inputs((sys.executable, "train.py", str(lab.ran), *command))
        status = launch(
            guard, request(), inputs, lab.trust, audience="node-1", watch=WatchOptions(on_alert=alerts.append)
        )
    return status, alerts


def runs(pid: int) -> bool:
    """Return True if any thread of this process runs."""
    try:
        states = [
            Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]
            for thread in os.listdir(f"/proc/{pid}/task")
        ]
    except OSError:
        return False
    return any(state not in "ZX" for state in states)


def has_ended(path: Path) -> Callable[[], bool]:
    """Return a condition: the process that wrote its pid there has ended."""
    return lambda: not runs(int(path.read_text()))


@pytest.mark.parametrize("away", AWAY)
def test_a_daemon_without_an_environment_ends_with_its_job(lab: Lab, away: str) -> None:
    """I15: `env -i`, two forks and a session of its own: it is ended at the end of the job, and logged."""
    status, alerts = run(lab, leaving(lab.ran, AWAY[away]))
    assert status == 0
    assert has_ended(lab.ran)()
    (alert,) = alerts
    assert alert.decision.reason_codes == ("drift.outlived",)
    text = str(alert.decision.facts.missing["resource.processes"])
    assert text.startswith("1 process outlived the job and had to be ended: pid ")
    if away != "leaves again":
        assert f"pid {lab.ran.read_text()}" in text


LOADERS = """
import multiprocessing, os, sys
from multiprocessing import shared_memory
def load(number):
    return number * number
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    block = shared_memory.SharedMemory(create=True, size=64)
    with context.Pool(2) as pool:
        assert sum(pool.map(load, range(100))) == 328350
    block.close()
    block.unlink()
    open(sys.argv[1], "w").write("trained")
"""


def test_data_loaders_of_a_job_that_ends_leave_no_alert(lab: Lab) -> None:
    """The twin: worker processes, shared memory and their tracker end by themselves."""
    assert run(lab, LOADERS) == (0, [])
    assert lab.ran.read_text() == "trained"


def test_a_helper_that_ends_by_itself_leaves_no_alert(lab: Lab) -> None:
    """The twin: it outlives the job for a moment, and may do its work to the end."""
    then = f"READY; time.sleep(0.3); open({str(lab.ran)!r}, 'a').write(' done')"
    assert run(lab, leaving(lab.ran, then)) == (0, [])
    assert lab.ran.read_text().endswith(" done")


BOMB = """
import os, sys
def flee():
    while True:
        if os.fork():
            os._exit(0)
        open(sys.argv[1], "w").write(str(os.getpid()))
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        flee()
while not os.path.exists(sys.argv[1]):
    pass
"""


def test_a_process_that_flees_from_pid_to_pid_is_caught(lab: Lab) -> None:
    """I15: each starts the next and ends, so that no list of processes ever names the one that runs."""
    status, alerts = run(lab, BOMB)
    assert status == 0
    assert alerts[0].decision.reason_codes == ("drift.outlived",)
    assert "could not be ended" not in str(alerts[0].decision.facts.missing)
    time.sleep(0.1)
    before = lab.ran.stat().st_mtime_ns
    time.sleep(0.3)
    assert lab.ran.stat().st_mtime_ns == before


def test_a_bomb_is_ended(lab: Lab) -> None:
    """I15: hundreds of processes that ignore SIGTERM and start more."""
    source = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.setsid()\n"
        "for _ in range(8):\n    os.fork()\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "while True:\n    time.sleep(1)\n    os.fork() if time.monotonic() % 7 < 1 else None\n"
    )
    start = f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {source!r}, sys.argv[1]])\n"
    status, alerts = run(lab, start + "time.sleep(2)\n")
    assert status == 0
    assert alerts[0].decision.reason_codes == ("drift.outlived",)
    assert "could not be ended" not in str(alerts[0].decision.facts.missing)
    assert not any(runs(int(pid)) for pid in lab.ran.read_text().split())


LAUNCHER = (
    "import sys\nfrom policyguard.hooks.launcher.supervise import supervise\n"
    "sys.exit(supervise(sys.argv[1:], sys.argv[1], '.', {}))\n"
)


def launched(source: str, path: Path) -> subprocess.Popen[bytes]:
    """Start a launcher with a job that runs this program, and wait until the job has written a file."""
    command = [sys.executable, "-c", LAUNCHER, sys.executable, "-c", source, str(path)]
    launcher = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert eventually(lambda: path.exists() and path.read_text() != "", WITHIN_S)
    return launcher


def test_a_job_does_not_go_on_without_its_launcher(tmp_path: Path) -> None:
    """I15: SIGKILL to the launcher ends the job, and the daemon that left it long before."""
    first, daemon = tmp_path / "first", tmp_path / "daemon"
    after = "open(path, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    with launched(leaving(daemon, AWAY["sleeps"], after), first) as launcher:
        launcher.kill()
    assert eventually(has_ended(first), WITHIN_S)
    assert eventually(has_ended(daemon), WITHIN_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_the_group_of_the_launcher_reaches_the_job_once(tmp_path: Path, number: int) -> None:
    """The twin: what a scheduler sends to the whole group does not end the guardian, and the job may clean up."""
    path = tmp_path / "first"
    source = (
        "import os, signal, sys, time\ncaught = []\n"
        f"signal.signal({int(number)}, lambda *_: caught.append(1))\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "while not caught: time.sleep(0.01)\ntime.sleep(0.2)\nsys.exit(40 + len(caught))\n"
    )
    command = [sys.executable, "-c", LAUNCHER, sys.executable, "-c", source, str(path)]

    def heed() -> None:
        # What started the tests may have left the signal ignored, as shells do for SIGINT in the background.
        signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=ROOT, process_group=0, preexec_fn=heed) as launcher:
        assert eventually(lambda: path.exists() and path.read_text() != "", WITHIN_S)
        os.killpg(launcher.pid, number)
        assert launcher.wait(WITHIN_S) == 41


def test_a_job_that_kills_its_guardian_is_ended(lab: Lab) -> None:
    """I15: the parent of the job is easy to find and to kill; the launcher then ends the job, and says why."""
    source = "import os, signal, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\n"
    source += "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)\n"
    status, alerts = run(lab, source)
    assert status == 77
    assert alerts[0].decision.reason_codes == ("drift.unguarded",)
    assert eventually(has_ended(lab.ran), WITHIN_S)


def test_what_left_before_the_guardian_was_killed_ends_as_well(tmp_path: Path) -> None:
    """I15: the launcher adopts what the guardian had adopted."""
    daemon = tmp_path / "daemon"
    after = "import signal\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    with launched(leaving(daemon, AWAY["sleeps"], after), daemon) as launcher:
        assert launcher.wait(WITHIN_S) == 128 + signal.SIGKILL
    assert eventually(has_ended(daemon), WITHIN_S)


def test_the_watch_inspects_a_daemon_without_an_environment(tmp_path: Path) -> None:
    """I15: neither its parent nor its environment says whose it is, and still its code is the job's."""
    lab = obeying_lab(tmp_path)
    library = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line)
    foreign = tmp_path / "patch.so"
    foreign.write_bytes(Path(library).read_bytes())
    daemon = tmp_path / "daemon"
    text = leaving(daemon, f"import ctypes; ctypes.CDLL({str(foreign)!r}); READY; time.sleep(600)")
    with lab.guard() as guard, Obeying(lab, guard) as job:
        job.do(text)
        assert eventually(lambda: str(foreign) in job.words(), WITHIN_S)
    assert eventually(has_ended(daemon), WITHIN_S)
