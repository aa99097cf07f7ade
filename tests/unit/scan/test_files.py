"""What a path is decides first: only regular files are opened, one state of them is reported, nothing raises."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from policyguard.cli.verbs.init_ import create_files
from policyguard.scan.files import CheckpointScan, Options, scan_file, scan_paths
from policyguard.scan.findings import MAX_DETAIL_CHARS, REASONS, Limits, Verdict
from policyguard.text import printable_ascii
from policyguard.values import freeze
from tests.attacks.checkpoint_lab import GOOD, STORAGE, torch_zip

DOCS = Path(__file__).parents[3] / "docs"


def codes(scan: CheckpointScan) -> set[str]:
    return {reason.code for reason in scan.reasons}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(torch_zip(GOOD, **STORAGE))
    return path


def test_a_scan_says_who_owns_the_file_and_who_may_write_beside_it(good: Path) -> None:
    """Owner, mode and the folder's write bits are measured with the content."""
    good.chmod(0o640)
    good.parent.chmod(0o775)
    scan = scan_file(good)
    assert (os.geteuid(), 0o640, True, False) == (
        scan.owner_uid,
        scan.mode,
        scan.dir_group_writable,
        scan.dir_world_writable,
    )
    good.parent.chmod(0o700)
    assert not scan_file(good).dir_group_writable


