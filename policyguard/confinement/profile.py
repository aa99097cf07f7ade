"""The permissions of a confined job as a value: paths with rights.

A profile is recorded in the decision with placeholders, such as `{tree}/train.py`, and with the folders that they name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from policyguard.fs.ownership import is_below
from policyguard.values import FrozenMap

READ, WRITE, EXECUTE = "r", "w", "x"

NEWEST_ABI = 6
"""The newest Landlock ABI that adds something a profile asks for; 7 adds what the kernel writes to its audit log."""

SYSTEM_CODE = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr")
"""Folders of the system's programs and libraries, to which only administrators write."""

INSTALLED_CODE = (*SYSTEM_CODE, "/opt", "/nix/store")
"""With the folders of programs that administrators add. A confined job gets them from the configuration only."""

SYSTEM_PREFIXES = ("/usr", "/usr/local")
"""Where the interpreters of the system are installed; neither is an environment of a job's own."""

SYSTEM_PLACES = (*SYSTEM_CODE, "/etc", "/proc", "/sys", "/run", "/boot")
"""Where a text names a place and no checkpoint. Without /opt and /dev/shm, where people keep weights."""

SYSTEM: Mapping[str, str] = {
    **dict.fromkeys(SYSTEM_CODE, "rx"),
    **dict.fromkeys(("/etc", "/proc", "/sys"), "r"),
    **dict.fromkeys(("/run/systemd/resolve", "/run/resolvconf", "/run/nscd"), "r"),
    **dict.fromkeys(("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"), "rw"),
    **dict.fromkeys(("/dev/ptmx", "/dev/pts", "/dev/shm", "/dev/fd"), "rw"),
    **dict.fromkeys(("/dev/dri", "/dev/kfd", "/dev/infiniband", "/dev/nvidia-caps"), "rw"),
}
"""What every training job needs of the system: programs and libraries, settings, shared memory, GPUs and InfiniBand.
Device files named /dev/nvidia* are added where they exist. /tmp is not among it: a job gets a private folder."""

NOT_BEFORE: Mapping[int, str] = {
    3: "truncating files (kernel 6.2)",
    5: "commands to device files (kernel 6.10)",
    6: "signals and abstract sockets to processes outside the job (kernel 6.12)",
}
"""What is not enforced by a kernel with an older ABI than the key."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The paths that a confined job may use.

    `paths` gives each path and all below it rights out of "r" (read and list), "w" (create, change, remove) and "x"
    (execute as a program).
    """

    abi: int
    paths: Mapping[str, str]

    def record(self, roots: Mapping[str, str]) -> FrozenMap:
        """Write the profile as it is recorded in a decision, without the system's own paths.

        Args:
            roots: placeholders such as `{tree}` and their folders.
        """
        named = {placeholder(path, roots): rights for path, rights in self.paths.items() if not is_system(path)}
        return FrozenMap(
            abi=self.abi,
            paths=FrozenMap(dict(sorted(named.items()))),
            roots=FrozenMap(dict(sorted(roots.items()))),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any], private: Mapping[str, str]) -> Profile:
        """Build the profile that a record describes, with the system paths of this machine.

        Args:
            record: as `record` writes it.
            private: the folders of placeholders that have none in the record.
        """
        roots = {**record["roots"], **private}
        own = {located(path, roots): rights for path, rights in record["paths"].items()}
        return cls(abi=record["abi"], paths=merge_rights(system_paths(), own))


def missing_before(abi: int) -> tuple[str, ...]:
    """List what a kernel with this ABI does not enforce and a newer one does."""
    return tuple(what for since, what in NOT_BEFORE.items() if abi < since)


def is_system(path: str) -> bool:
    """Return True for a path that every confined job may use."""
    return path in SYSTEM or path.startswith("/dev/nvidia")


def placeholder(path: str, roots: Mapping[str, str]) -> str:
    """Name a path by the longest root above it: `{tree}/train.py`; a path below none of them stays as it is."""
    for name, folder in sorted(roots.items(), key=lambda item: -len(item[1])):
        if folder != "/" and is_below(path, folder):
            return name + path[len(folder) :]
    return path


def located(path: str, roots: Mapping[str, str]) -> str:
    """Find the path that `placeholder` named."""
    name, slash, rest = path.partition("/")
    return roots[name] + slash + rest if name in roots else path


def system_paths() -> dict[str, str]:
    """List the system's own paths that exist on this machine, with rights."""
    devices = [f"/dev/{name}" for name in sorted(os.listdir("/dev")) if name.startswith("nvidia")]
    return {path: rights for path, rights in SYSTEM.items() if os.path.exists(path)} | dict.fromkeys(devices, "rw")


def merge_rights(*grants: Mapping[str, str]) -> dict[str, str]:
    """Unite the rights that several maps give to one path, in the order r, w, x."""
    merged: dict[str, set[str]] = {}
    for grant in grants:
        for path, rights in grant.items():
            merged.setdefault(path, set()).update(rights)
    return {path: "".join(right for right in "rwx" if right in rights) for path, rights in merged.items()}
