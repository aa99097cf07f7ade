"""The file system of a path: the locks that SQLite needs are reliable only on local ones."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from policyguard.fs.ownership import is_below

_SHARED = """\
9p acfs afs beegfs ceph cifs coda cvmfs fhgfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs
panfs pvfs2 smb2 smb3 smbfs virtiofs vboxsf
"""
SHARED = frozenset(_SHARED.split())
"""Network and cluster file systems, whose locks or shared memory SQLite cannot rely on."""

MOUNTS = "/proc/self/mountinfo"


def shared_file_system(path: str | os.PathLike[str], mounts: str = MOUNTS) -> str | None:
    """Return the name of a path's file system if it is a network or FUSE one, else None.

    Args:
        path: an existing file or folder.
        mounts: the kernel's list of mounts; a machine without one, such as macOS, is not judged.
    """
    kind = file_system(path, mounts)
    return kind if kind is not None and _is_shared(kind) else None


def file_system(path: str | os.PathLike[str], mounts: str = MOUNTS) -> str | None:
    """Return the name of a path's file system, such as `ext4`; None if unknown.

    Args:
        path: an existing file or folder.
        mounts: the kernel's list of mounts.
    """
    table = _table(mounts)
    try:
        device = os.stat(path).st_dev
    except OSError:
        return None
    on_device = [line for number, line in table if number == device]
    if on_device:
        return _kind(on_device[-1])
    # Files of btrfs and of some overlays have a device of their own, which is in no mount: the path decides.
    real = os.fsencode(os.path.realpath(path))
    points = [(_point(line), line) for _, line in table]
    around = [mount for mount in points if is_below(real, mount[0])]
    # Of two mounts on one point the later one covers the other.
    return _kind(max(reversed(around), key=lambda mount: len(mount[0]))[1]) if around else None


def devices_of(kinds: Collection[str], mounts: str = MOUNTS) -> frozenset[int]:
    """List the devices of mounts with these file systems; `fuse` includes `fuse.sshfs`.

    Args:
        kinds: names of file systems.
        mounts: the kernel's list of mounts.
    """
    return frozenset(device for device, line in _table(mounts) if _kind(line).split(".")[0] in kinds)


def _table(mounts: str) -> list[tuple[int, bytes]]:
    """List the device and the line of each mount in the kernel's table (proc(5)); skip lines of an unknown form."""
    try:
        with open(mounts, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    table = []
    for line in lines:
        fields = line.split(b" ", 5)
        if len(fields) < 5:
            continue
        major, _, minor = fields[2].partition(b":")
        if major.isdigit() and minor.isdigit():
            table.append((os.makedev(int(major), int(minor)), line))
    return table


def _point(line: bytes) -> bytes:
    # Spaces, tabs, newlines and backslashes are written as octal numbers.
    return re.sub(rb"\\([0-3][0-7]{2})", lambda match: bytes([int(match[1], 8)]), line.split(b" ", 5)[4])


def _kind(line: bytes) -> str:
    # After ` - ` come the type, the source and the options of the super block.
    return line.partition(b" - ")[2].split(b" ")[0].decode("ascii", "replace")


def _is_shared(kind: str) -> bool:
    # `fuseblk` is FUSE over a local disk, but the locks are those of a user's process all the same.
    return kind in SHARED or kind.startswith("fuse")
