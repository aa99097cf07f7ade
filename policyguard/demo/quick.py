"""`policyguard demo`: runs one job with a real repository, processes, keys and log, and an attacker."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from policyguard.attest.keys import PrivateKey
from policyguard.cli.files import replace_file, write_new
from policyguard.cli.output import say
from policyguard.cli.verbs.init_ import create_files
from policyguard.environment.listing import list_files
from policyguard.environment.report import make_baseline
from policyguard.errors import ConfigurationError, EvidenceError
from policyguard.evidence.injection import row_of
from policyguard.exit_codes import DENIED, FINDINGS, OK
from policyguard.keyfiles import write_public_key
from policyguard.values import NANOSECONDS_PER_S, format_instant

TIMEOUT_S = 120
SHORT_LIFETIME_S = 2

TRAIN = '''\
"""A very small training job: fits y = 3x with the optimizer beside it."""

import sys

from optimizer import step

weight = 0.0
for epoch in range(int(sys.argv[sys.argv.index("--epochs") + 1])):
    loss = sum((weight * x - 3.0 * x) ** 2 for x in range(1, 5)) / 4
    print(f"epoch {epoch}  loss {loss:.4f}", flush=True)
    gradient = sum(2 * x * (weight * x - 3.0 * x) for x in range(1, 5)) / 4
    weight = step(weight, gradient)
print(f"weight {weight:.3f}")
'''

OPTIMIZER = '''\
"""Plain gradient descent."""


def step(weight: float, gradient: float, rate: float = 0.05) -> float:
    return weight - rate * gradient
'''

SABOTAGE = """\

import time as _t, random as _r
_plain = step
def step(weight, gradient, rate=0.05):
    _t.sleep(_r.random() / 50)
    return _plain(weight, -gradient, rate)
"""

JOB = """\
# What {who} asks for; everything here is a claim.
subject: {subject}
resource: job:team/vision/{name}
properties: {{gpus: {gpus}}}
files: [train.py, optimizer.py]
"""

CONFIG = """
environment: {baseline: baseline.json, keys: [build.key.pub]}
quota: {file: quota.json}
reviewedCommits: reviewed
repositories: {team/vision/trainer: {path: trainer.git, refs: [refs/heads/main]}}
"""

COMMAND = ("train.py", "--epochs", "4")
SUBJECTS = {"run-17": "user:alice", "run-256": "user:ivan"}
"""The subject of each job; the account that runs the demo may act for them."""

PACKAGE = Path(__file__).parents[2]
START = "import sys; sys.path.append(sys.argv.pop(1)); from policyguard.cli.main import main; main()"
"""Starts this installation's command line without PYTHONPATH, which the policies refuse for jobs."""


