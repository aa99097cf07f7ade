"""What uncommitted files hold is bound by content, and that there is a baseline is a fact of its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.assembly.jobs import job_collectors
from policyguard.attest.keys import PrivateKey
from policyguard.config.measurement import NOTHING_CONFIGURED
from policyguard.environment.listing import list_files
from policyguard.environment.report import make_baseline
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.environment_collector import BASELINE, ENVIRONMENT_DIGEST, EnvironmentCollector
from policyguard.evidence.uncommitted import UNCOMMITTED
from policyguard.model.facts import Facts
from policyguard.values import FrozenMap
from tests.attacks.git_lab import REQUEST, Lab, make_lab

KEY = PrivateKey.generate(b"\7" * 32)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def uncommitted(lab: Lab) -> dict[str, FrozenMap]:
    value = lab.collect().entries[UNCOMMITTED].value
    assert isinstance(value, tuple)
    return {str(each["path"]): each for each in value if isinstance(each, FrozenMap)}


def test_a_clean_tree_has_none(lab: Lab) -> None:
    """Empty, measured and bound: that nothing is uncommitted is a fact, not an absence."""
    fact = lab.collect().entries[UNCOMMITTED]
    assert (fact.value, fact.assurance.word, fact.bound) == ((), "measured", True)


def test_each_uncommitted_file_has_its_digest(lab: Lab) -> None:
    """Changed, new, gone, a link: each with what a worker would find."""
    (lab.root / "train.py").write_text("changed\n")
    (lab.root / "new.py").write_text("new\n")
    (lab.root / "README.md").unlink()
    (lab.root / "link.py").symlink_to("train.py")
    found = uncommitted(lab)
    assert sorted(found) == ["README.md", "link.py", "new.py", "train.py"]
    assert found["new.py"] == FrozenMap(path="new.py", digest=hashlib.sha256(b"new\n").hexdigest(), size=4)
    assert found["train.py"]["digest"] == hashlib.sha256(b"changed\n").hexdigest()
    assert (found["README.md"]["digest"], found["README.md"]["size"]) == ("", 0)
    before = found["link.py"]["digest"]
    (lab.root / "link.py").unlink()
    (lab.root / "link.py").symlink_to("new.py")
    assert uncommitted(lab)["link.py"]["digest"] != before


def test_an_edit_of_a_file_that_was_dirty_already_is_seen(lab: Lab) -> None:
    """I2: `resource.code` names the same files before and after, the digests differ."""
    (lab.root / "train.py").write_text("one\n")
    code, first = lab.code(), uncommitted(lab)
    (lab.root / "train.py").write_text("two\n")
    assert lab.code() == code
    assert uncommitted(lab) != first


def test_a_submodule_at_another_commit_has_its_content(lab: Lab, tmp_path: Path) -> None:
    """Its digest is the commit that is checked out."""
    other = tmp_path / "other"
    other.mkdir()
    inner = make_lab(other)
    lab.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.root), "sub")
    lab.git("commit", "-qm", "a submodule")
    commit = lab.git("-C", "sub", "commit", "--allow-empty", "-qm", "more") or lab.git("-C", "sub", "rev-parse", "HEAD")
    assert uncommitted(lab)["sub"]["digest"] == commit


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "a link that leads out": lambda root: (root / "data.py").symlink_to("/etc/passwd"),
    "a FIFO": lambda root: os.mkfifo(root / "queue.py"),
    "too many bytes": lambda root: os.truncate(_new(root / "huge.py"), 300 << 20),
}


def _new(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("plant", UNREADABLE.values(), ids=list(UNREADABLE))
def test_what_cannot_be_bound_is_absent_and_says_why(lab: Lab, plant: Callable[[Path], object]) -> None:
    """I2: no digest is made up, and the code record is there all the same."""
    plant(lab.root)
    found = lab.collect()
    assert UNCOMMITTED not in found.entries
    assert "uncommitted" in found.missing[UNCOMMITTED] or "FIFO" in found.missing[UNCOMMITTED]
    assert lab.code()["dirty"] is True


def environment(tmp_path: Path) -> Path:
    prefix = tmp_path / "env"
    site = prefix / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").write_text("#!/bin/sh\n")
    (prefix / "bin" / "python").chmod(0o755)
    (site / "shipped.pth").write_text("# a path file of the build\n")
    (tmp_path / "baseline.json").write_bytes(make_baseline(list_files(str(prefix)), [KEY]))
    return site


def looked(tmp_path: Path, *keys: PrivateKey) -> Facts:
    collector = EnvironmentCollector(str(tmp_path / "baseline.json"), [key.public for key in keys])
    inputs = JobInputs(argv=(str(tmp_path / "env" / "bin" / "python"),), directory=str(tmp_path))
    return gather(REQUEST, [collector], inputs, lambda: 1)


def test_a_baseline_that_cannot_be_used_says_nothing(tmp_path: Path) -> None:
    """I2: with it compared, both facts; with a key that did not sign it neither, so no rule takes it for none."""
    environment(tmp_path)
    facts = looked(tmp_path, KEY)
    assert facts.entries[BASELINE].value is True
    assert facts.entries["resource.environment"].value == FrozenMap(
        changed_files=(), unlike_bytecode=(), unowned_autorun=()
    )
    forged = looked(tmp_path, PrivateKey.generate(b"\x08" * 32))
    assert set(forged.entries) == set()
    assert set(forged.missing) == {BASELINE, "resource.environment", ENVIRONMENT_DIGEST}


def test_the_digest_covers_what_the_list_of_changed_files_cannot(tmp_path: Path) -> None:
    """An insider edits a file that differs already and is allowed to: the same names, and another digest."""
    site = environment(tmp_path)
    before = looked(tmp_path, KEY)
    assert looked(tmp_path, KEY).bound == before.bound
    (site / "shipped.pth").write_text("# changed, and allowed\n")
    allowed = looked(tmp_path, KEY)
    (site / "shipped.pth").write_text("import evil\n")
    again = looked(tmp_path, KEY)
    assert allowed.bound["resource.environment"] == again.bound["resource.environment"]
    assert len({facts.bound[ENVIRONMENT_DIGEST] for facts in (before, allowed, again)}) == 3


def test_without_a_baseline_that_is_a_fact(tmp_path: Path) -> None:
    """What the launcher looks with where the configuration names none."""
    collectors = [each for each in job_collectors(NOTHING_CONFIGURED, REQUEST) if each.name == "environment"]
    facts = gather(REQUEST, collectors, JobInputs(directory=str(tmp_path)), lambda: 1)
    assert {path: fact.value for path, fact in facts.entries.items()} == {BASELINE: False}


def test_an_edited_path_file_of_the_build_is_a_changed_file(tmp_path: Path) -> None:
    """Only what came without the build is unowned: an edit is told as what it is, in every tier."""
    site = environment(tmp_path)
    (site / "shipped.pth").write_text("import os\n")
    (site / "dropped.pth").write_text("import os\n")
    record = looked(tmp_path, KEY).entries["resource.environment"].value
    assert isinstance(record, FrozenMap)
    shipped, dropped = ("lib/python3.11/site-packages/" + name for name in ("shipped.pth", "dropped.pth"))
    changed = tuple(sorted((shipped, dropped)))
    assert record == FrozenMap(changed_files=changed, unlike_bytecode=(), unowned_autorun=(dropped,))
