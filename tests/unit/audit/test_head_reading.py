"""An auditor reads a head file only where it is a regular file: no link leads elsewhere, and no FIFO holds them up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyguard.audit.head import Head, HeadFile, HeadLocation, head_path, other_head, read_head

ORIGIN = "log.example"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["regular file", "link", "FIFO"])
def test_only_a_regular_head_file_is_read(kind: str, tmp_path: Path) -> None:
    place = HeadLocation.of(tmp_path / "log", tmp_path)
    file = HeadFile.open(place, ORIGIN)
    file.write(Head(log="log"), 0)
    file.close()
    path = Path(head_path(place, ORIGIN))
    if kind != "regular file":
        path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    if kind == "FIFO":
        os.mkfifo(path)
    head = read_head(place, ORIGIN)
    assert head == (Head(log="log") if kind == "regular file" else None)
    assert other_head(str(tmp_path / "another.head"), "log") is None
