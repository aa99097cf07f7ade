"""The number of GPUs that the running processes of a job say or use, to compare with the number that was decided."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from policyguard.evidence.processes import command_of, environment_of
from policyguard.evidence.scale import combined
from policyguard.program.counts import Count, Reader, UnreadableCount

_DEVICE = re.compile(r"/dev/(nvidia[0-9]+|dri/renderD[0-9]+|accel[0-9]+)\Z")


def running_scale(pids: Iterable[int], folder: str = "/proc") -> tuple[int, str]:
    """Measure running processes: their variables, their command lines, and the GPUs that they have open.

    Args:
        pids: the processes of one job.
        folder: where the system shows processes.

    Returns:
        The largest number that any of them says, and what says it; 0 if nothing does.
    """
    best, devices = (0, ""), set[str]()
    for pid in pids:
        devices |= _open_devices(f"{folder}/{pid}/fd")
        counts = _counts(pid)
        if counts:
            number, source = combined(counts)
            best = max(best, (number, f"{source} (pid {pid})"))
    return max(best, (len(devices), f"{len(devices)} GPUs are open"))


def _counts(pid: int) -> list[Count]:
    """Read what one process says; a number that cannot be read was not decided on, and is left out."""
    environment, argv = environment_of(pid), command_of(pid)
    reader = Reader(environment)
    counts: list[Count] = []
    for read in (lambda: reader.environment(environment), lambda: reader.read(argv)):
        try:
            counts += read()
        except UnreadableCount:
            continue
    return [count for count in counts if count.kind != "devices"] if argv else []


def _open_devices(folder: str) -> set[str]:
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(folder)]
    except OSError:
        # The process has ended, or is another account's.
        return set()
    return {link for link in links if _DEVICE.match(link)}
