"""Approvals of work, asked for by `policyguard run`: the job starts under two leads' approvals, and nothing less."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.keys import PrivateKey
from policyguard.attest.sshsig import SshKey
from policyguard.evidence.collector import JobInputs
from policyguard.hooks.stdio import open_guard, read_options, respond
from policyguard.keyfiles import write_private_key
from policyguard.values import NANOSECONDS_PER_S
from tests.attacks.approvals_lab import KEYS, POLICIES, Lab, make_lab
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import LOGIN, Ended, operator_words

CONFIG = "policies: policies\nkey: guard.key\nlog: audit.db\napprovals: approvals\nrevokedKeys: revoked\n"


@dataclass(frozen=True)
class RunLab:
    """The lab of approvals with a guard around it: `ran` is what the job makes if it starts."""

    lab: Lab
    here: Callable[..., Ended]
    ran: Path

    def run(self, gpus: int = 256) -> Ended:
        self.home.joinpath("job.yaml").write_text(
            f"subject: user:alice\nresource: job:team/vision/run-19\nproperties: {{gpus: {gpus}}}\n"
        )
        words = ("run", "--job", str(self.home / "job.yaml"), "--", *self.lab.inputs.argv)
        return self.here(*operator_words(words, self.home / "policyguard.yaml"))

    @property
    def home(self) -> Path:
        return self.lab.folder.parent

    def put(self, who: str, *, made_s: int = -60, lasts_s: int = 1800, **changes: Any) -> None:
        """Write somebody's approval of this very job, made so many seconds ago."""
        made = (time.time_ns() // NANOSECONDS_PER_S + made_s) * NANOSECONDS_PER_S
        self.lab.put(who, approved_at=made, expires=made + lasts_s * NANOSECONDS_PER_S, **changes)

    def commit(self, mail: str) -> None:
        """Add somebody's commit to what is to run."""
        (self.lab.root / "train.py").write_text("print('trained better')\n")
        git(self.lab.root, "commit", "-qam", "better", GIT_AUTHOR_EMAIL=mail)


@pytest.fixture
def running(tmp_path: Path, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> RunLab:
    """The lab, its repository the current folder; carol has approved, so that one more lead is missing."""
    lab = make_lab(tmp_path)
    ran = tmp_path / "ran"
    lab = replace(lab, inputs=JobInputs(argv=("touch", str(ran)), directory=str(lab.root)))
    text = POLICIES
    for name in ("alice", "carol", "dan", "erin"):
        text = text.replace(f'"{name.upper()}"', f'"{KEYS[name].public.text}"')
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "lab.yaml").write_text(text)
    write_private_key(tmp_path / "guard.key", PrivateKey.generate(b"r" * 32))
    (tmp_path / "revoked").write_text("")
    (tmp_path / "policyguard.yaml").write_text(f"{CONFIG}speakFor: [{LOGIN}]\n")
    monkeypatch.setenv("POLICYGUARD_CONFIG", str(tmp_path / "policyguard.yaml"))
    monkeypatch.chdir(lab.root)
    made = RunLab(lab, here, ran)
    made.put("carol")
    return made


def forge(lab: RunLab) -> None:
    lab.put("dan", over=b"{}")


def sign_as_nobody(lab: RunLab) -> None:
    lab.put("dan", key="mallory")


def sign_for_git(lab: RunLab) -> None:
    lab.put("dan", namespace="git")


def let_expire(lab: RunLab) -> None:
    lab.put("dan", made_s=-3600, lasts_s=1800)


def revoke(lab: RunLab) -> None:
    lab.put("dan")
    (lab.home / "revoked").write_text(SshKey(KEYS["dan"].public.raw).fingerprint + "\n")


def approve_another_tree(lab: RunLab) -> None:
    lab.put("dan")
    lab.commit("a@lab")
    lab.put("carol")


def approve_another_command(lab: RunLab) -> None:
    other = replace(lab.lab, inputs=JobInputs(argv=("touch", "elsewhere"), directory=str(lab.lab.root)))
    replace(lab, lab=other).put("dan")


def approve_a_smaller_job(lab: RunLab) -> None:
    subjects = lab.lab.target.measured_digests
    lab.put("dan", subjects=subjects, limits={"gpus": 128})


def approve_by_the_requesters_second_account(lab: RunLab) -> None:
    lab.put("alice", approver="user:alice-lead")


def approve_by_a_contributors_second_account(lab: RunLab) -> None:
    lab.commit("dan@lab")
    lab.put("dan", approver="user:dan-admin")
    lab.put("carol")


REFUSED: dict[str, tuple[Callable[[RunLab], None], str]] = {
    "forged": (forge, "approval.forged"),
    "signed by nobody known": (sign_as_nobody, "approval.unknown_signer"),
    "signed for something else": (sign_for_git, "approval.wrong_namespace"),
    "expired": (let_expire, "approval.expired"),
    "by a revoked key": (revoke, "approval.revoked_key"),
    "replayed for another tree": (approve_another_tree, "approval.other_tree"),
    "replayed for another command": (approve_another_command, "approval.other_command"),
    "for a smaller job": (approve_a_smaller_job, "approval.over_limit"),
    "by the requester's second account": (approve_by_the_requesters_second_account, "approval.same_person"),
    "by a contributor's second account": (approve_by_a_contributors_second_account, "approval.contributor"),
}


@pytest.mark.parametrize(("spoil", "code"), REFUSED.values(), ids=list(REFUSED))
def test_no_job_starts_under_such_an_approval(spoil: Callable[[RunLab], None], code: str, running: RunLab) -> None:
    """Denied with a code of its own and who is missing; nothing ran, and the denial is in the log."""
    spoil(running)
    ended = running.run()
    assert (ended.code, ended.out, running.ran.exists()) == (77, "", False), ended.err
    assert f"{code}: " in ended.err
    assert "missing  1 more person with role `lead` in `vision`" in ended.err
    assert "Traceback" not in ended.err
    assert running.here("audit", "tail", "--json").data["decision"] == "deny"


def test_the_job_starts_under_two_leads_approvals(running: RunLab) -> None:
    """The twin: alone denied, with dan's allowed, and again where the quorum does not count once; not 512 GPUs."""
    assert running.run().code == 77
    running.put("dan")
    assert running.run().code == 0
    assert running.ran.exists()
    assert running.run().code == 0
    assert "approval.other_request" in running.run(512).err


def test_a_quorum_that_counts_once_starts_one_job(running: RunLab) -> None:
    """With `once: true` the second start needs new approvals."""
    policies = running.home / "policies" / "lab.yaml"
    policies.write_text(policies.read_text().replace("maxAge: 48h", "maxAge: 48h, once: true"))
    running.put("dan")
    assert running.run().code == 0
    running.ran.unlink()
    again = running.run()
    assert (again.code, running.ran.exists()) == (77, False)
    assert again.err.count("approval.used: ") == 2
    for who in ("carol", "dan"):
        running.put(who, made_s=-30)
    assert running.run().code == 0


def test_a_quorum_of_the_request_makes_no_difference_to_a_launcher(running: RunLab) -> None:
    """I9: whatever the quorum says, a launcher starts a command, so that tree and command must be approved."""
    policies = running.home / "policies" / "lab.yaml"
    policies.write_text(policies.read_text().replace("maxAge: 48h", "maxAge: 48h, of: request"))
    digest = running.lab.target.request_digest
    running.put("dan", subjects={"request": digest})
    running.put("carol", subjects={"request": digest})
    ended = running.run()
    assert ended.code == 77
    assert ended.err.count("approval.no_command") == 2
    running.put("dan")
    running.put("carol")
    assert running.run().code == 0


def test_a_hook_that_measures_reads_approvals_of_the_tree(running: RunLab) -> None:
    """A hook knows the tree and no command: what is approved for any command counts, for one command it does not."""
    request = (
        b'{"subject":{"type":"user","id":"alice"},"action":{"name":"job:submit"},'
        b'"resource":{"type":"job","id":"team/vision/run-19","properties":{"gpus":256}}}'
    )

    def hook() -> tuple[bytes, int]:
        return respond(
            request, lambda: open_guard(read_options(["--measure", "--config", str(running.home / "policyguard.yaml")]))
        )

    running.put("dan")
    answer, code = hook()
    assert code == 77
    assert b"approval.no_command" in answer
    target = running.lab.target
    subjects = {"tree": target.measured_digests["tree"], "request": target.request_digest}
    for who in ("carol", "dan"):
        running.put(who, subjects=subjects)
    assert hook()[1] == 77
    for who in ("carol", "dan"):
        running.put(who, subjects=subjects, any_command=True)
    answer, code = hook()
    assert code == 0, answer
