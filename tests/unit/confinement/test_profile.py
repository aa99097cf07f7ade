"""The profile of a confined job: recorded with placeholders, and the same profile on a machine with other folders."""

from __future__ import annotations

import pytest

from policyguard.confinement.profile import NEVER_ENFORCED, Profile, is_below, located, merge_rights, placeholder

HERE = {"{tree}": "/home/alice/job", "{data}": "/data"}
THERE = {"{tree}": "/scratch/job", "{data}": "/mnt/data"}


def test_a_record_names_no_folder_of_this_machine() -> None:
    """Another node makes the same profile of it, with its own folders; the system's paths are not recorded."""
    profile = Profile(abi=6, paths={"/home/alice/job/train.py": "r", "/data": "r", "/usr": "rx", "/opt/lib": "rx"})
    record = profile.record(HERE)
    assert record["paths"] == {"/opt/lib": "rx", "{data}": "r", "{tree}/train.py": "r"}
    there = Profile.from_record(record, THERE)
    assert {path: there.paths[path] for path in ("/scratch/job/train.py", "/mnt/data", "/opt/lib", "/usr")} == {
        "/scratch/job/train.py": "r",
        "/mnt/data": "r",
        "/opt/lib": "rx",
        "/usr": "rx",
    }
    assert there.record(THERE) == record


@pytest.mark.parametrize("ports", [None, (), (443, 8080)])
def test_ports_are_recorded_unless_all_may_be_used(ports: tuple[int, ...] | None) -> None:
    """No port and all ports are two things."""
    profile = Profile(abi=6, paths={}, ports=ports)
    assert ("ports" in profile.record({})) == (ports is not None)
    assert Profile.from_record(profile.record({}), {}).ports == ports


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/alice/job", "{tree}"),
        ("/home/alice/job/a/b", "{tree}/a/b"),
        ("/home/alice/job2", "/home/alice/job2"),
        ("/home/alice", "/home/alice"),
    ],
)
def test_a_placeholder_is_of_a_whole_folder(path: str, name: str) -> None:
    """A neighbour whose name begins alike is not below the folder."""
    assert placeholder(path, HERE) == name
    assert located(name, HERE) == path


def test_the_nearest_root_names_a_path_and_the_whole_disk_none() -> None:
    """Of two roots the longer one; a job in `/` does not turn every path into one of its own."""
    assert placeholder("/a/b/c", {"{outer}": "/a", "{inner}": "/a/b"}) == "{inner}/c"
    assert placeholder("/etc/passwd", {"{tree}": "/"}) == "/etc/passwd"


@pytest.mark.parametrize(("path", "below"), [("/a", True), ("/a/b", True), ("/ab", False), ("/", False)])
def test_below_is_the_folder_and_what_it_holds(path: str, below: bool) -> None:
    """Of whole names only."""
    assert is_below(path, "/a") is below


def test_rights_of_one_path_add_up() -> None:
    """In one order, whatever the order in which they came."""
    assert merge_rights({"/a": "x", "/b": "r"}, {"/a": "wr"}) == {"/a": "rwx", "/b": "r"}


@pytest.mark.parametrize(
    ("abi", "ports", "missing"),
    [(6, (443,), 0), (5, None, 1), (3, None, 2), (3, (443,), 3), (1, (443,), 4), (1, None, 3)],
)
def test_what_an_older_kernel_does_not_enforce_is_said(abi: int, ports: tuple[int, ...] | None, missing: int) -> None:
    """TCP ports count only where the profile limits them."""
    gaps = Profile(abi=abi, paths={}, ports=ports).unenforced()
    assert len(gaps) == missing + len(NEVER_ENFORCED)
    assert any("TCP ports" in gap for gap in gaps) == (abi < 4 and ports is not None)
