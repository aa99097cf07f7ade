"""The guardian: a process between the launcher and its job, which lets nothing of the job outlive either.

    launcher    decides, logs, forwards signals, watches
      guardian  starts the job, adopts what leaves it, and ends all of it when the job or the launcher has ended
        job     and everything that it starts

A job that kills the launcher ends with it, and one that kills the guardian is ended by the launcher. Only somebody who
kills both at once leaves a job alone; a confined job cannot signal either (`run.confined`).

The guardian is forked and runs only the code below. It opens no file of the guard.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, NoReturn, Protocol

import msgspec

from policyguard.errors import EvidenceError
from policyguard.hooks.launcher.process_tree import LINGER_S, Ended, Ending, has_children, kill_tree, set_subreaper

GRACE_S = 10.0
"""Time between SIGTERM and SIGKILL, in which a job may write a last checkpoint."""

LOST_GRACE_S = 2.0
"""The same when the launcher was killed: until then nobody watches the job."""


class Started(Protocol):
    """A child process, as `Popen` describes it."""

    pid: int
    returncode: Any

    def poll(self) -> int | None:
        """Return its status if it has ended."""

    def wait(self) -> int:
        """Wait until it has ended, and return its status."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""


Begin = Callable[[], Started]

_END, _KILL = b"E", b"K"

ENDING = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)
"""Signals that other processes send, and that end a program unless it handles them."""

_CAUGHT = (*ENDING, signal.SIGPIPE, signal.SIGTSTP)


class JobEnd(msgspec.Struct, frozen=True):
    """How a job ended.

    `status` is the one of its first process, negative for a signal; `outlived` are processes that outlived that one;
    `guardian_lost` says that somebody killed the guardian, so that the launcher ended the job; `unexpected_signal` is
    the signal that ended it, unless that was forwarded or part of ending it.
    """

    status: int
    outlived: Ended = Ended()
    guardian_lost: bool = False
    unexpected_signal: int = 0

    @property
    def signal(self) -> int:
        """The signal that ended the first process; 0 if none did."""
        return max(0, -self.status)

    @property
    def exit_status(self) -> int:
        """The status as a shell would give it: 128 + n if signal n ended it."""
        return 128 + self.signal if self.signal else self.status


class GuardedJob:
    """The job, as the launcher sees it: its pid, and its end."""

    def __init__(self, pid: int, guardian: _Guardian) -> None:
        self.pid, self.guardian_pid, self._guardian = pid, guardian.pid, guardian
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:
            # The job has ended already.
            self._descriptor = -1

    def send_signal(self, number: int) -> None:
        """Send a signal to the job's first process, if it still runs."""
        with suppress(OSError):
            if self._descriptor >= 0:
                signal.pidfd_send_signal(self._descriptor, number)

    def end(self, *, at_once: bool = False) -> None:
        """Ask everything in the job to end, and kill it after the grace period, or at once. Does not wait."""
        with suppress(OSError):
            os.write(self._guardian.control, _KILL if at_once else _END)

    def wait(self) -> JobEnd:
        """Wait until the job and everything that it left has ended."""
        message: dict[str, Any] = {}
        while line := self._guardian.report.readline():
            message |= _parse(line)
        try:
            if "outlived" in message:
                return JobEnd(message["ended"], msgspec.convert(message["outlived"], Ended))
            status, remaining = self._guardian.take_over(self.pid)
            return JobEnd(message.get("ended", status), remaining, guardian_lost=True)
        finally:
            self._guardian.close()
            if self._descriptor >= 0:
                os.close(self._descriptor)


