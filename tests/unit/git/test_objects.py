"""Reading objects: what one question leaves unread does not reach the next."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from policyguard.errors import EvidenceError
from policyguard.git.directory import find_gitdir
from policyguard.git.objects import open_objects
from policyguard.git.refs import References
from tests.attacks.git_lab import make_lab


@pytest.mark.parametrize("size", [0, 10, 3_000_000])
def test_an_object_that_is_refused_does_not_disturb_the_next(tmp_path: Path, size: int) -> None:
    """A blob where a commit is expected; the commit that is read after it is whole."""
    lab = make_lab(tmp_path)
    blob = lab.git("hash-object", "-w", "--stdin", stdin=b"x" * size)
    commit = lab.git("rev-parse", "HEAD")
    git = find_gitdir(str(lab.root), {os.geteuid()})
    with open_objects(git, commit, time.monotonic() + 15) as reader:
        with pytest.raises(EvidenceError, match="found a blob"):
            reader.read(blob, "commit")
        assert reader.read(commit, "commit").startswith(b"tree ")


def test_packed_references_that_name_one_twice_are_refused(tmp_path: Path) -> None:
    """With one id that is only a repetition; with two nobody can tell which one git obeys."""
    lab = make_lab(tmp_path)
    oid = lab.git("rev-parse", "HEAD")
    git = find_gitdir(str(lab.root), {os.geteuid()})
    packed = Path(git.shared, "packed-refs")
    packed.write_text(f"{oid} refs/heads/a\n{oid} refs/heads/a\n")
    assert References(git).id_of(b"refs/heads/a") == oid
    packed.write_text(f"{oid} refs/heads/a\n{'1' * 40} refs/heads/a\n")
    with pytest.raises(EvidenceError, match="twice with different ids"):
        References(git).id_of(b"refs/heads/a")
