"""Runs one command transparently: forwards signals to it, and returns its exit status.

With a terminal, the child stays in our process group, so that it can read from the terminal, which sends it Ctrl-C,
Ctrl-\\ and Ctrl-Z. Without a terminal, it gets its own group, and every signal reaches it through us, once.

Signals are forwarded only from the main thread, where Python can catch them. On Linux the command has a guardian, which
ends everything that the command leaves, and the command itself if this process is killed (`guardian.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType, TracebackType
from typing import Any, Protocol

from msgspec import structs

from policyguard.errors import EvidenceError
from policyguard.hooks.launcher.guardian import ENDING, GRACE_S, Begin, JobEnd, start_guarded
from policyguard.hooks.launcher.process_tree import is_available
from policyguard.text import printable_name

FORWARDED = (*ENDING, signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP)
KILLING = frozenset({signal.SIGKILL, *ENDING})
"""Signals that other processes send; programs cause other signals themselves, such as SIGSEGV."""

_POLL_S = 0.05
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH})


Alongside = Callable[[Callable[[], None]], AbstractContextManager[object]]
"""Runs while the command runs; its argument ends the command."""

Start = Callable[..., "subprocess.Popen[bytes]"]
"""Starts a program, with the arguments of `subprocess.Popen`."""


class Running(Protocol):
    """A job that was started: under a guardian, or without one where the system has none."""

    pid: int
    guardian_pid: int
    """The parent of what the job leaves, 0 if there is none."""

    def send_signal(self, number: int) -> None:
        """Send a signal to the first process."""

    def end(self, *, at_once: bool = False) -> None:
        """Ask the job to end, and kill it after the grace period, or at once."""

    def wait(self) -> JobEnd:
        """Wait until it has ended."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process by an exception, so that blocks around it clean up."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def supervise(
    argv: Sequence[str],
    executable: str,
    directory: str,
    environment: Mapping[str, str],
    *,
    start: Start | None = None,
    alongside: Alongside | None = None,
    on_start: Callable[[Running], None] | None = None,
    on_end: Callable[[JobEnd], None] | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Run a command and return its exit status as a shell would: 128 + n if signal n ended it.

    Args:
        argv, executable, directory, environment: the command, its program, folder and variables.
        start, alongside: starts it, in place of `Popen`; entered while it runs, and may end it.
        on_start, on_end: get the job, and how it ended.
        grace_s: time between SIGTERM and SIGKILL.

    Raises:
        EvidenceError: the program cannot be started; nothing ran.
    """
    has_terminal = os.isatty(0)
    begin = _beginning(start, argv, executable, directory, environment, has_terminal=has_terminal)
    with _Forwarder(has_terminal) as forwarder:
        job: Running = start_guarded(begin, grace_s=grace_s) if is_available() else _Alone(begin, has_terminal, grace_s)
        forwarder.adopt(job)
        ended: list[int] = []

        def end() -> None:
            ended.append(signal.SIGTERM)
            job.end()

        outcome = _waited(job, nullcontext() if alongside is None else alongside(end), on_start)
    number = outcome.signal
    is_expected = ended or number in forwarder.sent or (has_terminal and number in _FROM_TERMINAL)
    if on_end is not None:
        on_end(structs.replace(outcome, unexpected_signal=number if number in KILLING and not is_expected else 0))
    return outcome.exit_status


def _waited(
    job: Running, alongside: AbstractContextManager[object], on_start: Callable[[Running], None] | None
) -> JobEnd:
    try:
        if on_start is not None:
            on_start(job)
        with alongside:
            return job.wait()
    except BaseException:
        # Whatever goes wrong here, nothing goes on without somebody who waits for it.
        job.end()
        job.wait()
        raise


def _beginning(
    start: Start | None,
    argv: Sequence[str],
    executable: str,
    directory: str,
    environment: Mapping[str, str],
    *,
    has_terminal: bool,
) -> Begin:
    # With a terminal, the job is in our own group, in the foreground.
    group = os.getpgrp() if has_terminal else 0

    def begin() -> subprocess.Popen[bytes]:
        try:
            return (start or subprocess.Popen)(
                list(argv), executable=executable, cwd=directory, env=dict(environment), process_group=group
            )
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise EvidenceError(f"`{printable_name(executable)}`: cannot be started: {reason.lower()}") from problem

    return begin


class _Alone:
    """A job without a guardian: what leaves its process group is not found."""

    def __init__(self, begin: Begin, has_terminal: bool, grace_s: float) -> None:
        self._process = begin()
        self._has_group, self._grace_s = not has_terminal, grace_s
        self.pid, self.guardian_pid = self._process.pid, 0

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> JobEnd:
        return JobEnd(self._process.wait())

    def end(self, *, at_once: bool = False) -> None:
        send = (lambda number: os.killpg(self.pid, number)) if self._has_group else self._process.send_signal
        deadline = time.monotonic() + (0 if at_once else self._grace_s)
        try:
            send(signal.SIGTERM)
            while time.monotonic() < deadline:
                time.sleep(_POLL_S)
                if self._has_group:
                    send(0)
                elif self._process.poll() is not None:
                    return
            send(signal.SIGKILL)
        except ProcessLookupError:
            return


class _Forwarder:
    """Catches signals while the child runs; those that arrive before it exists are sent once it does."""

    def __init__(self, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._job: Running | None = None
        self._early: list[int] = []
        self.sent: set[int] = set()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Forwarder:
        if threading.current_thread() is threading.main_thread():
            for number in FORWARDED:
                if self._is_ours(number):
                    self._previous[number] = signal.signal(number, self._forward)
        return self

    def _is_ours(self, number: signal.Signals) -> bool:
        # What is ignored, as after nohup, stays so, and the child inherits it. The terminal stops and continues the
        # whole group, us included, without our help.
        if signal.getsignal(number) is signal.SIG_IGN:
            return False
        return not (self._has_terminal and number in (signal.SIGTSTP, signal.SIGCONT))

    def adopt(self, job: Running) -> None:
        self._job = job
        early, self._early = self._early, []
        for number in early:
            self._forward(number, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)

    def _forward(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._has_terminal and number in _FROM_TERMINAL:
            return
        if self._job is None:
            self._early.append(number)
            return
        self.sent.add(number)
        self._job.send_signal(number)
        if number == signal.SIGTSTP:
            # The shell or scheduler that started us must see the stop. SIGCONT wakes us, then the child.
            os.kill(os.getpid(), signal.SIGSTOP)