class _Guardian(msgspec.Struct):
    """The launcher's side of a guardian: its pid, what it reports, and how it is asked to end the job."""

    pid: int
    report: BinaryIO
    control: int
    adopts: bool
    """True if what the guardian leaves behind becomes a child of the launcher."""

    def take_over(self, job: int) -> tuple[int, Ended]:
        """End what a killed guardian left; return the status of its job, and what would not end.

        Args:
            job: pid of the first process; 0 if it is not known.
        """
        reaper = _Reaper(job)
        # INVARIANT I15: a job does not go on without the process that can end it.
        if self.adopts:
            ended = Ending(reaper.reap).run(linger_s=0, grace_s=0)
        else:
            kill_tree(job)
            ended = Ended()
        remaining = ended if ended.remaining else Ended()
        return -signal.SIGKILL if reaper.status is None else reaper.status, remaining

    def close(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        if self.adopts:
            set_subreaper(on=False)
        self.report.close()
        os.close(self.control)


def start_guarded(begin: Begin, *, grace_s: float = GRACE_S) -> GuardedJob:
    """Start a job below a guardian.

    Args:
        begin: starts the program, in the guardian.
        grace_s: time between SIGTERM and SIGKILL.

    Raises:
        EvidenceError: the program cannot be started; nothing runs.
    """
    guardian = _fork(begin, grace_s)
    message = _parse(guardian.report.readline())
    if "started" in message:
        return GuardedJob(message["started"], guardian)
    if not message:
        guardian.take_over(0)
    guardian.close()
    raise EvidenceError(message.get("failed", "the guardian of the job was killed, expected that it starts the job"))


def _fork(begin: Begin, grace_s: float) -> _Guardian:
    # A process that has other children cannot tell, once the guardian is dead, which of them are the job's.
    adopts = threading.current_thread() is threading.main_thread() and not has_children()
    report, control = os.pipe(), os.pipe()
    launcher = os.pidfd_open(os.getpid())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with warnings.catch_warnings():
            # Python warns of locks that other threads hold; the guardian uses none of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run(begin, (report[1], control[0], launcher), mask, grace_s)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for descriptor in (report[1], control[0], launcher):
        os.close(descriptor)
    if adopts:
        set_subreaper(on=True)
    return _Guardian(pid, open(report[0], "rb"), control[1], adopts)


def _run(begin: Begin, descriptors: tuple[int, int, int], mask: set[int], grace_s: float) -> NoReturn:
    """Be the guardian, and never return to the launcher's code, whose cleaning up is not ours."""
    try:
        gc.disable()
        _be_guardian(begin, descriptors, mask, grace_s)
    finally:
        os._exit(0)


def _be_guardian(begin: Begin, descriptors: tuple[int, int, int], mask: set[int], grace_s: float) -> None:
    report, control, launcher = descriptors
    # Signals for the launcher's group are for the launcher, which forwards them.
    os.setpgid(0, 0)
    for number in _CAUGHT:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    set_subreaper(on=True)
    try:
        job = begin()
    except BaseException as problem:  # noqa: BLE001 - the launcher raises it
        _write(report, failed=str(problem))
        return
    job.returncode = 0
    reaper = _Reaper(job.pid)
    ending = Ending(reaper.reap)
    reason, linger_s, patience_s = "alone", 0.0, LOST_GRACE_S
    try:
        _write(report, started=job.pid)
        _close_all_but(descriptors)
        reason = _wait(reaper, control, launcher)
        linger_s = LINGER_S if reason == "ended" else 0.0
        patience_s = {"alone": LOST_GRACE_S, "killed": 0.0}.get(reason, grace_s)
    finally:
        # INVARIANT I15: nothing that a job started outlives it, or its launcher.
        ended = ending.run(linger_s=linger_s, grace_s=patience_s)
        outlived = ended if reason == "ended" or ended.remaining else Ended()
        _write(report, ended=reaper.status, outlived=msgspec.to_builtins(outlived))


def _wait(reaper: _Reaper, control: int, launcher: int) -> str:
    """Wait until the job has ended, or the launcher has asked for that, or the launcher has ended: `alone`."""
    wake, waken = os.pipe()
    os.set_blocking(waken, False)
    signal.signal(signal.SIGCHLD, _do_nothing)
    signal.set_wakeup_fd(waken, warn_on_full_buffer=False)
    poll = select.poll()
    for descriptor in (wake, control, launcher):
        poll.register(descriptor, select.POLLIN)
    while True:
        reaper.reap()
        if reaper.status is not None:
            return "ended"
        ready = {descriptor for descriptor, _ in poll.poll()}
        if launcher in ready:
            return "alone"
        if control in ready:
            return "killed" if os.read(control, 1) == _KILL else "asked"
        os.read(wake, 1 << 12)


class _Reaper:
    """Waits for children, and keeps the status of one of them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.status: int | None = None

    def reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._pid:
                    self.status = os.waitstatus_to_exitcode(status)


def _close_all_but(descriptors: tuple[int, ...]) -> None:
    """Close what the launcher had open: its locks, its log, and the streams that others wait for."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    first = 3
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _do_nothing(number: int, frame: object) -> None:
    """Stay: a handler, unlike an ignored signal, is not inherited by programs."""


def _parse(line: bytes) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return message


def _write(report: int, **message: Any) -> None:
    # The launcher may have ended.
    with suppress(OSError):
        os.write(report, json.dumps(message).encode() + b"\n")
