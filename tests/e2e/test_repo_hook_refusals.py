"""What lets nothing through: unmeasurable pushes under a careless policy, kept decisions used for something else."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.repo_lab import Forge, make_forge

CARELESS = """
apiVersion: policyguard/v1
kind: Schema
subjects:
  user: {}
resources:
  repo:
    id: "team/{team}/*"
    actions: [push, rewrite]
    attributes:
      ref: {type: string, optional: true, assurance: observed}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: careless, owner: nobody}
rules:
  - id: everything
    effect: allow
    actions: ["repo:push", "repo:rewrite"]
    resources: {type: repo}
"""


def update_ref(forge: Forge, *words: str, user: str = "alice") -> int:
    done = subprocess.run(
        ["git", "update-ref", *words],
        cwd=forge.bare,
        env=forge.environment(REMOTE_USER=user),
        capture_output=True,
        check=False,
    )
    return done.returncode


def test_a_push_that_cannot_be_measured_is_refused_whatever_the_policies_say(tmp_path: Path) -> None:
    """The policies allow everything; a replaced history is refused all the same; its twin without passes."""
    forge = make_forge(tmp_path)
    (tmp_path / "careless").mkdir()
    (tmp_path / "careless" / "policy.yaml").write_text(CARELESS)
    assert forge.install("--policies", "careless").accepted
    first = str(forge.value())
    forge.git(forge.work, "checkout", "-qb", "topic")
    second = forge.commit("notes.md")
    replacement = forge.bare / "refs" / "replace"
    replacement.mkdir()
    (replacement / second).write_text(first + "\n")
    pushed = forge.push("topic")
    assert not pushed.accepted
    assert "cannot be decided" in pushed.text
    assert "replace_refs" in pushed.text
    assert forge.value("refs/heads/topic") is None
    assert len(forge.decisions()) == 1
    (replacement / second).unlink()
    assert forge.push("topic").accepted


def test_a_stored_decision_lets_through_nothing_else(tmp_path: Path) -> None:
    """Accepted by pre-receive and kept: not for another ref, another pusher, changed bytes, or a second time."""
    forge = make_forge(tmp_path, "pre-receive")
    first = str(forge.value())
    forge.git(forge.work, "checkout", "-qb", "topic")
    commit = forge.commit("notes.md")
    assert forge.push("topic").accepted
    (kept,) = (forge.bare / "policyguard-accepted").glob("*.json")
    forge.git(forge.bare, "update-ref", "-d", "refs/heads/topic")
    assert forge.install("--kind", "reference-transaction").accepted
    assert update_ref(forge, "refs/heads/other", commit) != 0
    assert update_ref(forge, "refs/heads/topic", first) != 0
    assert update_ref(forge, "refs/heads/topic", commit, user="bob") != 0
    text = kept.read_bytes()
    kept.write_bytes(text.replace(b'"sig":"', b'"sig":"A'))
    assert update_ref(forge, "refs/heads/topic", commit) != 0
    kept.write_bytes(text)
    assert update_ref(forge, "refs/heads/topic", commit) == 0
    assert forge.value("refs/heads/topic") == commit
    assert update_ref(forge, "-d", "refs/heads/topic") != 0


def test_a_push_from_another_value_than_the_references_is_refused(tmp_path: Path) -> None:
    """INVARIANT I19: the old id is the pusher's word; the decision would be signed over it. The true one is judged."""
    forge = make_forge(tmp_path)
    first, second = str(forge.value()), forge.commit("notes.md")
    for old, ref, said in (
        (second, "refs/heads/main", "is at"),
        ("0" * 40, "refs/heads/main", "is at"),
        (first, "refs/heads/topic", "is at `nothing`"),
    ):
        told = hook(forge, f"{old} {second} {ref}\n")
        assert (told.returncode, said in told.stderr.decode()) == (69, True)
    assert forge.decisions() == []
    assert hook(forge, f"{first} {first} refs/heads/main\n").returncode == 77
    assert len(forge.decisions()) == 1


def hook(forge: Forge, text: str) -> subprocess.CompletedProcess[bytes]:
    """Run the installed hook as git would, with these updates."""
    return subprocess.run(
        [forge.bare / "hooks" / "pre-receive"],
        cwd=forge.bare,
        env=forge.environment(REMOTE_USER="alice"),
        input=text.encode(),
        capture_output=True,
        check=False,
    )


def test_housekeeping_and_deletions_pass_the_transaction_hook(tmp_path: Path) -> None:
    """`git gc` packs references without asking; an accepted deletion of a packed branch passes, once."""
    forge = make_forge(tmp_path, "pre-receive", "reference-transaction")
    forge.git(forge.work, "checkout", "-qb", "wip/alice")
    commit = forge.commit("draft.md")
    assert forge.push("wip/alice").accepted
    forge.git(forge.bare, "pack-refs", "--all")
    forge.git(forge.bare, "gc", "-q")
    assert forge.value("refs/heads/wip/alice") == commit
    assert len(forge.decisions()) == 1
    pushed = forge.push(":wip/alice")
    assert pushed.accepted, pushed.text
    assert forge.value("refs/heads/wip/alice") is None
    assert len(forge.decisions()) == 2
