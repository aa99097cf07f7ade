"""The kernel's list of mounts is read in one place; a device that no mount has is found by its path."""

from __future__ import annotations

import os
from pathlib import Path

from policyguard.fs.mounts import devices_of, file_system, shared_file_system


def _table(folder: Path, *lines: str) -> str:
    table = folder / "mountinfo"
    table.write_text("".join(f"{line}\n" for line in lines))
    return str(table)


def _device(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_the_device_decides_before_the_path(tmp_path: Path) -> None:
    table = _table(
        tmp_path, f"1 0 {_device(tmp_path)} / / rw - xfs /dev/x rw", f"2 1 9:77 / {tmp_path} rw - nfs4 s:/ rw"
    )
    assert file_system(tmp_path, table) == "xfs"


def test_a_device_that_no_mount_has_is_found_by_its_path(tmp_path: Path) -> None:
    inner = tmp_path / "a b"
    inner.mkdir()
    escaped = str(inner).replace(" ", "\\040")
    table = _table(
        tmp_path,
        "1 0 9:75 / / rw - ext4 /dev/x rw",
        f"2 1 9:76 / {escaped} rw - btrfs /dev/y rw",
        f"3 1 9:77 / {escaped} rw - nfs4 s:/ rw",
        f"4 1 9:78 / {tmp_path}/a rw - tmpfs none rw",
    )
    assert (file_system(inner, table), file_system(tmp_path, table)) == ("nfs4", "ext4")
    assert shared_file_system(inner, table) == "nfs4"


def test_kinds_of_mounts_have_devices(tmp_path: Path) -> None:
    table = _table(
        tmp_path, "1 0 9:75 / / rw - ext4 x rw", "2 1 9:76 / /x rw - fuse.sshfs h: rw", "malformed", "3 1 a / /"
    )
    assert devices_of({"fuse"}, table) == {os.makedev(9, 76)}
    assert devices_of({"fuse"}, str(tmp_path / "none")) == frozenset()
