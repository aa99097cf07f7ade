"""The three system calls of Landlock, by ctypes: create a set of rules, add to it, restrict this process for ever.

The numbers are those of the kernel's include/uapi/linux/landlock.h; each version of the interface (ABI) adds to them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from policyguard.confinement.profile import EXECUTE, READ, WRITE, Profile, is_system
from policyguard.errors import EvidenceError
from policyguard.text import printable_name

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _OPENAT2 = 444, 445, 446, 437
"""The same on every architecture that Linux has added since 5.1, all of `_MACHINES` among them."""

_MACHINES = frozenset({"x86_64", "aarch64", "riscv64", "ppc64le", "s390x"})
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_SET_NO_NEW_PRIVS = 38
_AT_FDCWD = -100
_RESOLVE_NO_SYMLINKS = 4

_FS = {
    "execute": 1 << 0,
    "write_file": 1 << 1,
    "read_file": 1 << 2,
    "read_dir": 1 << 3,
    "remove_dir": 1 << 4,
    "remove_file": 1 << 5,
    "make_char": 1 << 6,
    "make_dir": 1 << 7,
    "make_reg": 1 << 8,
    "make_sock": 1 << 9,
    "make_fifo": 1 << 10,
    "make_block": 1 << 11,
    "make_sym": 1 << 12,
    "refer": 1 << 13,
    "truncate": 1 << 14,
    "ioctl_dev": 1 << 15,
}
_ABI_OF = {"refer": 2, "truncate": 3, "ioctl_dev": 5}
_OF_FILES = _FS["execute"] | _FS["write_file"] | _FS["read_file"] | _FS["truncate"] | _FS["ioctl_dev"]

_GRANTS = {
    READ: ("read_file", "read_dir"),
    EXECUTE: ("execute",),
    WRITE: (
        "write_file",
        "remove_dir",
        "remove_file",
        "make_dir",
        "make_reg",
        "make_sock",
        "make_fifo",
        "make_sym",
        "refer",
        "truncate",
        "ioctl_dev",
    ),
}
"""What each right of a profile means. Nobody may make device files."""

_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def abi_version() -> tuple[int, str]:
    """Ask the kernel for the version of its Landlock interface; 0 and the reason if there is none."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        return 0, f"{platform.system()} on {platform.machine()} has no Landlock that is known here"
    version: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    if version > 0:
        return version, ""
    reasons = {
        errno.ENOSYS: "the kernel is older than 5.13 or built without Landlock, or a container's filter refuses it",
        errno.EOPNOTSUPP: "Landlock is not among the kernel's active security modules (boot option `lsm=landlock,...`)",
        errno.EPERM: "a filter of system calls (seccomp), such as a container's, refuses it",
    }
    problem = ctypes.get_errno()
    return 0, reasons.get(problem, os.strerror(problem).lower())


@contextmanager
def ruleset(profile: Profile) -> Iterator[int]:
    """Build the rules of a profile and yield their file descriptor; a process that is forked here can take them on.

    Raises:
        EvidenceError: the kernel has no Landlock of the profile's version, or a path cannot be opened.
    """
    version, reason = abi_version()
    if version < profile.abi or profile.abi < 1:
        raise EvidenceError(
            f"the job cannot be confined, expected Landlock ABI {max(profile.abi, 1)}: {reason or f'found {version}'}"
        )
    handled = sum(bit for name, bit in _FS.items() if _ABI_OF.get(name, 1) <= profile.abi)
    attributes = _RulesetAttributes(
        handled,
        0,
        _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if profile.abi >= 6 else 0,
    )
    size = 8 if profile.abi < 4 else 16 if profile.abi < 6 else 24
    descriptor = _checked(
        _libc.syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    )
    try:
        for path, rights in profile.paths.items():
            _allow_path(descriptor, path, rights, handled)
        yield descriptor
    finally:
        os.close(descriptor)


def _allow_path(descriptor: int, path: str, rights: str, handled: int) -> None:
    try:
        opened = _opened(path)
    except OSError as problem:
        raise EvidenceError(
            f"`{printable_name(path)}`: cannot be opened for the job: {(problem.strerror or '').lower()}",
            help="name only files and folders that exist, by paths whose folders nobody replaces by links",
        ) from problem
    try:
        allowed = handled & sum(_FS[name] for right in rights for name in _GRANTS[right])
        if not stat.S_ISDIR(os.fstat(opened).st_mode):
            allowed &= _OF_FILES
        rule = _PathBeneath(allowed, opened)
        _checked(_libc.syscall(_ADD_RULE, descriptor, _PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0)))
    finally:
        os.close(opened)


def _opened(path: str) -> int:
    """Open a path for a rule. Only the system's own may lead over links: the others were measured without any."""
    if is_system(path):
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS)
    encoded = ctypes.c_char_p(os.fsencode(path))
    opened: int = _libc.syscall(_OPENAT2, _AT_FDCWD, encoded, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
    if opened < 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem), path)
    return opened


def restrict_self(descriptor: int) -> None:
    """Restrict this thread and all that it starts, for ever.

    Raises:
        EvidenceError: the kernel refuses.
    """
    _checked(_libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(descriptor), ctypes.c_uint32(0)))


def _checked(result: int) -> int:
    if result < 0:
        problem = ctypes.get_errno()
        raise EvidenceError(f"the job cannot be confined: the kernel refuses Landlock: {os.strerror(problem).lower()}")
    return result
