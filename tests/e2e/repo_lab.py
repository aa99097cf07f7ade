"""A whole small forge for push tests: policies, key, log, a bare repository with hooks, clones, ssh keys, real git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.decide.compiled_form import compile_policy
from policyguard.keyfiles import write_private_key
from policyguard.policy.bundle import seal
from policyguard.policy_store.folder import grants_of, policy_set_of_folder

ROOT = Path(__file__).parents[2]
RESOURCE = "repo:team/vision/trainer"


@dataclass(frozen=True)
class Pushed:
    """How a push ended: git's exit status and everything it printed."""

    status: int
    text: str

    @property
    def accepted(self) -> bool:
        return self.status == 0


@dataclass(frozen=True)
class Forge:
    """`bare` is the repository that is pushed to, `work` a clone of it; `REMOTE_USER` says who pushes."""

    folder: Path

    @property
    def bare(self) -> Path:
        return self.folder / "trainer.git"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def git(self, folder: Path, *words: str, stdin: bytes = b"", **variables: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=self.environment(**variables),
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return done.stdout.decode("utf-8", "replace").strip()

    def environment(self, **variables: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "alice",
            "GIT_AUTHOR_EMAIL": "alice@lab.example",
            "GIT_COMMITTER_NAME": "alice",
            "GIT_COMMITTER_EMAIL": "alice@lab.example",
            **variables,
        }

    def commit(self, path: str, text: str = "x", *, message: str = "a change", **variables: str) -> str:
        """Commit one file in the clone and return the commit's id."""
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.git(self.work, "add", "-A")
        self.git(self.work, "commit", "-qm", message, stdin=b"", **variables)
        return self.git(self.work, "rev-parse", "HEAD")

    def push(self, *words: str, user: str | None = "alice", key: str | None = "alice", **variables: str) -> Pushed:
        """Push from the clone, signed with an ssh key unless `key` is None, as the user the transport names."""
        if user is not None:
            variables = {"REMOTE_USER": user, **variables}
        signing = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={self.folder / str(key)}.pub"]
        done = subprocess.run(
            ["git", *signing, "push", *(["--signed=yes"] if key else []), "origin", *words],
            cwd=self.work,
            env=self.environment(**variables),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            # Within one second the same push has the same certificate, which counts once.
            second = int(time.time())
            while int(time.time()) == second:
                time.sleep(0.02)
        return Pushed(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def policyguard(self, *words: str, stdin: bytes = b"", **variables: str) -> Pushed:
        done = subprocess.run(
            [sys.executable, "-m", "policyguard", *words],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            env=self.environment(PYTHONPATH=str(ROOT), **variables),
            check=False,
        )
        return Pushed(done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace"))

    def install(self, *words: str) -> Pushed:
        return self.policyguard(
            "repo",
            "install-hook",
            "--policies",
            "policies",
            "--key",
            "guard.key",
            "--log",
            "audit.db",
            "--resource",
            RESOURCE,
            "--pusher",
            "REMOTE_USER",
            "--allowed-signers",
            "allowed_signers",
            *words,
            "trainer.git",
        )

    def value(self, ref: str = "refs/heads/main") -> str | None:
        """Return what a reference of the forge points to."""
        done = subprocess.run(
            ["git", "rev-parse", "-q", "--verify", ref],
            cwd=self.bare,
            env=self.environment(),
            capture_output=True,
            check=False,
        )
        return done.stdout.decode().strip() or None

    def decisions(self) -> list[Predicate]:
        """Return every decision of the log, oldest first."""
        if not (self.folder / "audit.db").exists():
            return []
        with SqliteStore.open(self.folder / "audit.db", read_only=True) as store:
            leaves = [row.leaf for row in store.read(0, 10_000) if DECISION_ENTRY.matches(row.leaf)]
            return [parse_statement(parse(leaf).payload).predicate for leaf in leaves]


@cache
def snapshot() -> bytes:
    """Return the example policies, compiled: hooks start faster with a snapshot."""
    policy_set = policy_set_of_folder(ROOT / "policies")
    return seal(compile_policy(policy_set, grants_of(policy_set)), [PrivateKey.generate(b"\7" * 32)])


def make_forge(folder: Path, *names: str) -> Forge:
    """Return a forge with hooks `names` (pre-receive if none), whose main branch holds two commits by alice."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed, with which git signs")
    forge = Forge(folder)
    (folder / "policies").write_bytes(snapshot())
    write_private_key(folder / "guard.key", PrivateKey.generate(b"\7" * 32))
    lines = []
    for name in ("alice", "bob", "carol", "dan", "ines", "ci", "mallory"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True)
        kind, key, _ = (folder / f"{name}.pub").read_text().split(" ", 2)
        account = "service:ci" if name == "ci" else f"user:{name}"
        lines += [f"{account} {kind} {key}\n"] if name != "mallory" else []
    (folder / "allowed_signers").write_text("".join(lines))
    forge.git(folder, "init", "-q", "--bare", "-b", "main", "trainer.git")
    for name, value in (
        ("receive.certNonceSeed", "seed"),
        ("receive.advertisePushOptions", "true"),
        ("gpg.format", "ssh"),
        ("gpg.ssh.allowedSignersFile", str(folder / "allowed_signers")),
    ):
        forge.git(forge.bare, "config", name, value)
    forge.git(folder, "init", "-q", "-b", "main", "work")
    forge.git(forge.work, "remote", "add", "origin", str(forge.bare))
    for path in ("README.md", "train/optim/__init__.py"):
        forge.commit(path, "the trainer")
    forge.git(forge.work, "push", "-q", "origin", "main")
    installed = forge.install(*(word for name in names or ("pre-receive",) for word in ("--kind", name)))
    assert installed.accepted, installed.text
    return forge
