"""Running processes, as the kernel reports them: descendants, executable files, tracer, variables.

Linux only, from /proc; see proc(5). A process that ends meanwhile is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec

from policyguard.evidence.injection import injection_variables

MAX_FILE_BYTES = 4 << 20
"""The maximum size read of a process's environment or mappings."""

_MAPPING = re.compile(
    rb"([0-9a-f]+)-[0-9a-f]+ (...)[ps] ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) +(/[^\n]*)", re.ASCII
)
_DELETED = b" (deleted)"


class Mapped(msgspec.Struct, frozen=True):
    """A file that is mapped executable into a process: its path there, and whether it was deleted."""

    path: bytes
    device: bytes
    inode: int
    deleted: bool
    is_elf: bool = True
    """False if the first bytes were read and are not a program: code of just-in-time compilers."""

    @property
    def is_memory(self) -> bool:
        """True for a file that exists only in memory (memfd_create(2))."""
        return self.path.startswith(b"/memfd:")


class Process(msgspec.Struct, frozen=True):
    """One process: `executable` is its program, `tracer` the pid that traces it, 0 if none.

    `argv` and `directory` are empty where they cannot be read; a process can change its `argv`.
    """

    pid: int
    uid: int
    executable: bytes
    tracer: int
    mapped: tuple[Mapped, ...]
    injected: Mapping[str, str]
    argv: tuple[str, ...] = ()
    directory: str = ""


def is_supported() -> bool:
    """Return True if this system has `/proc`."""
    return os.path.exists("/proc/self/maps")


class Relation(NamedTuple):
    """Where a process belongs: its parent, its group, and when it started, in ticks since the machine did."""

    parent: int
    group: int
    started: int


def relations() -> dict[int, Relation]:
    """Map the pid of each running process to its relation."""
    table = {}
    for pid in _all_processes():
        fields = stat_fields(_read(pid, "stat"))
        # A process whose first thread has ended is a zombie to the eye, and goes on in its other threads.
        if len(fields) < 20 or (fields[0] in (b"Z", b"X") and int(fields[17]) < 2):
            continue
        table[pid] = Relation(int(fields[1]), int(fields[2]), int(fields[19]))
    return table


def stat_fields(line: bytes) -> list[bytes]:
    """Split the line of `/proc/PID/stat`, from the third field on: the process's state, its parent, its group."""
    # The second field is the program's name in brackets, and may hold anything.
    return line.rpartition(b")")[2].split()


def descendants(roots: Collection[int], table: Mapping[int, Relation]) -> set[int]:
    """Return the pids below `roots`, wherever their groups and sessions are; not the roots themselves."""
    family = set(roots)
    grew = True
    while grew:
        below = {pid for pid, relation in table.items() if relation.parent in family} - family
        family |= below
        grew = bool(below)
    return family - set(roots)


def family_of(root: int, mark: bytes, above: int = 0) -> list[int]:
    """List the pids of a job: `root`, its descendants, its process group, and processes that carry `mark`.

    Args:
        root: the first process of the job.
        mark: text that was put into the job's environment: it finds what left family and group (a daemon).
        above: a process that adopts what the job leaves behind; everything below it belongs to the job.
    """
    table = relations()
    family = {pid for pid, relation in table.items() if pid == root or relation.group == root} - {above, os.getpid()}
    family |= descendants(family, table)
    if above:
        family |= descendants((above,), table)
    if mark:
        ours = {os.getpid(), above}
        family |= {pid for pid in table.keys() - family - ours if mark in _read(pid, "environ")}
    return sorted(family)


def process(pid: int) -> Process | None:
    """Read one process from the kernel; None if it has ended.

    Raises:
        PermissionError: it exists and may not be read: another user's, or protected.
    """
    try:
        status = dict(line.split(b":", 1) for line in read_of(pid, "status").splitlines() if b":" in line)
        if status.get(b"State", b"?").split()[0] in (b"Z", b"X"):
            return None
        maps = read_of(pid, "maps")
        executable = os.readlink(f"/proc/{pid}/exe".encode())
    except PermissionError:
        raise
    except OSError:
        # The process has ended or is ending.
        return None
    environment = environment_of(pid)
    return Process(
        pid,
        int(status.get(b"Uid", b"0 0").split()[1]),
        executable,
        int(status.get(b"TracerPid", b"0")),
        tuple(_mapped(pid, maps)),
        injection_variables(environment),
        tuple(os.fsdecode(_read(pid, "cmdline")).split("\0")[:-1]),
        _directory(pid),
    )


def _directory(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def describe(pid: int) -> str:
    """Describe a process for people: `pid 17, /usr/bin/gdb, uid 1004`."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        executable = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return f"pid {pid}"
    return f"pid {pid}, {executable}, uid {uid}"


def _mapped(pid: int, maps: bytes) -> Iterator[Mapped]:
    """Yield each file with an executable mapping, once."""
    seen = set()
    starts: dict[tuple[bytes, bytes], int] = {}
    for start, rights, offset, device, inode, path in _MAPPING.findall(maps):
        if int(offset, 16) == 0:
            starts.setdefault((device, inode), int(start, 16))
        if b"x" not in rights or (device, inode) in seen:
            continue
        seen.add((device, inode))
        deleted = path.endswith(_DELETED)
        nameless = deleted or path.startswith(b"/memfd:")
        first = starts.get((device, inode))
        yield Mapped(path.removesuffix(_DELETED), device, int(inode), deleted, not nameless or _is_elf(pid, first))


def _is_elf(pid: int, start: int | None) -> bool:
    """Return True if an ELF file is mapped there, or if it cannot be read."""
    if start is None:
        # Only a part from its middle is mapped: loaders map the beginning, where the headers are.
        return False
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), 4, start) == b"\x7fELF"
    except OSError:
        return True


def environment_of(pid: int) -> dict[str, str]:
    """Read the variables of a process, as they were when it started; none if they cannot be read."""
    return variables_in(_read(pid, "environ"))


def variables_in(block: bytes) -> dict[str, str]:
    """Split what the kernel shows of a process's variables."""
    return dict(os.fsdecode(entry).split("=", 1) for entry in block.split(b"\0") if b"=" in entry)


def command_of(pid: int) -> tuple[str, ...]:
    """Read the command line of a process; empty if it has ended."""
    return tuple(os.fsdecode(argument) for argument in _read(pid, "cmdline").split(b"\0")[:-1])


def _all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return read_of(pid, name)
    except OSError:
        return b""


def read_of(pid: int, name: str) -> bytes:
    """Read a file that the kernel shows of a process, up to `MAX_FILE_BYTES`.

    Raises:
        OSError: the process has ended, or may not be read.
    """
    parts = []
    size = 0
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while size < MAX_FILE_BYTES and (part := os.read(fd, 1 << 16)):
            parts.append(part)
            size += len(part)
    finally:
        os.close(fd)
    return b"".join(parts)
