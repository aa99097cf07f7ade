"""Policy folders: what stood there at one time, or one clear line."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.errors import ConfigurationError
from policyguard.policy.files import read_folder
from policyguard.policy.loader import load
from policyguard.policy.reader import MAX_FILE_BYTES

BASE = Path(__file__).parents[2] / "data" / "policy" / "base"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(BASE, tmp_path / "policies")
    return tmp_path / "policies"


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_read_in_order_and_by_the_names_it_was_given(folder: Path) -> None:
    """Sorted, with sub-folders, `.yml` too; hidden names and other files are passed over."""
    (folder / "teams").mkdir()
    (folder / "teams" / "vision.yml").write_text("a: 1\n")
    (folder / "README.md").write_text("no policy")
    (folder / ".hidden").write_text("no policy")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.yaml").write_text("no policy")
    names = [os.path.relpath(name, folder) for name in read_folder(folder)]
    assert names == ["policy.yaml", "quorums.yaml", "roles.yaml", "schema.yaml", "teams/vision.yml"]


def test_errors_show_the_path_as_it_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder gives relative names, so that a terminal can open them."""
    monkeypatch.chdir(folder.parent)
    assert next(iter(read_folder("policies"))) == "policies/policy.yaml"
    assert len(load(read_folder("policies")).rules) == 1


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")


def _link_out(folder: Path) -> None:
    (folder.parent / "outside.yaml").write_text("a: 1\n")
    (folder / "link.yaml").symlink_to("../outside.yaml")


def _link_to_folder(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")


def _dangling(folder: Path) -> None:
    (folder / "gone.yaml").symlink_to("nothing.yaml")


def _device(folder: Path) -> None:
    (folder / "null.yaml").symlink_to("/dev/null")


def _folder_named_like_a_file(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()
    (folder / "x.yaml").mkdir()


def _huge(folder: Path) -> None:
    with open(folder / "huge.yaml", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)


def _deep(folder: Path) -> None:
    (folder / "/".join(["d"] * 18)).mkdir(parents=True)


def _bad_name(folder: Path) -> None:
    with open(os.fsencode(folder) + b"/\xff.yaml", "wb"):
        pass


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a FIFO": (_fifo, "pipe.yaml: found a FIFO, expected a plain file"),
    "a link that leads out": (_link_out, "link.yaml: found a link to `.*outside.yaml`, expected one within the folder"),
    "a link to a folder": (_link_to_folder, "link: found a link to a folder, expected a file"),
    "a link to nothing": (_dangling, "gone.yaml: found nothing there"),
    "a device": (_device, "null.yaml: found a link to `/dev/null`, expected one within the folder"),
    "no policy file at all": (_folder_named_like_a_file, "found no policy file"),
    "a huge file": (_huge, "huge.yaml: found 16777217 bytes, expected at most 16777216"),
    "folders without end": (_deep, "found folders deeper than 16"),
    "a name that is no UTF-8": (_bad_name, r"\\xff.yaml: found a file name that is no UTF-8"),
    "no folder": (lambda folder: shutil.rmtree(folder), "policies: found nothing there"),
}


@pytest.mark.parametrize(("damage", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(folder: Path, damage: Callable[[Path], None], words: str) -> None:
    """One line that names the file; a FIFO or a device is never waited for."""
    damage(folder)
    assert re.search(words, refusal(folder))


def test_a_file_is_no_folder(folder: Path) -> None:
    """A single file in place of the folder is named."""
    assert "found no folder, expected one with policy files" in refusal(folder / "policy.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(folder: Path) -> None:
    """What may not be read is not passed over."""
    (folder / "policy.yaml").chmod(0)
    assert "policy.yaml: may not be read by this process" in refusal(folder)


def test_a_link_within_the_folder_is_followed(folder: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into a hidden folder beside them."""
    (folder / "..data").mkdir()
    (folder / "policy.yaml").rename(folder / "..data" / "policy.yaml")
    (folder / "policy.yaml").symlink_to("..data/policy.yaml")
    assert len(load(read_folder(folder)).rules) == 1


def test_a_file_that_changes_while_the_folder_is_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I6: another process writes the first file after it was read and before the last one is."""
    real = os.open

    def open_and_disturb(path: str, flags: int, **_: object) -> int:
        if path.endswith("schema.yaml"):
            with open(folder / "policy.yaml", "a") as file:
                file.write("# one more line\n")
        return real(path, flags)

    monkeypatch.setattr(os, "open", open_and_disturb)
    assert "policy.yaml: changed while the folder was read" in refusal(folder)


def test_a_file_that_appears_while_the_folder_is_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I6: a deny that is being copied in is not missed in silence."""
    real = os.open

    def open_and_disturb(path: str, flags: int, **_: object) -> int:
        os.close(real(str(folder / "zz-denies.yaml"), os.O_CREAT | os.O_WRONLY))
        return real(path, flags)

    monkeypatch.setattr(os, "open", open_and_disturb)
    assert "changed while the folder was read" in refusal(folder)


def test_a_file_replaced_by_a_fifo_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I6: between looking and opening somebody puts a FIFO there; reading fails at once."""
    real = os.open

    def open_and_disturb(path: str, flags: int, **_: object) -> int:
        if stat.S_ISREG(os.stat(path).st_mode):
            os.unlink(path)
            os.mkfifo(path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", open_and_disturb)
    assert "found a FIFO, expected a regular file" in refusal(folder)
