"""A large job from its denial to its start: two leads approve with what they have, and the same job then runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from policyguard.attest.approval import NAMESPACE
from policyguard.cli.verbs.init_ import create_files
from policyguard.confinement.landlock import abi_version
from policyguard.environment.listing import list_files
from policyguard.environment.report import make_baseline
from policyguard.keyfiles import read_private_key
from policyguard.values import format_instant
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import operator_words

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")

CONFINED = pytest.mark.skipif(abi_version()[0] < 1, reason="large jobs are confined, which needs Landlock")

ALICE = {"GIT_AUTHOR_EMAIL": "alice@lab.example", "GIT_COMMITTER_EMAIL": "alice@lab.example"}


@dataclass(frozen=True)
class Lab:
    """`home` is where the operator keeps everything, `job` the repository, `keys` the leads' SSH keys."""

    home: Path
    job: Path
    keys: Path

    @property
    def python(self) -> str:
        """The interpreter of an environment of its own, with a signed baseline, as large jobs need it."""
        return str(self.home / "environment" / "bin" / "python")

    def policyguard(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "POLICYGUARD_CONFIG": str(self.home / "policyguard.yaml"), "PYTHONSAFEPATH": "1"}
        for name in ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME"):
            environment.pop(name, None)
        start = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from policyguard.cli.main import main; main(sys.argv[1:])"
        )
        return subprocess.run(
            [sys.executable, "-c", start, *operator_words(words, self.home / "policyguard.yaml")],
            cwd=self.job,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )

    def ask(self, gpus: int) -> subprocess.CompletedProcess[str]:
        return self.policyguard("run", "--job", str(self.job_file(gpus)), "--", self.python, "train.py")

    def approve(self, who: str, gpus: int, *options: str) -> subprocess.CompletedProcess[str]:
        return self.policyguard(
            "approve",
            "--job",
            str(self.job_file(gpus)),
            "--as",
            f"user:{who}",
            "--reason",
            "reviewed",
            *options,
            "--",
            self.python,
            "train.py",
        )

    def commit(self, message: str) -> None:
        """Commit as alice, with her signature, and push to the operator's repository."""
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={self.keys / 'alice.pub'}")
        git(self.job, *signing, "commit", "-S", "-qam", message, stdin=b"", **ALICE)
        git(self.job, "push", "-q", str(self.home / "trainer.git"), "main")

    def job_file(self, gpus: int) -> Path:
        path = self.home / f"job-{gpus}.yaml"
        path.write_text(f"subject: user:alice\nresource: job:team/vision/run-19\nproperties: {{gpus: {gpus}}}\n")
        return path


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """The example policies with the leads' keys among the allowed signers, and alice's one commit."""
    home, job, keys = tmp_path / "home", tmp_path / "job", tmp_path / "keys"
    create_files(home)
    keys.mkdir()
    lines = []
    for name in ("carol", "dan", "alice"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(keys / name)], check=True)
        lines.append(f'{name}@lab.example namespaces="{NAMESPACE},git" {(keys / f"{name}.pub").read_text().strip()}')
    (home / "allowed_signers").write_text("\n".join(lines) + "\n")
    (home / "approvals").mkdir()
    with (home / "policyguard.yaml").open("a") as file:
        file.write("approvals: approvals\nallowedSigners: allowed_signers\nquota: {file: quota.json}\n")
        file.write("environment: {baseline: baseline.json, keys: [guard.key.pub]}\n")
        file.write("repositories: {team/vision/trainer: {path: trainer.git, refs: [refs/heads/main]}}\n")
    venv.EnvBuilder(symlinks=True, with_pip=False).create(home / "environment")
    listing = list_files(str(home / "environment"))
    (home / "baseline.json").write_bytes(make_baseline(listing, [read_private_key(home / "guard.key")]))
    seen_at = format_instant(time.time_ns() // 10**9 * 10**9)
    quota = {"observed_at": seen_at, "teams": {"vision": {"limit": 1024, "used": 0}}}
    (home / "quota.json").write_text(json.dumps(quota))
    job.mkdir()
    (job / "train.py").write_text("print('trained')\n")
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(home, "init", "-q", "--bare", "-b", "main", "trainer.git")
    made = Lab(home, job, keys)
    made.commit("a job")
    return made


@CONFINED
def test_two_leads_approve_with_ssh_keygen_alone(lab: Lab) -> None:
    """Denied as `needs-approval`, then approved with `ssh-keygen -Y sign`, then the same job runs; 512 GPUs do not."""
    denied = lab.ask(256)
    assert denied.returncode == 77
    assert "quorum `two-leads`" in denied.stderr
    for who in ("carol", "dan"):
        payload = lab.home / "approvals" / f"{who}.json"
        made = lab.approve(who, 256, "--payload", str(payload))
        assert made.returncode == 0, made.stderr
        sign = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(lab.keys / who), str(payload)]
        subprocess.run(sign, check=True, capture_output=True)
        if who == "carol":
            once = lab.ask(256)
            assert once.returncode == 77
            assert "missing  1 more person" in once.stderr
    allowed = lab.ask(256)
    assert (allowed.returncode, allowed.stdout) == (0, "trained\n"), allowed.stderr
    larger = lab.ask(512)
    assert larger.returncode == 77
    assert "approval.other_request" in larger.stderr


@CONFINED
def test_two_leads_approve_with_the_command(lab: Lab) -> None:
    """`policyguard approve --ssh-key` and a ceiling: up to 512 GPUs, and no more, from this tree."""
    for who in ("carol", "dan"):
        made = lab.approve(who, 256, "--limit", "gpus=512", "--ssh-key", str(lab.keys / who))
        assert made.returncode == 0, made.stderr
        assert "warning" not in made.stdout
    signed = str(lab.home / "signed.json")
    job = ("--job", str(lab.job_file(512)), "--", lab.python, "train.py")
    assert lab.policyguard("run", "--out", signed, *job).returncode == 0
    worker = lab.policyguard("verify", signed, "--audience", "local", *job)
    assert (worker.returncode, worker.stdout.split()[0]) == (0, "verified"), worker.stderr
    over = lab.ask(513)
    assert over.returncode == 77
    assert "approval.over_limit" in over.stderr
    listed = lab.policyguard(
        "approve", "--list", "--json", "--job", str(lab.job_file(300)), "--", lab.python, "train.py"
    )
    assert listed.returncode == 0, listed.stderr
    assert [row["standing"] for row in json.loads(listed.stdout)["approvals"]] == ["counts", "counts"]


def test_a_lead_who_wrote_a_part_of_it_does_not_count(lab: Lab) -> None:
    """Scenario 5: co-authorship is enough to be a contributor; and what was approved before is another tree."""
    for who in ("carol", "dan"):
        assert lab.approve(who, 256, "--ssh-key", str(lab.keys / who)).returncode == 0
    (lab.job / "train.py").write_text("print('trained better')\n")
    lab.commit("better\n\nCo-authored-by: Carol <carol@lab.example>")
    stale = lab.ask(256)
    assert stale.returncode == 77
    assert stale.stderr.count("approval.other_tree") == 2
    for who in ("carol", "dan"):
        assert lab.approve(who, 256, "--ssh-key", str(lab.keys / who)).returncode == 0
    denied = lab.ask(256)
    assert denied.returncode == 77
    assert "`user:carol` contributed to what is to be approved" in denied.stderr
