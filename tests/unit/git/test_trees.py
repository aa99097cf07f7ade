"""The entries of a tree: all of them, or the one at a path."""

from __future__ import annotations

import os
import time
from pathlib import Path

from policyguard.git.directory import find_gitdir
from policyguard.git.objects import open_objects
from policyguard.git.trees import TREE, entry_at, files_of, tree_of
from tests.attacks.git_lab import make_lab


def test_the_entry_at_a_path_is_that_of_the_whole_listing(tmp_path: Path) -> None:
    """For every file of a commit; a folder is one, and what is not there is None."""
    lab = make_lab(tmp_path)
    (lab.root / "a" / "b").mkdir(parents=True)
    (lab.root / "a" / "b" / "c.py").write_text("1\n")
    (lab.root / "a.py").write_text("2\n")
    lab.git("add", ".")
    lab.git("commit", "-qm", "folders")
    commit = lab.git("rev-parse", "HEAD")
    with open_objects(find_gitdir(str(lab.root), {os.geteuid()}), commit, time.monotonic() + 15) as reader:
        tree = tree_of(reader, commit)
        files = files_of(reader, tree)
        assert {b"a/b/c.py", b"a.py"} <= files.keys()
        assert {path: entry_at(reader, tree, path) for path in files} == files
        folder = entry_at(reader, tree, b"a/b")
        assert folder is not None
        assert folder.mode == TREE
        for absent in (b"a/c.py", b"a.py/b", b"b", b"../a.py", b""):
            assert entry_at(reader, tree, absent) is None
