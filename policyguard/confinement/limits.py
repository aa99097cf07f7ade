"""Refuses a confined job to change the resource limits of other processes, which Landlock lets it do.

With prlimit(2), a process lowers the limits of any other of its account: a limit of CPU time ends the launcher, one of
open files blinds what supervises the job. A filter of system calls (seccomp) refuses that call for every process but
the caller itself. See seccomp(2) and bpf(4); numbers from the kernel's system call tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from policyguard.errors import EvidenceError

_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _FROM, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _PID, _NEW_LOW, _NEW_HIGH = 0, 4, 16, 32, 36
"""Offsets in struct seccomp_data, whose numbers have the byte order of the machine: little-endian on both machines."""

_FOREIGN_NUMBERS = 0x40000000
"""System calls of the x32 interface begin here; no program of the machine's own interface makes them."""

_MACHINES = {"x86_64": (0xC000003E, 302), "aarch64": (0xC00000B7, 261)}
"""Machine to its AUDIT_ARCH and the number of prlimit64."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_libc = ctypes.CDLL(None, use_errno=True)


def keep_limits_of_others() -> None:
    """Refuse this thread, and all that it starts, to set the limits of other processes, for ever.

    Raises:
        EvidenceError: the kernel has no filters of system calls, or not for this machine.
    """
    if platform.machine() not in _MACHINES:
        raise EvidenceError(f"the job cannot be confined: no filter of system calls is known for {platform.machine()}")
    program = _instructions(*_MACHINES[platform.machine()])
    buffer = ctypes.create_string_buffer(program)
    filter_ = _Program(len(program) // 8, ctypes.addressof(buffer))
    if _libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_), 0, 0) < 0:
        reason = os.strerror(ctypes.get_errno()).lower()
        raise EvidenceError(f"the job cannot be confined: the kernel refuses a filter of system calls: {reason}")


def _instructions(architecture: int, prlimit: int) -> bytes:
    """Build the filter: another interface is refused, prlimit64 too if it sets limits and names a process."""
    steps = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 9, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_FROM, 7, 0, _FOREIGN_NUMBERS),
        (_EQUAL, 0, 7, prlimit),
        (_LOAD, 0, 0, _PID),
        (_EQUAL, 5, 0, 0),
        (_LOAD, 0, 0, _NEW_LOW),
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, _NEW_HIGH),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("<HBBI", *step) for step in steps)
