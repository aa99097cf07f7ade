"""Signals go down and the status comes up, as if the launcher were not there."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from policyguard.errors import EvidenceError
from policyguard.hooks.launcher.supervise import supervise

LAUNCHER = (
    "import sys\nfrom policyguard.hooks.launcher.supervise import supervise\n"
    "sys.exit(supervise(sys.argv[1:], sys.argv[1], '.', {'PATH': '/usr/bin:/bin'}))\n"
)
CATCH = "echo ready; trap 'echo caught; exit 7' %s; while :; do sleep 0.02; done"


COUNTING = """
import signal, time
interrupts = []
signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
print(input(), flush=True)
end = time.time() + 5
while not interrupts and time.time() < end:
    time.sleep(0.01)
time.sleep(0.2)
print("interrupts", len(interrupts), flush=True)
"""


def _no_signal_ignored() -> None:
    """Undo what `nohup` or a build system set: a shell cannot trap a signal that it was started to ignore."""
    for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "TSTP"):
        signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_DFL)


def launched(*argv: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *argv],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        preexec_fn=_no_signal_ignored,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("status", [0, 1, 77, 255])
def test_the_exit_status_is_the_jobs(status: int) -> None:
    """Whatever the job says, also our own codes."""
    assert supervise(["sh", "-c", f"exit {status}"], "/bin/sh", "/", {}) == status


def test_a_job_that_a_signal_ended_is_128_plus_its_number() -> None:
    """As a shell reports it."""
    assert supervise(["sh", "-c", "kill -KILL $$"], "/bin/sh", "/", {}) == 128 + signal.SIGKILL


def test_the_program_sees_its_own_name_and_not_its_path() -> None:
    """argv[0] stays as it was given; the program is started by the path that was measured."""
    assert supervise(["job", "-c", '[ "$0" = job ] || exit 9'], "/bin/sh", "/", {}) == 0


@pytest.mark.parametrize("executable", ["/nonexistent", "/etc/passwd", "/"])
def test_what_cannot_be_started_is_one_line(executable: str) -> None:
    """A missing program, one without the right, a folder."""
    with pytest.raises(EvidenceError, match="cannot be started"):
        supervise(["x"], executable, "/", {})


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_job(name: str) -> None:
    """The job may clean up and its own exit status is the launcher's."""
    process = launched("/bin/sh", "-c", CATCH % name)
    assert line(process) == "ready"
    time.sleep(0.1)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert line(process) == "caught"
    assert process.wait(30) == 7
    assert process.stdout is not None
    process.stdout.close()


def test_a_signal_that_ends_the_job_ends_the_launcher_with_128_plus_n() -> None:
    """Nobody catches it."""
    process = launched("/bin/sh", "-c", "echo ready; exec sleep 20")
    assert line(process) == "ready"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert process.stdout is not None
    process.stdout.close()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """`nohup policyguard run ...`: neither the launcher nor the job hears the hang-up."""
    job = "echo ready; kill -HUP $$; echo alive; read line; exit 4"
    words = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", LAUNCHER, "/bin/sh", "-c", job]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert (line(process), line(process)) == ("ready", "alive")
    process.send_signal(signal.SIGHUP)
    assert process.communicate("go\n", timeout=30)[0] == ""
    assert process.returncode == 4


def test_stopping_the_launcher_stops_the_job() -> None:
    """SIGTSTP to the launcher stops both, SIGCONT continues both."""
    process = launched("/bin/sh", "-c", "echo ready; while :; do echo tick; sleep 0.02; done")
    assert line(process) == "ready"
    process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    process.stdout.read()
    assert process.wait(30) == 128 + signal.SIGTERM
    process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGTSTP])
def test_a_signal_that_comes_before_the_job_exists_is_not_lost(number: int) -> None:
    """Caught while the guardian makes the child, then treated like any other, a stop included."""
    code = (
        "import os, signal, subprocess, sys\nfrom policyguard.hooks.launcher.supervise import supervise\n"
        "class Early(subprocess.Popen):\n"
        "    def __init__(self, *a, **k):\n"
        f"        os.kill(os.getppid(), {int(number)})\n        super().__init__(*a, **k)\n"
        "subprocess.Popen = Early\n"
        "sys.exit(supervise(['sleep', '20'], '/bin/sleep', '/', {}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        preexec_fn=_no_signal_ignored,
    )
    if number == signal.SIGTSTP:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_with_a_terminal_the_job_can_read_from_it_and_gets_one_interrupt() -> None:
    """The child stays in the foreground group: Ctrl-C comes from the terminal, once, and not from us again."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, sys.executable, "-c", COUNTING],
        stdin=slave,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(slave),
    )
    os.close(slave)
    os.write(master, b"hello\n")
    assert line(process) == "hello"
    os.write(master, b"\x03")
    assert line(process) == "interrupts 1"
    assert process.wait(30) == 0
    os.close(master)
    assert process.stdout is not None
    process.stdout.close()


def _take_terminal(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_outside_the_main_thread_the_job_runs_all_the_same() -> None:
    """Python cannot catch signals there; nothing else is different."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(supervise(["sh", "-c", "exit 5"], "/bin/sh", "/", {})))
    thread.start()
    thread.join()
    assert found == [5]


def test_handlers_are_put_back() -> None:
    """The library leaves the process as it found it."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP)]
    supervise(["sh", "-c", ":"], "/bin/sh", "/", {})
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTSTP)]
