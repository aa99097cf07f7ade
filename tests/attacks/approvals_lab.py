"""A job in a real repository, people with real keys, a quorum of two leads, and whatever stands in the folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from policyguard.attest.approval import NAMESPACE, ApprovalStatement, ApprovalTarget, approval_statement
from policyguard.attest.keys import PrivateKey
from policyguard.attest.sshsig import SshKey, sign
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.evidence.approvals.collectors import ReviewedRepositoryCollector, ReviewFiles, job_target
from policyguard.evidence.collector import JobInputs, gather
from policyguard.evidence.repository import code_record
from policyguard.model.decision import Decision
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from policyguard.values import NANOSECONDS_PER_S, Instant, Value
from tests.attacks.git_lab import git

NOW: Instant = 1_900_000_000 * NANOSECONDS_PER_S
HOUR: Instant = 3600 * NANOSECONDS_PER_S

NAMES = ("alice", "carol", "dan", "erin", "mallory", "ssh-only")
KEYS = {name: PrivateKey(bytes([number]) * 32) for number, name in enumerate(NAMES, 1)}

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit]
    attributes:
      gpus: {type: int}
      queue: {type: string, optional: true}
      code: {type: code, assurance: measured}
records:
  code:
    attributes: {commit: {type: string}, tree: {type: string}, dirty: {type: bool}, dirty_files: {type: list(string)},
                 untracked_files: {type: list(string)}, ignored_code_files: {type: list(string)},
                 environments: {type: list(string)}, outside_links: {type: list(string)},
                 submodules: {type: list(string)}, history: {type: list(string)},
                 branch: {type: string, optional: true}, remote: {type: string, optional: true}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: researcher}, {name: lead}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings:
  - {subject: "user:alice", role: researcher, domain: vision}
  - {subject: "user:carol", role: lead, domain: vision}
  - {subject: "user:dan", role: lead, domain: vision}
  - {subject: "user:dan-admin", role: lead, domain: vision}
  - {subject: "user:alice-lead", role: lead, domain: vision}
  - {subject: "user:erin", role: researcher, domain: vision}
---
apiVersion: policyguard/v1
kind: Persons
persons:
  - {id: alice, accounts: ["user:alice", "user:alice-lead"], emails: [a@lab], keys: ["ALICE"]}
  - {id: carol, accounts: ["user:carol"], emails: [carol@lab], keys: ["CAROL"]}
  - {id: dan, accounts: ["user:dan", "user:dan-admin"], emails: [dan@lab], keys: ["DAN"]}
  - {id: erin, accounts: ["user:erin"], emails: [erin@lab], keys: ["ERIN"]}
---
apiVersion: policyguard/v1
kind: Quorums
quorums: [{id: two-leads, approvers: [{count: 2, roles: [lead]}], maxAge: 48h}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: clean, effect: allow, roles: [researcher, lead], actions: ["job:submit"], resources: {type: job},
     when: "!resource.code.dirty"}
  - {id: large, effect: require, actions: ["job:submit"], resources: {type: job}, when: resource.gpus >= 256,
     quorum: two-leads}
"""


def snapshot() -> Snapshot:
    """Return the policies with everybody's keys."""
    text = POLICIES
    for name in ("alice", "carol", "dan", "erin"):
        text = text.replace(f'"{name.upper()}"', f'"{KEYS[name].public.text}"')
    policy_set = load({"lab.yaml": text.encode()})
    return Snapshot.of(policy_set, grants_of(policy_set))


SNAPSHOT = snapshot()


@dataclass(frozen=True)
class Lab:
    """`root` is the repository, `folder` holds approvals, `files` what the operator pins."""

    root: Path
    folder: Path
    files: ReviewFiles
    request: Request
    inputs: JobInputs
    now: Instant = NOW
    options: Mapping[str, object] = field(default_factory=dict)

    def asking(self, **properties: Value) -> Lab:
        return replace(
            self, request=Request.of("user:alice", "job:submit", "job:team/vision/run-19", context=None, **properties)
        )

    def pinning(self, **files: Path) -> Lab:
        known = {name: getattr(self.files, name) for name in self.files.__struct_fields__}
        return replace(self, files=ReviewFiles(**{**known, **files}))

    def pin(self, name: str, text: str, mode: int = 0o644) -> Lab:
        path = self.folder.parent / name
        path.write_text(text)
        path.chmod(mode)
        return self.pinning(**{name: path})

    @property
    def target(self) -> ApprovalTarget:
        record = code_record(str(self.root), {self.root.stat().st_uid}, time.monotonic() + 5)
        return job_target(self.request, self.inputs, record, str(self.root))

    def statement(self, who: str = "carol", **changes: object) -> ApprovalStatement:
        """Return what a lead would sign for this very request; `changes` replace parts of it."""
        target = self.target
        parts: dict[str, object] = {
            "subjects": {**target.measured_digests, "request": target.request_digest},
            "action": "job:submit",
            "resource": "job:team/vision/run-19",
            "approver": f"user:{who}",
            "reason": "reviewed",
            "approved_at": NOW - HOUR,
            "expires": NOW + HOUR,
        }
        return approval_statement(**{**parts, **changes})  # type: ignore[arg-type]

    def put(
        self,
        who: str,
        payload: bytes | None = None,
        *,
        key: str | None = None,
        namespace: str = NAMESPACE,
        over: bytes | None = None,
        name: str | None = None,
        **changes: object,
    ) -> Path:
        """Write an approval and its SSH signature as `ssh-keygen -Y sign` leaves them; `over` is what is signed."""
        content = self.statement(who, **changes).payload if payload is None else payload
        path = self.folder / f"{name or who}.json"
        path.write_bytes(content)
        signature = sign(content if over is None else over, namespace, KEYS[key or who])
        path.with_name(path.name + ".sig").write_bytes(signature)
        return path

    def decide(self) -> Decision:
        collector = ReviewedRepositoryCollector(SNAPSHOT.people, self.files, uid=0, **self.options)  # type: ignore[arg-type]
        return Engine(SNAPSHOT).decide(gather(self.request, (collector,), self.inputs, lambda: self.now), self.now)


def because(decision: Decision) -> tuple[str, ...]:
    """Return why approvals do not count."""
    return tuple(line for gap in decision.unmet_approvals for line in gap.because)


def codes(decision: Decision) -> set[str]:
    """Return the reason codes among these."""
    return {line.partition(":")[0] for line in because(decision) if line.startswith("approval.")}


def ssh_line(name: str) -> str:
    """Return the public key line of somebody's key."""
    return SshKey(KEYS[name].public.raw).text


def make_lab(folder: Path, *, gpus: int = 256) -> Lab:
    """Return a lab of one commit by alice, who asks for a large job; nobody has approved it."""
    root, approvals = folder / "job", folder / "approvals"
    root.mkdir()
    approvals.mkdir()
    (root / "train.py").write_text("print('trained')\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "a job")
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-19", gpus=gpus)
    inputs = JobInputs(argv=("python3", "train.py"), directory=str(root))
    return Lab(root, approvals, ReviewFiles(approvals=approvals), request, inputs)
