"""On which kind of file system a path lies: the locks that embedded SQLite needs hold on local ones only."""

from __future__ import annotations

import os

_SHARED = """\
9p acfs afs beegfs ceph cifs coda cvmfs fhgfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs
panfs pvfs2 smb2 smb3 smbfs virtiofs vboxsf
"""
SHARED = frozenset(_SHARED.split())
"""File systems of other machines, whose locks or shared memory SQLite cannot rely on."""

MOUNTS = "/proc/self/mountinfo"


def shared_file_system(path: str | os.PathLike[str], mounts: str = MOUNTS) -> str | None:
    """Name the file system of this existing path if it is a network or FUSE one; None for a local or unknown one.

    Args:
        path: an existing file or folder.
        mounts: the kernel's list of mounts; a machine without one, such as macOS, is not judged.
    """
    kind = file_system(path, mounts)
    return kind if kind is not None and _is_shared(kind) else None


def file_system(path: str | os.PathLike[str], mounts: str = MOUNTS) -> str | None:
    """Name the file system of this existing path, such as `ext4`; None if it is not known.

    Args:
        path: an existing file or folder.
        mounts: the kernel's list of mounts.
    """
    try:
        device = os.stat(path).st_dev
        with open(mounts, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}".encode()
    for line in reversed(lines):
        fields = line.split(b" ")
        if fields[2:3] == [wanted]:
            # After ` - ` come the type, the source and the options of the super block.
            return line.partition(b" - ")[2].split(b" ")[0].decode("ascii", "replace")
    return None


def _is_shared(kind: str) -> bool:
    # `fuseblk` is FUSE over a local disk, but the locks are those of a user's process all the same.
    return kind in SHARED or kind.startswith("fuse")
