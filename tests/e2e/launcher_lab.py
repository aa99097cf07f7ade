"""A whole small installation for launcher tests: policies, key, trust, log, guard, and a job in a git repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policyguard.attest.keys import PrivateKey
from policyguard.attest.note import NoteKey
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.evidence.collector import JobInputs
from policyguard.evidence.identity import IdentityCollector
from policyguard.evidence.job import JobCollector
from policyguard.evidence.repository import RepositoryCollector
from policyguard.guard import Guard, log_origin
from policyguard.keyfiles import write_private_key
from policyguard.model.request import Request
from tests.attacks.git_lab import git

SCHEMA = """
apiVersion: policyguard/v1
kind: Schema
subjects:
  user:
    attributes:
      uid: {type: int, optional: true, assurance: observed}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit]
    attributes:
      gpus: {type: int, unit: gpu}
"""
"""What the labs of the launcher and of the hook begin with; what follows adds attributes of a job, or a document."""

POLICIES = (
    SCHEMA
    + """\
      argv: {type: list(string), optional: true, assurance: measured}
      directory: {type: string, optional: true, assurance: measured}
      code_injecting_env: {type: "map(string, string)", optional: true, assurance: measured}
      executable: {type: file, optional: true, assurance: measured}
      files: {type: list(file), optional: true, assurance: measured}
      code: {type: code, optional: true, assurance: measured}
records:
  file:
    attributes:
      path: {type: string}
      digest: {type: string}
      size: {type: int, unit: byte}
  code:
    attributes:
      commit: {type: string}
      tree: {type: string}
      dirty: {type: bool}
      dirty_files: {type: list(string)}
      untracked_files: {type: list(string)}
      ignored_code_files: {type: list(string)}
      environments: {type: list(string)}
      outside_links: {type: list(string)}
      submodules: {type: list(string)}
      history: {type: list(string)}
      branch: {type: string, optional: true}
      remote: {type: string, optional: true}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - id: clean-small-jobs
    effect: allow
    subjects: ["user:alice"]
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus <= 8 && !resource.code.dirty && size(resource.code_injecting_env) == 0
"""
)


@dataclass(frozen=True)
class Lab:
    """`job` is the clean repository with `train.py`, which writes `ran` outside of it; `trust` accepts this guard."""

    folder: Path
    job: Path
    ran: Path
    trust: Trust

    def guard(self, *, advisory: bool = False, audience: str = "node-1", lifetime_s: int = 900) -> Guard:
        return Guard.open(
            self.folder / "policies",
            key=self.folder / "guard.key",
            log=self.folder / "audit.db",
            audience=audience,
            lifetime_s=lifetime_s,
            advisory=advisory,
            collectors=(IdentityCollector(), JobCollector(), RepositoryCollector()),
        )

    def inputs(self, argv: Sequence[str] = (), **environment: str) -> JobInputs:
        default = (sys.executable, "train.py", str(self.ran))
        variables = {"PATH": os.defpath, "HOME": str(self.folder), **environment}
        return JobInputs(argv=tuple(argv) or default, directory=str(self.job), environment=variables)


def commit_all(folder: Path) -> None:
    """Commit everything in a repository."""
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "more")


def request(*, gpus: int = 8, user: str = "alice") -> Request:
    """Return a request to submit a job of the vision team."""
    return Request.of(f"user:{user}", "job:submit", "job:team/vision/run-17", gpus=gpus)


def make_lab(folder: Path) -> Lab:
    """Return the installation, made in an empty folder."""
    (folder / "policies").mkdir()
    (folder / "policies" / "jobs.yaml").write_text(POLICIES)
    key = PrivateKey.generate(b"\7" * 32)
    write_private_key(folder / "guard.key", key)
    job = folder / "job"
    job.mkdir()
    (job / "train.py").write_text(
        "import os, sys\n"
        "with open(sys.argv[1], 'w') as ran:\n"
        "    ran.write('\\n'.join(f'{name}={value}' for name, value in sorted(os.environ.items())))\n"
    )
    git(job, "init", "-q", "-b", "main")
    git(job, "add", ".")
    git(job, "commit", "-qm", "a job")
    trust = Trust(
        keys=(TrustedKey(key=key.public),),
        logs=(NoteKey(log_origin(key.public), key.public),),
        audiences=frozenset({"node-1"}),
        min_epoch=1,
    )
    return Lab(folder, job, folder / "ran", trust)
