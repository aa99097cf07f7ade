"""Attempts to make the job collector read, digest or overlook the wrong file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from policyguard.errors import EvidenceError
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.job import JobCollector
from policyguard.fs.safe_open import file_record, open_regular, read_all
from policyguard.model.request import Request

REQUEST = Request.of("user:mallory", "job:submit", "job:team/vision/run-17")


def files_of(folder: Path, *names: str, argv: tuple[str, ...] = (sys.executable,)) -> tuple[tuple[str, ...], str]:
    """Return the recorded paths, or the reason why there is no such fact."""
    inputs = JobInputs(argv=argv, directory=str(folder), files=names)
    found = JobCollector().collect(REQUEST, inputs, 1)
    if "resource.files" in found.missing:
        return (), found.missing["resource.files"]
    return tuple(record["path"] for record in found.entries["resource.files"].value), ""  # type: ignore[union-attr, index, call-overload, misc]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    job = tmp_path / "job"
    job.mkdir()
    (job / "train.py").write_text("pass\n")
    (tmp_path / "secret.py").write_text("pass\n")
    return job


@pytest.mark.parametrize("name", ["../secret.py", "link.py", "deep/secret.py"])
def test_a_relative_name_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    """I15: by `..`, by a link, by a link to a folder."""
    (folder / "link.py").symlink_to("../secret.py")
    (folder / "deep").symlink_to("..")
    paths, reason = files_of(folder, name)
    assert not paths
    assert "expected a file inside the job's folder" in reason


def test_a_link_within_the_folder_is_recorded_by_its_target(folder: Path) -> None:
    """I15, the twin: what it leads to is what will run."""
    (folder / "link.py").symlink_to("train.py")
    assert files_of(folder, "link.py") == (("train.py",), "")


def test_a_script_outside_the_folder_is_seen_as_such(folder: Path) -> None:
    """I15: `python /tmp/evil.py` from a clean repository shows an absolute path that a rule can refuse."""
    outside = folder.parent / "secret.py"
    paths, _ = files_of(folder, argv=(sys.executable, str(outside)))
    assert (os.path.realpath(outside),) == paths


def test_a_script_reached_by_dots_is_refused(folder: Path) -> None:
    """I15: the same, by a relative path."""
    paths, reason = files_of(folder, argv=(sys.executable, "../secret.py"))
    assert not paths
    assert "inside the job's folder" in reason


def test_a_fifo_does_not_block(folder: Path) -> None:
    """I16: no writer ever comes, and nobody waits for one."""
    os.mkfifo(folder / "config.yaml")
    assert "found a FIFO" in files_of(folder, "config.yaml")[1]


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_not_read(folder: Path, name: str) -> None:
    """I16: endless or with side effects."""
    reason = files_of(folder, name)[1]
    assert "expected a regular file" in reason or "no such" in reason


def test_a_folder_is_not_a_file(folder: Path) -> None:
    """I16: one line, no traceback."""
    (folder / "data").mkdir()
    assert "found a folder" in files_of(folder, "data")[1]


def test_a_missing_file_is_a_reason(folder: Path) -> None:
    """A job file that names a path that is not there."""
    assert "no such file" in files_of(folder, "nope.yaml")[1]


def test_a_file_that_grows_while_it_is_read_has_no_digest(folder: Path) -> None:
    """I16: found by size."""
    path = folder / "train.py"
    fd, status = open_regular(str(path))
    with path.open("a") as more:
        more.write("import evil\n")
    with pytest.raises(EvidenceError, match="changed while it was read"):
        read_all(fd, status, "train.py", lambda chunk: None)
    os.close(fd)


def test_a_file_rewritten_in_place_while_it_is_read_has_no_digest(folder: Path) -> None:
    """I16: found by the change time, which no user can set back."""
    path = folder / "train.py"
    fd, status = open_regular(str(path))

    def rewrite(chunk: memoryview) -> None:
        path.write_bytes(b"evil\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(EvidenceError, match="changed while it was read"):
        read_all(fd, status, "train.py", rewrite)
    os.close(fd)


def test_a_folder_swapped_for_a_link_is_never_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I16: a component that becomes a link between resolving and opening is refused; here resolving saw none yet."""
    evil = folder.parent / "evil"
    evil.mkdir()
    (evil / "train.py").write_text("evil")
    (folder / "real").symlink_to(evil)
    before_the_swap = os.path.realpath(folder) + "/real/train.py"
    monkeypatch.setattr(os.path, "realpath", lambda path: before_the_swap)
    with pytest.raises(EvidenceError, match=r"not a directory|symbolic links"):
        file_record(before_the_swap, "x")
