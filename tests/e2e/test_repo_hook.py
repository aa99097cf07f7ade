"""Real pushes over a file path to a bare repository with the hooks installed: real git, ssh keys and processes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.repo_lab import ROOT, Forge, make_forge


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """A forge whose pre-receive hook judges."""
    return make_forge(tmp_path)


def approve(forge: Forge, approver: str, ref: str, start: str, commit: str) -> None:
    """Sign an approval of the tree of a commit with the approver's ssh key."""
    tree = forge.git(forge.work, "rev-parse", f"{commit}^{{tree}}")
    done = forge.policyguard(
        "approve",
        "--tree",
        tree,
        "--action",
        "repo:push",
        "--resource",
        "repo:team/vision/trainer",
        "--target",
        ref,
        start,
        tree,
        "--as",
        f"user:{approver}",
        "--reason",
        "read it",
        "--ssh-key",
        str(forge.folder / approver),
        POLICYGUARD_CONFIG=str(config(forge)),
    )
    assert done.accepted, done.text


def config(forge: Forge) -> Path:
    path = forge.folder / "approving.yaml"
    path.write_text("approvals: approvals\nallowedSigners: allowed_signers\n")
    return path


def test_a_signed_push_to_a_branch_is_accepted_and_its_decision_logged(forge: Forge) -> None:
    """The branch is there, the pusher saw the decision's id, the log holds it."""
    forge.git(forge.work, "checkout", "-qb", "topic")
    commit = forge.commit("notes.md")
    pushed = forge.push("topic")
    assert pushed.accepted, pushed.text
    assert forge.value("refs/heads/topic") == commit
    (decision,) = forge.decisions()
    assert decision.allowed
    assert decision.reason_codes == ("repo.signed_push",)
    assert decision.requester == "user:alice"
    assert decision.decision_id in pushed.text


def test_main_wants_two_leads(forge: Forge) -> None:
    """Without approvals nothing moves, and the pusher is told whom to ask."""
    before = forge.value()
    forge.commit("notes.md")
    pushed = forge.push("main")
    assert not pushed.accepted
    assert "needs-approval, repo.quorum_main" in pushed.text
    assert "user:carol" in pushed.text
    assert forge.value() == before
    assert [each.allowed for each in forge.decisions()] == [False]


def test_two_approvals_of_this_very_tree_open_main(tmp_path: Path) -> None:
    """One is not enough, two are, and for another tree they count for nothing."""
    forge = make_forge(tmp_path)
    assert forge.install("--approvals", "approvals").accepted
    start = str(forge.value())
    commit = forge.commit("notes.md")
    approve(forge, "carol", "refs/heads/main", start, commit)
    assert not forge.push("main").accepted
    approve(forge, "dan", "refs/heads/main", start, commit)
    more = forge.commit("notes.md", "something else")
    refused = forge.push("main")
    assert not refused.accepted
    assert "approval.other_tree" in refused.text
    pushed = forge.push(f"{commit}:refs/heads/main")
    assert pushed.accepted, pushed.text
    assert forge.value() == commit != more


def test_scenario_22_the_optimizer_wants_somebody_of_infra(tmp_path: Path) -> None:
    """Two leads are not enough for `train/optim`, even if a later commit takes the change back."""
    forge = make_forge(tmp_path)
    assert forge.install("--approvals", "approvals").accepted
    start = str(forge.value())
    forge.commit("train/optim/adamw.py", "lr = 0")
    forge.git(forge.work, "rm", "-rq", "train")
    commit = forge.commit("notes.md")
    for lead in ("carol", "dan"):
        approve(forge, lead, "refs/heads/main", start, commit)
    refused = forge.push("main")
    assert not refused.accepted
    assert "repo.quorum_path" in refused.text
    assert "infra-engineer" in refused.text
    approve(forge, "ines", "refs/heads/main", start, commit)
    pushed = forge.push("main")
    assert pushed.accepted, pushed.text


def test_a_co_author_approves_nothing(tmp_path: Path) -> None:
    """Carol stands in a trailer, so her approval is that of a contributor."""
    forge = make_forge(tmp_path)
    assert forge.install("--approvals", "approvals").accepted
    start = str(forge.value())
    commit = forge.commit("notes.md", message="more\n\nCo-authored-by: Carol <carol@lab.example>")
    for lead in ("carol", "dan"):
        approve(forge, lead, "refs/heads/main", start, commit)
    refused = forge.push("main")
    assert not refused.accepted
    assert "contributed to what is to be approved" in refused.text


def test_scenario_23_main_is_neither_rewritten_nor_deleted(forge: Forge) -> None:
    """A force push is known by ancestry; a deletion by its zeros."""
    before = forge.value()
    forge.git(forge.work, "commit", "-q", "--amend", "-m", "another past")
    for words in (("--force", "main"), (":main",)):
        pushed = forge.push(*words)
        assert not pushed.accepted
        assert "repo.history_protected" in pushed.text
    assert forge.value() == before