def test_a_scan_is_a_fact_value(good: Path) -> None:
    """Every field fits a fact: no floats, no nulls, text only."""
    value = scan_file(good).to_value()
    assert freeze(value) == value
    assert value["verdict"] == "clean"


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder", "device", "socket", "missing", "nul"])
def test_what_is_no_regular_file_is_named_and_not_opened(kind: str, good: Path) -> None:
    """INVARIANT I16: links, pipes, devices, folders and sockets are unknown at once; nothing blocks."""
    path = good.parent / "thing"
    if kind.endswith("link"):
        path.symlink_to(good if kind == "link" else "nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            os.chdir(good.parent)
            server.bind("thing")
    elif kind == "nul":
        path = Path("a\0b")
    began = time.monotonic()
    scan = scan_file(path)
    assert time.monotonic() - began < 2
    assert (scan.verdict, scan.sha256) == (Verdict.UNKNOWN, "")
    assert codes(scan) <= {"ckpt.symlink", "ckpt.not_regular", "ckpt.missing", "ckpt.unreadable"}


def test_a_link_inside_the_scanned_folder_is_followed(good: Path) -> None:
    """A hub cache is made of links; one that stays inside is read, one that leaves is not."""
    folder = good.parent / "folder"
    folder.mkdir()
    good.rename(folder / "model.pt")
    (folder / "inside.pt").symlink_to("model.pt")
    (folder / "outside.pt").symlink_to("/etc/passwd")
    found = {Path(scan.path).name: codes(scan) for scan in scan_paths([folder])}
    assert {"model.pt": set(), "inside.pt": set(), "outside.pt": {"ckpt.symlink"}} == found


def test_links_of_a_hub_snapshot_may_point_to_its_blobs(tmp_path: Path) -> None:
    """`snapshots/<revision>/x` points to `blobs/<digest>` of the same repository; its name is the link's."""
    repository = tmp_path / "models--lab--net"
    snapshot = repository / "snapshots" / ("a" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (repository / "blobs" / "1234").write_bytes(torch_zip(GOOD, **STORAGE))
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    (scan,) = scan_paths([snapshot])
    assert codes(scan) == {"ckpt.format_spoof"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_unknown(good: Path) -> None:
    """No permission is a reason, not a traceback."""
    good.chmod(0)
    assert codes(scan_file(good)) == {"ckpt.unreadable"}


def test_a_file_that_changes_while_it_is_read_is_unknown(good: Path) -> None:
    """INVARIANT I16: a write between digest and end of scan shows; no digest is given for it."""

    def touch(path: str, count: int) -> None:
        with open(path, "ab") as file:
            file.write(b"more")

    scan = scan_file(good, Options(progress=touch))
    assert "ckpt.changed" in codes(scan)
    assert scan.sha256 == ""


def test_a_file_that_shrinks_while_it_is_read_is_unknown(good: Path) -> None:
    """The twin of growing: nothing is read beyond the new end."""
    scan = scan_file(good, Options(progress=lambda path, count: os.truncate(path, 10)))
    assert "ckpt.changed" in codes(scan)


def test_names_that_are_no_text_are_reported_as_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 and line breaks in names stay one printable line."""
    name = os.fsencode(tmp_path) + b"/a\xff\nb.pt"
    with open(name, "wb") as file:
        file.write(torch_zip(GOOD, **STORAGE))
    (scan,) = scan_paths([tmp_path])
    assert scan.path.endswith("a\\xff\nb.pt")
    scan.path.encode()


def test_claimed_lengths_cost_no_memory(tmp_path: Path) -> None:
    """A pickle that claims eight gigabytes of bytes in a file of sixteen megabytes allocates none of them."""
    path = tmp_path / "huge.bin"
    with open(path, "wb") as file:
        file.write(b"\x80\x04\x8e" + (2**33).to_bytes(8, "little"))
        file.truncate(2**24)
    assert codes(scan_file(path)) == {"ckpt.truncated"}


def test_limits_have_their_own_reasons(good: Path) -> None:
    """Time, opcodes and members are bounded; each bound says which it was."""
    for limits, code in ((Limits(time_s=-1), "ckpt.timeout"), (Limits(members=1), "ckpt.too_large")):
        scan = scan_file(good, Options(limits=limits))
        assert codes(scan) == {code}
    (good.parent / "many.pkl").write_bytes(b"\x80\x02" + b"N0" * 50_000 + b"N.")
    scan = scan_file(good.parent / "many.pkl", Options(limits=Limits(opcodes=10_000)))
    assert "ckpt.too_large" in codes(scan)


def test_progress_counts_every_byte(good: Path) -> None:
    """A progress bar ends at the size of the file."""
    seen: list[int] = []
    scan = scan_file(good, Options(progress=lambda path, count: seen.append(count)))
    assert sum(seen) == scan.size_bytes


def test_folders_are_scanned_in_order_and_in_parallel(tmp_path: Path) -> None:
    """Shards come back sorted, whichever core finished first."""
    for index in range(8):
        (tmp_path / f"shard-{index}.pt").write_bytes(torch_zip(GOOD, **STORAGE))
    scans = scan_paths([tmp_path], Options(jobs=4))
    assert [f"shard-{index}.pt" for index in range(8)] == [Path(scan.path).name for scan in scans]
    assert len({scan.sha256 for scan in scans}) == 1


def test_a_path_file_is_code_and_a_checkpoint_of_that_name_is_not(good: Path) -> None:
    """`.pth` is torch's suffix and the interpreter's: the content decides which."""
    assert codes(scan_file(good.rename(good.with_suffix(".pth")))) == set()
    (good.parent / "site.pth").write_text("import antigravity\n")
    assert codes(scan_file(good.parent / "site.pth")) == {"ckpt.code_file"}


def test_every_reason_is_documented() -> None:
    """The table in the docs and the codes in the scanner are the same set."""
    text = (DOCS / "scan.md").read_text()
    assert [code for code in REASONS if f"`{code}`" not in text] == []


def test_printed_text_is_one_short_line() -> None:
    """What an attacker names cannot move the cursor of the person who reads the report."""
    assert printable_ascii("a\x1b[2J\n") == "a\\x1b[2J\\n"
    assert len(printable_ascii("x" * 1000, MAX_DETAIL_CHARS)) == 160


def test_policies_and_their_tests_are_understood(tmp_path: Path) -> None:
    """A lab is clean: conditions and facts are texts that nothing evaluates here."""
    create_files(tmp_path / "lab")
    files = sorted((tmp_path / "lab" / "policies").iterdir())
    assert [file.name for file in files if scan_file(file).verdict is not Verdict.CLEAN] == []


HEADER = "apiVersion: policyguard/v1\nkind: Tests\n"
DISGUISED = {
    "a key that names code": HEADER + "facts: {x: {_target_: os.system}}\n",
    "a tag": HEADER + "facts: !!python/object/apply:os.system [id]\n",
    "another field": HEADER + "callback: os.system\n",
    "another version": HEADER.replace("/v1", "/v9") + "facts: {x: os.system}\n",
    "the kind twice": "kind: Settings\n" + HEADER + "facts: {x: os.system}\n",
    "another kind": HEADER.replace("Tests", "Settings") + "facts: {x: os.system}\n",
}


@pytest.mark.parametrize("text", DISGUISED.values(), ids=DISGUISED)
def test_settings_that_say_they_are_policies_are_judged_as_settings(tmp_path: Path, text: str) -> None:
    """The header buys nothing: keys, tags and unknown fields count; the twin has only facts."""
    (tmp_path / "t.yaml").write_text(text)
    (tmp_path / "fine.yaml").write_text(HEADER + "facts: {x: {resource.pickle_globals: [os.system]}}\n")
    assert scan_file(tmp_path / "t.yaml").verdict is not Verdict.CLEAN
    assert scan_file(tmp_path / "fine.yaml").verdict is Verdict.CLEAN
