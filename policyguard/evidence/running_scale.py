"""The number of GPUs that the running processes of a job say or use, to compare with the number that was decided."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from policyguard.errors import ConfigurationError
from policyguard.evidence.processes import command_of, environment_of, stat_fields
from policyguard.evidence.scale import combined
from policyguard.fs.safe_open import read_start
from policyguard.program.counts import Count, Reader, UnreadableCount

_COMPUTING = re.compile(r"/dev/(?:nvidia-uvm|kfd|accel[0-9]+)\Z")
"""What a process opens to compute: CUDA, ROCm, other accelerators. Monitoring, as by NVML, opens only the devices."""

_DEVICE = re.compile(r"/dev/(nvidia[0-9]+|dri/renderD[0-9]+|accel[0-9]+)\Z")


def running_scale(pids: Iterable[int], folder: str = "/proc") -> tuple[int, str]:
    """Measure running processes: their variables, their command lines, and the GPUs that they have open.

    Args:
        pids: the processes of one job.
        folder: where the system shows processes.

    Returns:
        The largest number that any of them says, and what says it; 0 if nothing does.
    """
    best, opened = (0, ""), {pid: _open_files(f"{folder}/{pid}/fd") for pid in pids}
    for pid in opened:
        counts = _counts(pid)
        if counts:
            number, source = combined(counts)
            best = max(best, (number, f"{source} (pid {pid})"))
    number = _computing(opened, folder)
    return max(best, (number, f"{number} processes compute on GPUs"))


def _computing(opened: Mapping[int, set[str]], folder: str) -> int:
    """Count the ranks that compute, at most the devices that they have open.

    A process that computes may have every device of its node open, and a data loader has what the rank that forked it
    has: neither is a GPU more.
    """
    computing = {pid for pid, files in opened.items() if any(map(_COMPUTING.match, files))}
    devices = {file for pid in computing for file in opened[pid] if _DEVICE.match(file)}
    ranks = [pid for pid in computing if _parent(f"{folder}/{pid}/stat") not in computing]
    return min(len(ranks), len(devices))


def _parent(file: str) -> int:
    try:
        fields = stat_fields(read_start(file, 4_096))
    except ConfigurationError:
        return 0
    return int(fields[1]) if len(fields) > 1 else 0


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


def _open_files(folder: str) -> set[str]:
    try:
        return {os.readlink(entry.path) for entry in os.scandir(folder)}
    except OSError:
        # The process has ended, or is another account's.
        return set()