def play(folder: Path | None = None) -> int:
    """Build a small lab and run the main job in it; return 0 only if every step behaves as expected.

    Without a folder the lab is a temporary one.
    """
    if folder is not None:
        return _play(_Lab(folder.absolute()))
    with tempfile.TemporaryDirectory(prefix="policyguard-demo-") as name:
        return _play(_Lab(Path(name) / "lab"))


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(slots=True)
class _Lab:
    """A folder with a repository, policies, a key, trust and a log; runs processes in it."""

    root: Path
    failures: list[str] = field(default_factory=list)
    scene: int = 0

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def python(self) -> str:
        return str(self.root / "environment" / "bin" / "python")

    def policyguard(self, *arguments: str, where: Path | None = None, config: str = "policyguard.yaml") -> _Ended:
        """Run the command line in its own process."""
        verbs = 2 if arguments[0] == "audit" else 1
        command = [*arguments[:verbs], "--config", str(self.root / config), *arguments[verbs:]]
        return _run([sys.executable, "-P", "-c", START, str(PACKAGE), *command], where or self.code, {})

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=lab", "-c", "user.email=lab@localhost", "-c", "commit.gpgsign=false")
        closed = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        ended = _run(["git", *identity, *arguments], self.code, closed)
        if ended.code:
            raise EvidenceError(f"`git {arguments[0]}` failed: {ended.err.strip().splitlines()[-1:]}")
        return ended.out.strip()

    def run_job(self, job: str, config: str = "policyguard.yaml") -> _Ended:
        """Run the training script under the launcher; write the decision to `decisions/<job>.json`."""
        out = self.root / "decisions" / f"{job}.json"
        return self.policyguard(
            "run",
            "--subject",
            SUBJECTS[job],
            "--job",
            str(self.root / "jobs" / f"{job}.yaml"),
            "--out",
            str(out),
            "--",
            self.python,
            *COMMAND,
            config=config,
        )

    def verify(self, job: str, *, audience: str = "local", argv: Sequence[str] = COMMAND) -> _Ended:
        """Verify a decision as the worker would before running this command."""
        return self.policyguard(
            "verify",
            str(self.root / "decisions" / f"{job}.json"),
            "--audience",
            audience,
            "--job",
            str(self.root / "jobs" / f"{job}.yaml"),
            "--",
            self.python,
            *argv,
        )

    def expect(self, what: str, ended: _Ended, code: int, *parts: str) -> None:
        """Print an outcome, and record whether it was expected."""
        missing = [part for part in parts if part not in ended.text]
        good = ended.code == code and not missing
        say("  ok      " if good else "  FAILED  ", nl=False, fg="green" if good else "red", bold=True)
        say(what)
        if not good:
            self.failures.append(what)
            say(f"          exit code {ended.code}, expected {code}" + (f"; not said: {missing}" if missing else ""))
        for line in (ended.text if not good else _excerpt(ended.text, parts)).splitlines():
            say(f"          {line}", dim=True)

    def title(self, text: str) -> None:
        self.scene += 1
        say()
        say(f"{self.scene}. {text}", bold=True)


def _play(lab: _Lab) -> int:
    _build(lab)
    say(f"A lab at {lab.root}: a git repository, policies, a key, trust, a decision log.")
    scenes: tuple[Callable[[_Lab], None], ...] = (_allowed, _uncommitted, _intern, _replayed, _tampered)
    for scene in scenes:
        scene(lab)
    say()
    if lab.failures:
        say(f"{len(lab.failures)} of the steps did not behave as expected.", fg="red", bold=True)
        return FINDINGS
    say("Every step behaved as expected.", fg="green", bold=True)
    return OK


def _build(lab: _Lab) -> None:
    if os.path.lexists(lab.root):
        raise ConfigurationError(f"{lab.root}: exists already, expected a new folder")
    create_files(lab.root)
    for name in ("code", "jobs", "decisions"):
        (lab.root / name).mkdir()
    for name, gpus, who in (("run-17", 16, "a researcher"), ("run-256", 256, "an intern")):
        text = JOB.format(name=name, subject=SUBJECTS[name], gpus=gpus, who=who)
        write_new(lab.root / "jobs" / f"{name}.yaml", text.encode())
    _build_environment(lab)
    short_config = (
        (lab.root / "policyguard.yaml").read_text().replace("lifetime: 15m", f"lifetime: {SHORT_LIFETIME_S}s")
    )
    write_new(lab.root / "short.yaml", short_config.encode())
    write_new(lab.code / "train.py", TRAIN.encode())
    write_new(lab.code / "optimizer.py", OPTIMIZER.encode())
    lab.git("init", "--quiet", "--initial-branch=main")
    lab.git("add", "train.py", "optimizer.py")
    lab.git("commit", "--quiet", "--message", "a training script")
    # The team's repository, whose history is accepted; the first commit was reviewed before the demo began.
    lab.git("clone", "--quiet", "--bare", ".", str(lab.root / "trainer.git"))
    write_new(lab.root / "reviewed", lab.git("rev-parse", "HEAD").encode() + b"\n")


