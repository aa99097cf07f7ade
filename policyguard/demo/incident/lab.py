"""The lab of the replay: example policies, keys, a log, a repository, an installed environment, shared weights.

Everything is in one new folder, and nothing outside is changed. The persons are those of the example lab. What a
scheduler would report about a job (owner, victims, drained nodes) is passed as `hook --observed` passes it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import struct
import subprocess
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from policyguard.attest.approval import APPROVAL_PAYLOAD_TYPE, approval_statement
from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey, PublicKey
from policyguard.attest.sshsig import sign as sign_ssh
from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.log import Log
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.files import replace_file, write_new
from policyguard.cli.jobs import configured_collectors
from policyguard.cli.verbs.init_ import create_files
from policyguard.config.file import Config, read_config
from policyguard.environment.bytecode import check_bytecode
from policyguard.environment.listing import list_files
from policyguard.environment.report import make_baseline
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.approvals.collectors import job_target
from policyguard.evidence.collector import Collectors, JobInputs
from policyguard.evidence.platform import ChannelCollector
from policyguard.evidence.repository import code_record
from policyguard.git.directory import find_gitdir
from policyguard.guard import Guard
from policyguard.keyfiles import read_private_key, write_public_key
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot, stamp_of
from policyguard.values import EMPTY_MAP, NANOSECONDS_PER_S, FrozenMap, Value, format_instant

CONFIG = """
environment: {baseline: baseline.json, keys: [build.key.pub]}
checkpoints: {producers: {"user:bob": [bob.key.pub]}}
quota: {file: quota.json}
approvals: approvals
allowedSigners: signers
reviewedCommits: reviewed
signedCommits: required
repositories: {team/vision/trainer: {path: trainer.git, refs: ["refs/heads/**"]}}
grants: {folder: grants, keys: [carol.key.pub, dan.key.pub]}
"""

TRAIN = '''\
"""A small training job: fits y = 3x with the optimizer that is installed."""

import os
import sys
import time

from labtorch.optim import step

weight, until = 0.0, sys.argv[1]
with open(f"{until}.pid", "w") as file:
    file.write(str(os.getpid()))
for epoch in range(600):
    gradient = sum(2 * x * (weight * x - 3.0 * x) for x in range(1, 5)) / 4
    weight = step(weight, gradient)
    if os.path.exists(until):
        break
    time.sleep(0.05)
with open(f"{until}.weight", "w") as file:
    file.write(f"{weight:.3f}")
'''

OPTIMIZER = '''\
"""Plain gradient descent, as the framework ships it."""


def step(weight, gradient, rate=0.05):
    return weight - rate * gradient
'''

GIT_IDENTITY = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
PEOPLE = ("alice", "bob", "carol", "dan", "ivan", "ines", "omar")


@dataclass(slots=True)
class Lab:
    """The folder of the lab, and the guard that protects it."""

    root: Path
    config: Config = field(init=False)
    keys: dict[str, PrivateKey] = field(init=False, default_factory=dict)
    store: SqliteStore = field(init=False)
    log: Log = field(init=False)
    trust: Trust = field(init=False)

    def __post_init__(self) -> None:
        if os.path.lexists(self.root):
            raise ConfigurationError(f"{self.root}: exists already, expected a new folder")
        create_files(self.root)
        for name in ("code", "shared", "runs", "approvals", "grants", "witness", "out"):
            (self.root / name).mkdir()
        for name in (*PEOPLE, "build"):
            self.keys[name] = PrivateKey.generate(os.urandom(32))
            write_public_key(self.root / f"{name}.key.pub", self.keys[name].public)
        self.set_quota(limit=1024, used=128)
        write_new(self.root / "reviewed", b"# commits that were reviewed before\n")
        write_new(self.root / "signers", _allowed_signers(self.keys).encode())
        self._build_environment()
        self._build_repository()
        settings = self.root / "policyguard.yaml"
        replace_file(settings, settings.read_bytes() + CONFIG.encode())
        self.config = read_config(settings)
        key = read_private_key(self.root / "guard.key")
        self.store = SqliteStore.open(self.root / "audit.db", create_as=f"policyguard/{key.public.keyid[:16]}")
        self.log = Log.open(self.store, key, self.store.origin)
        snapshot = load_snapshot(self.root / "policies", ())
        self.trust = Trust(
            keys=(TrustedKey(key=key.public),),
            logs=(self.log.verifier,),
            audiences=frozenset({"local"}),
            policy_digests=frozenset({snapshot.policy_digest}),
        )

    # ---- contents

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def environment(self) -> Path:
        return self.root / "environment"

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    @property
    def site(self) -> Path:
        return next(self.environment.glob("lib/python*/site-packages"))

    @property
    def optimizer(self) -> Path:
        return self.site / "labtorch" / "optim.py"

    def set_quota(self, *, limit: int, used: int) -> None:
        """Set the quota and the usage that the fake scheduler reports."""
        now = format_instant(time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S)
        quota = {"observed_at": now, "teams": {"vision": {"limit": limit, "used": used}}}
        replace_file(self.root / "quota.json", json.dumps(quota).encode())

    def git(self, *arguments: str, who: str = "alice") -> str:
        """Run git in the repository under this name; as in real life, names in commits are only claims.

        Raises:
            EvidenceError: git fails.
        """
        identity = {
            f"GIT_{role}_{part}": who if part == "NAME" else f"{who}@lab.example"
            for role in ("AUTHOR", "COMMITTER")
            for part in ("NAME", "EMAIL")
        }
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.root), **GIT_IDENTITY, **identity}
        ended = subprocess.run(
            ["git", *arguments], cwd=self.code, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise EvidenceError(f"`git {arguments[0]}` failed: {ended.stderr.strip()}")
        return ended.stdout.strip()

    def commit(self, message: str, *, who: str = "alice") -> None:
        """Commit all changes, sign the commit with this person's key, and push it to the lab's repository."""
        self.git("add", "--all", who=who)
        self.git("commit", "--quiet", "--message", message, who=who)
        content = (self.git("cat-file", "commit", "HEAD") + "\n").encode()
        head, _, text = content.partition(b"\n\n")
        signature = sign_ssh(content, "git", self.keys[who]).rstrip(b"\n").replace(b"\n", b"\n ")
        signed = self.root / "out" / "commit"
        signed.write_bytes(head + b"\ngpgsig " + signature + b"\n\n" + text)
        self.git("update-ref", "HEAD", self.git("hash-object", "-t", "commit", "-w", str(signed)))
        signed.unlink()
        self.git("push", "--quiet", str(self.root / "trainer.git"), "HEAD:refs/heads/main")

    # ---- requests

    def job(
        self,
        who: str,
        name: str,
        gpus: int,
        *,
        argv: Sequence[str] = (),
        checkpoints: Sequence[Path] = (),
        action: str = "job:submit",
        **variables: str,
    ) -> tuple[Request, JobInputs]:
        """Build the request and the inputs of a job that runs the lab's training script.

        Args:
            who: the requester.
            name: the name of the job.
            gpus: how many it asks for.
            argv: the command.
            checkpoints: the checkpoints that the job names.
            action: what is asked.
        """
        request = Request.of(f"user:{who}", action, f"job:team/vision/{name}", gpus=gpus)
        inputs = JobInputs(
            argv=tuple(argv) or (self.python, "train.py", str(self.root / "out" / name)),
            directory=str(self.code),
            environment={"PATH": os.defpath, "HOME": str(self.root), **variables},
            checkpoints=tuple(str(path) for path in checkpoints),
        )
        return request, inputs

    def guard(self, *, policies: Path | None = None) -> Guard:
        """Build the same guard that `policyguard run` opens."""
        return self._guard(configured_collectors(self.config), policies)

    def decide(self, request: Request, inputs: JobInputs, *, policies: Path | None = None) -> SignedDecision:
        """Decide about a job, sign and log.

        Args:
            request: the request.
            inputs: the job.
            policies: the folder of policies; None for the lab's own.
        """
        return self.guard(policies=policies).decide(request, inputs)

    def ask(self, who: str, action: str, resource: str, *, ticket: str = "", **observed: Value) -> SignedDecision:
        """Decide about a request of the scheduler or the forge, sign and log.

        Args:
            who: the requester.
            action: what is asked.
            resource: of which resource.
            ticket: the ticket that the request names.
        """
        context = {"ticket": ticket} if ticket else {}
        subject = who if ":" in who else f"user:{who}"
        request = Request.of(subject, action, resource, context=context, **observed)
        paths = [*(f"resource.{name}" for name in observed), *(f"context.{name}" for name in context)]
        return self._guard((ChannelCollector(paths),), None).decide(request)

    def guard_with(self, collectors: Collectors) -> Guard:
        """Build a guard with the given collectors."""
        return self._guard(collectors, None)

    def _guard(self, collectors: Collectors, policies: Path | None) -> Guard:
        folder = policies or self.root / "policies"
        return Guard(
            load_snapshot(folder, ()),
            read_private_key(self.root / "guard.key"),
            self.log,
            collectors=collectors,
            reload=lambda: load_snapshot(folder, ()),
            stamp=lambda: stamp_of(folder),
        )

    def approve(self, who: str, request: Request, inputs: JobInputs, *, signer: str = "", **limits: Value) -> None:
        """Store an approval of this job, signed by `who` or, as a forgery, by somebody else.

        Args:
            who: the account that the approval names.
            request: the request.
            inputs: the job.
            signer: whose key signs.
        """
        owners = {os.geteuid(), 0}
        record = code_record(str(self.code), owners, time.monotonic() + 15)
        target = job_target(request, inputs, record, find_gitdir(str(self.code), owners).root)
        subjects = (
            dict(target.measured_digests) if limits else {**target.measured_digests, "request": target.request_digest}
        )
        now = time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S
        statement = approval_statement(
            subjects=subjects,
            action=request.action,
            resource=request.resource.ref,
            approver=f"user:{who}",
            reason="reviewed",
            approved_at=now,
            expires=now + 3600 * NANOSECONDS_PER_S,
            limits=FrozenMap(limits) if limits else EMPTY_MAP,
        )
        envelope = sign(statement.payload, APPROVAL_PAYLOAD_TYPE, [self.keys[signer or who]])
        name = f"{who}-by-{signer or who}-{os.urandom(4).hex()}.json"
        write_new(self.root / "approvals" / name, envelope.to_bytes())

    # ---- building

    def _build_environment(self) -> None:
        """Install a package with its RECORD, and sign the list of files as the build does."""
        venv.EnvBuilder(symlinks=True, with_pip=False).create(self.environment)
        package, info = self.site / "labtorch", self.site / "labtorch-2.0.dist-info"
        package.mkdir()
        info.mkdir()
        write_new(package / "__init__.py", b'"""A framework, as far as this replay needs one."""\n')
        write_new(self.optimizer, OPTIMIZER.encode())
        write_new(info / "METADATA", b"Metadata-Version: 2.1\nName: labtorch\nVersion: 2.0\n")
        self.write_record()
        listing = list_files(str(self.environment))
        equal = check_bytecode(listing, {}, {}).equal
        write_new(self.root / "baseline.json", make_baseline(listing, [self.keys["build"]], equal))

    def write_record(self) -> None:
        """Rewrite RECORD to match the installed files, as an attacker would."""
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        for name in ("labtorch/__init__.py", "labtorch/optim.py", "labtorch-2.0.dist-info/METADATA"):
            data = (self.site / name).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            writer.writerow((name, f"sha256={digest}", len(data)))
        writer.writerow(("labtorch-2.0.dist-info/RECORD", "", ""))
        (self.site / "labtorch-2.0.dist-info" / "RECORD").write_text(rows.getvalue())

    def _build_repository(self) -> None:
        write_new(self.code / "train.py", TRAIN.encode())
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.root / "trainer.git"))
        self.commit("a training script")

    def close(self) -> None:
        """Close the log."""
        self.store.close()


def run_unguarded(argv: Sequence[str], where: Path, variables: Mapping[str, str] | None = None) -> str:
    """Run a program without a guard and return its output, to show that an attack works.

    Args:
        argv: the command.
        where: the folder.
        variables: additional environment variables.
    """
    environment = {"PATH": os.defpath, **(variables or {})}
    ended = subprocess.run(argv, cwd=where, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return ended.stdout + ended.stderr


def eventually(fact: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Wait until the condition holds; return False if it does not in time."""
    deadline = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _allowed_signers(keys: Mapping[str, PrivateKey]) -> str:
    lines = [
        f'{name}@lab.example namespaces="policyguard-approval@v1,git" {_ssh_text(keys[name].public)}' for name in PEOPLE
    ]
    return "\n".join(lines) + "\n"


def _ssh_text(key: PublicKey) -> str:
    """Encode the key as OpenSSH does (RFC 4253, section 6.6; RFC 8709)."""
    kind = b"ssh-ed25519"
    blob = struct.pack(">I", len(kind)) + kind + struct.pack(">I", len(key.raw)) + key.raw
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"
