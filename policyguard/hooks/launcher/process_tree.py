"""Ends the processes below this one, whatever they did to leave: other sessions, other parents, other environments.

Linux only. A subreaper (PR_SET_CHILD_SUBREAPER) becomes the parent of every descendant whose own parent has ended; no
process can refuse that. So a subreaper without children has no descendants, and wait(2) says so without a race.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from policyguard.evidence.processes import (
    Relation,
    descendants,
    describe,
    is_supported,
    read_of,
    relations,
    stat_fields,
)

LINGER_S = 2.0
"""Time for helpers that end by themselves when their job has ended, such as Python's resource tracker."""

KILL_S = 20.0
"""Time for SIGKILL to end everything. Processes that the kernel cannot end, in a call to a broken disk, remain."""

MAX_GRACEFUL = 1_000
"""More processes than this get no time to end by themselves: they would only start more."""

MAX_DESCRIBED = 8

_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05
_SWEEPS = 50


class Ended(msgspec.Struct, frozen=True):
    """What was ended: how many processes, what the first of them were, and how many would not end."""

    count: int = 0
    described: tuple[str, ...] = ()
    remaining: int = 0


def is_available() -> bool:
    """Return True if this system can find and end every descendant of a process."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open") or not is_supported() or _prctl is None:
        return False
    try:
        # Older kernels, and containers with a narrow filter of system calls, refuse it.
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def set_subreaper(*, on: bool) -> None:
    """Let this process adopt its descendants whose parents end, or stop doing so.

    Raises:
        OSError: the kernel refuses.
    """
    if _prctl is None or _prctl(_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))


def has_children() -> bool:
    """Return True if this process has a child, ended or not."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def signal_process(pid: int, started: int, number: int) -> bool:
    """Send a signal to the process with this pid that started then; return False if it has ended.

    Args:
        pid: of the process.
        started: of its relation; another process that has got the pid since gets no signal.
        number: of the signal.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # The descriptor stays with one process; its pid is looked up again to be sure which.
        if started_at(pid) != started:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def started_at(pid: int) -> int:
    """Return when a process started, in ticks since the machine did; -1 if it has ended."""
    try:
        return int(stat_fields(read_of(pid, "stat"))[19])
    except (OSError, IndexError):
        return -1


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants, as far as they can be found from it; nothing for a pid of 0."""
    if pid <= 0:
        return
    for _ in range(_SWEEPS):
        table = relations()
        below = descendants((pid,), table)
        for member in (*below, pid):
            if member in table:
                signal_process(member, table[member].started, signal.SIGSTOP if below else signal.SIGKILL)
        if not below:
            return
        for member in below:
            signal_process(member, table[member].started, signal.SIGKILL)


class Ending:
    """Ends every descendant of this process, which must be a subreaper.

    Args:
        reap: waits for every child that has ended.
    """

    def __init__(self, reap: Callable[[], None]) -> None:
        self._reap = reap
        self._seen: dict[tuple[int, int], str] = {}

    def run(self, *, linger_s: float, grace_s: float, kill_s: float = KILL_S) -> Ended:
        """Wait for what ends by itself, then send SIGTERM, then SIGKILL until nothing is left.

        Args:
            linger_s: time before SIGTERM; what ends in it is not reported.
            grace_s: time between SIGTERM and SIGKILL.
            kill_s: after this time, what SIGKILL did not end remains.
        """
        phases = ((linger_s, lambda: True), (grace_s, self._ask), (kill_s, self._kill))
        has_ended = any(self._ends_within(seconds, act) for seconds, act in phases)
        described = tuple(text for text in self._seen.values() if text)
        return Ended(len(self._seen), described, 0 if has_ended else len(self._below()))

    def _ends_within(self, seconds: float, act: Callable[[], bool]) -> bool:
        """Act repeatedly until no child is left, which returns True, or time is over."""
        deadline = time.monotonic() + seconds
        while True:
            self._reap()
            if not has_children():
                return True
            if time.monotonic() >= deadline or not act():
                return False
            time.sleep(_POLL_S)

    def _below(self) -> dict[int, Relation]:
        table = relations()
        return {pid: table[pid] for pid in descendants((os.getpid(),), table)}

    def _ask(self) -> bool:
        """Send SIGTERM to each process once; return False if there are too many to ask."""
        for pid, relation in self._below().items():
            if self._note(pid, relation):
                # A stopped process ends only once it goes on.
                for number in (signal.SIGTERM, signal.SIGCONT):
                    signal_process(pid, relation.started, number)
        return len(self._seen) <= MAX_GRACEFUL

    def _kill(self) -> bool:
        """Stop everything, so that nothing new is started, then kill it, and what appeared meanwhile."""
        stopped: set[tuple[int, int]] = set()
        for _ in range(_SWEEPS):
            below = {(pid, relation.started) for pid, relation in self._below().items()}
            if below <= stopped:
                break
            for pid, started in below - stopped:
                signal_process(pid, started, signal.SIGSTOP)
            stopped |= below
        for pid, relation in self._below().items():
            self._note(pid, relation)
            signal_process(pid, relation.started, signal.SIGKILL)
        # A process that starts another and ends is too fast for a walk, but each of these becomes our own child.
        for _ in range(_SWEEPS):
            self._reap()
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return True

    def _note(self, pid: int, relation: Relation) -> bool:
        key = pid, relation.started
        if key in self._seen:
            return False
        self._seen[key] = describe(pid) if len(self._seen) < MAX_DESCRIBED else ""
        return True


def _children() -> list[int]:
    """List this process's children that were not reaped yet; their pids are not given to other processes."""
    pids: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/children", "rb") as file:
            pids.extend(map(int, file.read().split()))
    return pids


def _find_prctl() -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    return function


_prctl = _find_prctl()
