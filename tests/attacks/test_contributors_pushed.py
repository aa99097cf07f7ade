"""Pushes of somebody's work under another name, over real git, with the hook and the example policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.repo_lab import Forge, Pushed, make_forge
from tests.e2e.test_repo_hook import approve

CAROL = {f"GIT_{role}_EMAIL": "carol@lab.example" for role in ("AUTHOR", "COMMITTER")}


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A forge whose operator demands signed commits."""
    forge = make_forge(tmp_path)
    (tmp_path / "policyguard.yaml").write_text("signedCommits: required\n")
    assert forge.install("--approvals", "approvals").accepted
    (tmp_path / "policyguard.yaml").unlink()
    script = (forge.bare / "hooks" / "pre-receive").read_text()
    assert "--signed-commits required" in script
    return forge


def signing(forge: Forge, who: str) -> tuple[str, ...]:
    return ("-c", "gpg.format=ssh", "-c", f"user.signingkey={forge.folder / who}.pub")


def pushed(forge: Forge) -> Pushed:
    """Push HEAD to main as alice, with the approvals of both leads."""
    start, commit = str(forge.value()), forge.git(forge.work, "rev-parse", "HEAD")
    for lead in ("carol", "dan"):
        approve(forge, lead, "refs/heads/main", start, commit)
    return forge.push("HEAD:refs/heads/main")


def test_a_squash_of_a_leads_work_is_named_and_refused(forge: Forge) -> None:
    """Carol's commits, squashed by alice without a signature; signed by alice, alice answers for it."""
    forge.git(forge.work, "checkout", "-qb", "topic")
    forge.commit("notes.md", **CAROL)
    forge.git(forge.work, "checkout", "-q", "main")
    forge.git(forge.work, "merge", "-q", "--squash", "topic")
    forge.git(forge.work, "commit", "-qm", "squashed")
    refused = pushed(forge)
    head = forge.git(forge.work, "rev-parse", "HEAD")
    assert not refused.accepted
    assert f"commit {head[:12]} has no signature, only the claim of `alice@lab.example`" in refused.text
    forge.git(forge.work, *signing(forge, "alice"), "commit", "-q", "--amend", "--no-edit", "-S")
    accepted = pushed(forge)
    assert accepted.accepted, accepted.text


def test_a_new_author_is_refused_and_the_real_signer_approves_nothing(forge: Forge) -> None:
    """`--reset-author` to alice; carol signs it with her own key, so that she contributed."""
    forge.commit("notes.md", **CAROL)
    forge.git(forge.work, "commit", "-q", "--amend", "--no-edit", "--reset-author")
    assert "approval.unknown_contributor" in pushed(forge).text
    forge.git(forge.work, *signing(forge, "carol"), "commit", "-q", "--amend", "--no-edit", "-S")
    refused = pushed(forge)
    assert not refused.accepted
    assert "sod.approver_is_contributor" in refused.text


def test_the_pusher_of_a_leads_work_is_a_contributor_as_well(forge: Forge) -> None:
    """Carol pushes what alice committed in alice's name, and would approve it."""
    forge.commit("notes.md")
    forge.git(forge.work, *signing(forge, "alice"), "commit", "-q", "--amend", "--no-edit", "-S")
    start, commit = str(forge.value()), forge.git(forge.work, "rev-parse", "HEAD")
    for lead in ("carol", "dan"):
        approve(forge, lead, "refs/heads/main", start, commit)
    refused = forge.push("HEAD:refs/heads/main", user="carol", key="carol")
    assert not refused.accepted
    assert forge.push("HEAD:refs/heads/main").accepted


def test_an_option_that_is_not_known_refuses_the_push(forge: Forge) -> None:
    """A script that was edited to `--signed-commits no` refuses instead of asking for less."""
    hook = forge.bare / "hooks" / "pre-receive"
    hook.write_text(hook.read_text().replace("--signed-commits required", "--signed-commits no"))
    forge.commit("notes.md")
    refused = forge.push("HEAD:refs/heads/topic")
    assert not refused.accepted
    assert "--signed-commits: found `no`, expected `required`" in refused.text
