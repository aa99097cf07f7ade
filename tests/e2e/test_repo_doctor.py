"""`policyguard repo doctor` on protections that are there and protect nothing, and on hooks that git does not run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.cli.group import run
from tests.e2e.repo_lab import ROOT, Forge, make_forge


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A healthy forge whose policies are a folder."""
    forge = make_forge(tmp_path, "pre-receive", "reference-transaction")
    (forge.folder / "policies").unlink()
    shutil.copytree(ROOT / "policies", forge.folder / "policies")
    return forge


@pytest.fixture
def complaints(forge: Forge, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What the doctor complains of, run in this process."""

    def look() -> list[str]:
        capsys.readouterr()
        code = run(["repo", "doctor", str(forge.bare)])
        lines = capsys.readouterr().out.splitlines()
        assert code == (0 if lines[0].startswith("ok") else 1)
        return [line.removeprefix("ILL   ") for line in lines if line.startswith("ILL")]

    return look


def spoil(forge: Forge, name: str, old: str, new: str) -> None:
    path = forge.folder / "policies" / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


Complaints = Callable[[], list[str]]


def test_a_guarded_path_that_moved_away_is_reported(forge: Forge, complaints: Complaints) -> None:
    """INVARIANT I20: `train/optim/**` fits nothing after a rename; before it the doctor had nothing to say."""
    assert complaints() == []
    forge.git(forge.work, "mv", "train/optim", "train/optimizers")
    forge.git(forge.work, "commit", "-qm", "rename")
    commit = forge.git(forge.work, "rev-parse", "HEAD")
    forge.git(forge.bare, "fetch", "-q", "--no-write-fetch-head", str(forge.work), "main")
    (forge.bare / "refs" / "heads" / "main").write_text(commit + "\n")
    (found,) = complaints()
    assert found.startswith(
        "policies: rule `optimizer-needs-infra`: no path on the main branch matches `train/optim/**`"
    )


def test_a_quorum_that_nobody_can_fill_is_reported(forge: Forge, complaints: Complaints) -> None:
    """Dan is no lead any more: one lead of vision is left, and nothing can be pushed to main."""
    spoil(forge, "bindings.yaml", '{subject: "user:dan", role: lead,', '{subject: "user:dan", role: researcher,')
    (found,) = complaints()
    assert found.startswith("policies: rule `main-needs-two-leads`: quorum `two-leads` needs 2 of `lead`, found 1")


def test_a_main_branch_of_another_name_is_reported(forge: Forge, complaints: Complaints) -> None:
    """The rules say `main`; what everybody fetches is `trunk`."""
    forge.git(forge.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert any("the main branch is `refs/heads/trunk`, and approvals are required for" in each for each in complaints())
    forge.git(forge.bare, "symbolic-ref", "HEAD", "refs/heads/release/1")
    assert not any("the main branch is" in each for each in complaints())


def test_policies_that_cannot_be_inspected_are_reported(forge: Forge, complaints: Complaints) -> None:
    """The hook would refuse every push; the doctor says why in one line."""
    spoil(forge, "quorums.yaml", "count: 2", "count: two")
    (found,) = complaints()
    assert found.startswith("policies: cannot check whether they protect anything here: ")


@pytest.mark.parametrize("where", ["include", "account"])
def test_hooks_that_git_searches_elsewhere_are_reported(
    where: str, forge: Forge, complaints: Complaints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`core.hooksPath` in an included file, or in the account's configuration, switches ours off as well."""
    monkeypatch.setenv("HOME", str(forge.folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(forge.folder / "none"))
    assert complaints() == []
    (forge.folder / "elsewhere").write_text("[core]\n\thooksPath = /dev/null\n")
    if where == "include":
        forge.git(forge.bare, "config", "include.path", str(forge.folder / "elsewhere"))
    else:
        os.rename(forge.folder / "elsewhere", forge.folder / ".gitconfig")
    assert any("`core.hooksPath` is `/dev/null`" in each for each in complaints())