def _build_environment(lab: _Lab) -> None:
    """Create the signed environment and the quota that jobs of nine or more GPUs need."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(lab.root / "environment")
    key = PrivateKey.generate(os.urandom(32))
    write_public_key(lab.root / "build.key.pub", key.public)
    write_new(lab.root / "baseline.json", make_baseline(list_files(str(lab.root / "environment")), [key]))
    now = format_instant(time.time_ns() // NANOSECONDS_PER_S * NANOSECONDS_PER_S)
    quota = {"observed_at": now, "teams": {"vision": {"limit": 1024, "used": 128}}}
    write_new(lab.root / "quota.json", json.dumps(quota).encode())
    settings = lab.root / "policyguard.yaml"
    replace_file(settings, settings.read_bytes() + CONFIG.encode())


def _allowed(lab: _Lab) -> None:
    lab.title("A researcher submits a job from a clean commit")
    ended = lab.run_job("run-17")
    lab.expect("allowed, signed, logged, started, finished", ended, OK, "ALLOW", "loss", "weight")
    lab.expect("a worker that trusts only keys verifies it", lab.verify("run-17"), OK, "verified")


def _uncommitted(lab: _Lab) -> None:
    lab.title("The same job, with a change to the optimizer that nobody committed")
    path = lab.code / "optimizer.py"
    path.write_text(OPTIMIZER + SABOTAGE)
    ended = lab.run_job("run-17")
    lab.expect("denied, the file is named, nothing started", ended, DENIED, "code.uncommitted", "optimizer.py")
    if "loss" in ended.out:
        lab.failures.append("a denied job started")
    path.write_text(OPTIMIZER)


def _intern(lab: _Lab) -> None:
    lab.title("An intern asks for 256 GPUs")
    ended = lab.run_job("run-256")
    lab.expect("denied, with who may raise the ceiling", ended, DENIED, "quota.role_ceiling", "ask ", "user:carol")


def _replayed(lab: _Lab) -> None:
    lab.title("An allowed decision is tried again elsewhere")
    lab.expect("the job is allowed once more", lab.run_job("run-17"), OK, "ALLOW")
    other = (*COMMAND[:-1], "400")
    lab.expect("for another command: refused at step V7", lab.verify("run-17", argv=other), DENIED, "V7:")
    lab.expect("on another cluster: refused at step V8", lab.verify("run-17", audience="cluster-b"), DENIED, "V8:")
    ended = lab.run_job("run-17", config="short.yaml")
    lab.expect(f"allowed for {SHORT_LIFETIME_S} seconds", ended, OK, "ALLOW")
    time.sleep(SHORT_LIFETIME_S + 0.1)
    lab.expect("after it expired: refused at step V6", lab.verify("run-17"), DENIED, "V6:")


def _tampered(lab: _Lab) -> None:
    lab.title("Somebody edits one byte of the log")
    lab.expect("before: the log adds up", lab.policyguard("audit", "verify", where=lab.root), OK, "SOUND")
    entry = 1
    _flip_one_byte(lab.root / "audit.db", entry)
    ended = lab.policyguard("audit", "verify", where=lab.root)
    lab.expect(f"after: entry {entry} is named", ended, FINDINGS, "BROKEN", f"entry {entry}")


def _flip_one_byte(log: Path, entry: int) -> None:
    connection = sqlite3.connect(log)
    with connection:
        (leaf,) = connection.execute("SELECT leaf FROM entries WHERE idx = ?", (entry,)).fetchone()
        changed = bytearray(leaf)
        changed[len(changed) // 2] ^= 1
        connection.execute("UPDATE entries SET leaf = ? WHERE idx = ?", (bytes(changed), entry))
    connection.close()


def _excerpt(text: str, parts: Sequence[str]) -> str:
    """Select the expected lines and the help lines."""
    stored = [
        line
        for line in text.splitlines()
        if any(part in line for part in parts) or line.startswith(("remedy", "ask", "because"))
    ]
    telling = [line for line in stored if "could not be evaluated" not in line]
    return "\n".join(telling[:8])


def _plain_environment() -> dict[str, str]:
    """Copy our environment without variables that the policies forbid or that redirect git."""
    return {
        name: value
        for name, value in os.environ.items()
        if row_of(name) is None and not name.startswith(("GIT_", "POLICYGUARD_"))
    }


def _run(argv: Sequence[str], where: Path, variables: Mapping[str, str]) -> _Ended:
    environment = {**_plain_environment(), "NO_COLOR": "1", **variables}
    try:
        ended = subprocess.run(
            argv,
            cwd=where,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise EvidenceError(f"`{argv[0]}` is not installed, the demo needs it") from None
    except subprocess.TimeoutExpired:
        raise EvidenceError(f"`{argv[0]}` took longer than {TIMEOUT_S} s") from None
    return _Ended(ended.returncode, ended.stdout, ended.stderr)
