"""The profile of a confined job: recorded with placeholders and their folders, and made again of its record."""

from __future__ import annotations

import pytest

from policyguard.confinement.profile import Profile, located, merge_rights, missing_before, placeholder

HERE = {"{tree}": "/home/alice/job", "{data}": "/data"}


def test_a_record_names_its_folders_once() -> None:
    """The same profile can be made of it; the system's paths are not recorded, and some folders are known only then."""
    profile = Profile(abi=6, paths={"/home/alice/job/train.py": "r", "/data": "r", "/usr": "rx", "{private}": "rw"})
    record = profile.record(HERE)
    assert record["paths"] == {"{data}": "r", "{private}": "rw", "{tree}/train.py": "r"}
    assert record["roots"] == HERE
    again = Profile.from_record(record, {"{private}": "/tmp/p"})
    assert {path: again.paths[path] for path in ("/home/alice/job/train.py", "/data", "/tmp/p", "/usr")} == {
        "/home/alice/job/train.py": "r",
        "/data": "r",
        "/tmp/p": "rw",
        "/usr": "rx",
    }


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


def test_rights_of_one_path_add_up() -> None:
    """In one order, whatever the order in which they came."""
    assert merge_rights({"/a": "x", "/b": "r"}, {"/a": "wr"}) == {"/a": "rwx", "/b": "r"}


@pytest.mark.parametrize(("abi", "missing"), [(7, 0), (6, 0), (5, 1), (4, 2), (3, 2), (2, 3), (1, 3)])
def test_what_an_older_kernel_does_not_enforce_is_reported(abi: int, missing: int) -> None:
    """`doctor` prints it; what no kernel enforces is in `docs/hooks/confinement.md`."""
    assert len(missing_before(abi)) == missing
