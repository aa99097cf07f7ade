"""Runs one command transparently: forwards signals to it, and returns its exit status.

With a terminal, the child stays in our process group, so that it can read from the terminal, which sends it Ctrl-C,
Ctrl-\\ and Ctrl-Z. Without a terminal, it gets its own group, and every signal reaches it through us, once.

Signals are forwarded only from the main thread, where Python can catch them. If this process is killed with SIGKILL,
the child continues; schedulers send SIGKILL to the whole job.
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
from typing import Any

from policyguard.errors import EvidenceError
from policyguard.text import printable_name

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGWINCH,
    signal.SIGCONT,
    signal.SIGTSTP,
)
KILLING = frozenset(
    {
        signal.SIGKILL,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGALRM,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }
)
"""Signals that other processes send; programs cause other signals themselves, such as SIGSEGV."""

_POLL_S = 0.05
_FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH})


Alongside = Callable[[Callable[[], None]], AbstractContextManager[object]]
"""Runs while the command runs; its argument ends the command."""

Start = Callable[..., "subprocess.Popen[bytes]"]
"""Starts a program, with the arguments of `subprocess.Popen`."""

GRACE_S = 10.0
"""Time between SIGTERM and SIGKILL, in which a job may write a last checkpoint."""


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
    on_start: Callable[[int], None] | None = None,
    on_kill: Callable[[int], None] | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Run a command and return its exit status as a shell would: 128 + n if signal n ended it.

    Args:
        argv, executable, directory, environment: the command, its program, folder and variables.
        start, alongside: starts it, in place of `Popen`; entered while it runs, and may end it.
        on_start, on_kill: get its process id, and the signal that ended it unless that came through us or `alongside`.

    Raises:
        EvidenceError: the program cannot be started; nothing ran.
    """
    has_terminal = os.isatty(0)
    with _Forwarder(has_terminal) as forwarder:
        process = _started(start, argv, executable, directory, environment, None if has_terminal else 0)
        forwarder.adopt(process)
        if on_start is not None:
            on_start(process.pid)
        ended: list[int] = []

        def end() -> None:
            ended.append(signal.SIGTERM)
            _end(process, not has_terminal, grace_s)

        with alongside(end) if alongside is not None else nullcontext():
            status = process.wait()
    is_expected = ended or -status in forwarder.sent or (has_terminal and -status in _FROM_TERMINAL)
    if on_kill is not None and -status in KILLING and not is_expected:
        on_kill(-status)
    return status if status >= 0 else 128 - status


def _started(
    start: Start | None,
    argv: Sequence[str],
    executable: str,
    directory: str,
    environment: Mapping[str, str],
    group: int | None,
) -> subprocess.Popen[bytes]:
    try:
        return (start or subprocess.Popen)(
            list(argv), executable=executable, cwd=directory, env=dict(environment), process_group=group
        )
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise EvidenceError(f"`{printable_name(executable)}`: cannot be started: {reason.lower()}") from problem


def _end(process: subprocess.Popen[bytes], has_group: bool, grace_s: float) -> None:
    """Ask the command or its process group to end, and kill it after the grace period."""
    send = (lambda number: os.killpg(process.pid, number)) if has_group else process.send_signal
    deadline = time.monotonic() + grace_s
    try:
        send(signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(_POLL_S)
            if has_group:
                send(0)
            elif process.poll() is not None:
                return
        send(signal.SIGKILL)
    except ProcessLookupError:
        return


class _Forwarder:
    """Catches signals while the child runs; those that arrive before it exists are sent once it does."""

    def __init__(self, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._process: subprocess.Popen[bytes] | None = None
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

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
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
        if self._process is None:
            self._early.append(number)
            return
        self.sent.add(number)
        self._process.send_signal(number)
        if number == signal.SIGTSTP:
            # The shell or scheduler that started us must see the stop. SIGCONT wakes us, then the child.
            os.kill(os.getpid(), signal.SIGSTOP)