def test_work_in_progress_may_be_rewritten(forge: Forge) -> None:
    """The twin: on `wip/**` the same force push and deletion are accepted."""
    forge.git(forge.work, "checkout", "-qb", "wip/alice")
    forge.commit("draft.md")
    assert forge.push("wip/alice").accepted
    forge.git(forge.work, "commit", "-q", "--amend", "-m", "another past")
    pushed = forge.push("--force", "wip/alice")
    assert pushed.accepted, pushed.text
    pushed = forge.push(":wip/alice")
    assert pushed.accepted, pushed.text
    assert forge.value("refs/heads/wip/alice") is None


def test_scenario_24_an_unknown_key_is_no_signer(forge: Forge) -> None:
    """Git says status G with an empty signer; and an unsigned push says nothing at all."""
    forge.git(forge.work, "checkout", "-qb", "topic")
    forge.commit("notes.md")
    for key in ("mallory", None):
        pushed = forge.push("topic", key=key)
        assert not pushed.accepted
        assert "id.unknown_signer" in pushed.text
    assert forge.push("topic").accepted


def test_scenario_25_a_robot_stays_in_its_paths(forge: Forge) -> None:
    """Lock files pass without approvals, code does not."""
    forge.commit("locks/cuda.txt")
    pushed = forge.push("main", user=None, key="ci", SERVICE_USER="ci")
    assert not pushed.accepted
    assert forge.policyguard(
        "repo",
        "install-hook",
        "--policies",
        "policies",
        "--key",
        "guard.key",
        "--log",
        "audit.db",
        "--resource",
        "repo:team/vision/trainer",
        "--pusher",
        "REMOTE_USER",
        "--pusher",
        "SERVICE_USER=service:{}",
        "--allowed-signers",
        "allowed_signers",
        "trainer.git",
    ).accepted
    robot = {"GIT_AUTHOR_EMAIL": "ci@lab.example", "GIT_COMMITTER_EMAIL": "ci@lab.example"}
    pushed = forge.push("main", user=None, key="ci", SERVICE_USER="ci")
    assert pushed.accepted, pushed.text
    forge.commit("train/step.py", **robot)
    pushed = forge.push("main", user=None, key="ci", SERVICE_USER="ci")
    assert not pushed.accepted
    assert "robot.out_of_scope" in pushed.text


def test_all_references_of_a_push_move_or_none(forge: Forge) -> None:
    """A refused branch takes the accepted one with it; both decisions are in the log."""
    forge.git(forge.work, "checkout", "-qb", "topic")
    forge.commit("notes.md")
    forge.git(forge.work, "branch", "-f", "main", "topic")
    pushed = forge.push("topic", "main")
    assert not pushed.accepted
    assert forge.value("refs/heads/topic") is None
    assert sorted(each.allowed for each in forge.decisions()) == [False, True]


def test_a_push_by_nobody_is_refused(forge: Forge) -> None:
    """Without a transport that names the pusher the hook cannot tell."""
    forge.git(forge.work, "checkout", "-qb", "topic")
    forge.commit("notes.md")
    pushed = forge.push("topic", user=None)
    assert not pushed.accepted
    assert "the pusher is unknown" in pushed.text


@pytest.mark.parametrize("missing", ["guard.key", "policies", "allowed_signers"])
def test_a_hook_that_cannot_tell_refuses(forge: Forge, missing: str) -> None:
    """Key, policies or signers gone: one line, no traceback, nothing moves."""
    forge.git(forge.work, "checkout", "-qb", "topic")
    forge.commit("notes.md")
    (forge.folder / missing).rename(forge.folder / "elsewhere")
    pushed = forge.push("topic")
    assert not pushed.accepted
    assert "policyguard: push refused" in pushed.text
    assert "Traceback" not in pushed.text
    (forge.folder / "elsewhere").rename(forge.folder / missing)
    assert forge.push("topic").accepted


def test_pushes_at_the_same_time_are_each_decided_and_logged(forge: Forge) -> None:
    """Four clones push four branches at once; the log verifies afterwards."""
    for number in range(4):
        forge.git(forge.work, "checkout", "-qB", f"topic-{number}", "main")
        forge.commit(f"notes-{number}.md")
    with ThreadPoolExecutor(4) as pool:
        pushed = list(pool.map(lambda number: forge.push(f"topic-{number}"), range(4)))
    assert all(each.accepted for each in pushed), "\n".join(each.text for each in pushed)
    assert len({each.decision_id for each in forge.decisions()}) == 4
    verified = forge.policyguard("audit", "verify", "--log", "audit.db")
    assert verified.accepted, verified.text


def test_the_update_hook_judges_one_reference(tmp_path: Path) -> None:
    """Git tells it of no certificate: alone it sees no signature; it lets through what pre-receive accepted."""
    forge = make_forge(tmp_path, "update")
    forge.git(forge.work, "checkout", "-qb", "topic")
    commit = forge.commit("notes.md")
    alone = forge.push("topic")
    assert not alone.accepted
    assert "the push is not signed" in alone.text
    assert forge.install("--kind", "pre-receive").accepted
    pushed = forge.push("topic")
    assert forge.value("refs/heads/topic") == commit, pushed.text
    assert len(forge.decisions()) == 2


def test_a_local_administrator_is_seen_by_the_transaction_hook(tmp_path: Path) -> None:
    """What pre-receive accepted passes, once; `git update-ref` on the server is judged like a push and refused."""
    forge = make_forge(tmp_path, "pre-receive", "reference-transaction")
    forge.git(forge.work, "checkout", "-qb", "topic")
    first = str(forge.value())
    commit = forge.commit("notes.md")
    pushed = forge.push("topic")
    assert pushed.accepted, pushed.text
    assert len(forge.decisions()) == 1
    for words in (["refs/heads/main", commit], ["-d", "refs/heads/topic"], ["refs/heads/topic", first]):
        done = subprocess.run(
            ["git", "update-ref", *words],
            cwd=forge.bare,
            env=forge.environment(REMOTE_USER="alice"),
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0, done.stderr
    assert forge.value() == first
    assert forge.value("refs/heads/topic") == commit


def test_the_doctor_calls_a_repository_without_a_hook_open(forge: Forge) -> None:
    """Missing, not executable, edited, elsewhere: each is said, and the healthy one has nothing to say."""
    hook = forge.bare / "hooks" / "pre-receive"
    assert forge.install("--kind", "pre-receive", "--kind", "reference-transaction").accepted
    healthy = forge.policyguard("repo", "doctor", "trainer.git")
    assert healthy.accepted, healthy.text
    text = hook.read_bytes()
    hook.chmod(0o644)
    assert "OPEN" in forge.policyguard("repo", "doctor", "trainer.git").text
    hook.write_bytes(text.replace(b"exec", b"true || exec"))
    hook.chmod(0o755)
    assert "was edited" in forge.policyguard("repo", "doctor", "trainer.git").text
    hook.unlink()
    ill = forge.policyguard("repo", "doctor", "trainer.git")
    assert ill.status == 1
    assert "OPEN" in ill.text
    forge.git(forge.bare, "config", "core.hooksPath", "/dev/null")
    assert "core.hooksPath" in forge.policyguard("repo", "doctor", "trainer.git").text


def test_installing_twice_changes_nothing_and_foreign_hooks_stay(forge: Forge) -> None:
    """Idempotent; a hook of somebody else is never overwritten."""
    hook = forge.bare / "hooks" / "pre-receive"
    before = hook.stat()
    again = forge.install()
    assert again.text.startswith("current")
    assert (hook.stat().st_ino, hook.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    hook.write_text("#!/bin/sh\nexit 0\n")
    refused = forge.install()
    assert refused.status == 78
    assert "another hook" in refused.text
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"


def test_check_says_beforehand_what_the_hook_would_say(forge: Forge) -> None:
    """A range or pre-receive lines; 77 for what would be refused; nothing is logged."""
    start, commit = str(forge.value()), forge.commit("notes.md")
    common = (
        "repo",
        "check",
        "--policies",
        "policies",
        "--key",
        "guard.key",
        "--repo",
        "work",
        "--resource",
        "repo:team/vision/trainer",
        "--as",
        "user:alice",
    )
    ranged = forge.policyguard(*common, f"{start}..{commit}")
    assert ranged.status == 77, ranged.text
    assert "repo.quorum_main" in ranged.text or "id.unknown_signer" in ranged.text
    lines = f"{start} {commit} refs/heads/topic\n".encode()
    assert forge.policyguard(*common, "--stdin", "--assume-signed", stdin=lines).status == 0
    assert "refs/heads/topic" in forge.policyguard(*common, "--stdin", stdin=lines).text
    assert forge.policyguard(*common, "nonsense").status == 64
    assert forge.policyguard(*common, "nowhere..main").status == 69
    assert forge.decisions() == []


def test_a_hook_starts_the_package_that_installed_it(tmp_path: Path) -> None:
    """Not another one that the same Python has installed; no module of the standard library is shadowed."""
    forge = make_forge(tmp_path, "pre-receive")
    words = shlex.split((forge.bare / "hooks" / "pre-receive").read_text().splitlines()[-1])
    program = words[words.index("-c") + 1].replace("main()", "print(sys.modules['policyguard'].__file__, sys.path)")
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd="/", env={}, capture_output=True, text=True, check=True
    )
    where, _, path = done.stdout.partition(" ")
    assert Path(where) == ROOT / "policyguard" / "__init__.py"
    assert path.index("lib-dynload") < path.index(f"'{ROOT}'")
