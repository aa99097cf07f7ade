"""The contract of every entry point that starts something: what is denied never starts, and the denial is logged.

An entry point is a function, a verb or a hook by which a host asks before something runs. Each is tried with each kind
of denial, and once with the same thing allowed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AccessDenied
from policyguard.evidence.collector import JobInputs
from policyguard.hooks.in_process.context import allowed, guarded
from policyguard.hooks.in_process.loading import loading
from policyguard.hooks.launcher.launch import WatchOptions, launch
from policyguard.model.request import Request
from tests.e2e.cli_lab import LOGIN, ROOT
from tests.e2e.launcher_lab import Lab, make_lab

Start = Callable[[Lab, Request, JobInputs], object]
"""Tries to start the job of a lab; a denial may be an exception or a code, the contract is what it leaves behind."""

_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from policyguard.cli.main import main; main()"
"""A command without PYTHONPATH, which the policies deny: it injects code into the job."""

HOOKS = ROOT / "policyguard" / "hooks"


def launched(**options: object) -> Start:
    def start(lab: Lab, request: Request, inputs: JobInputs) -> int:
        with lab.guard() as guard:
            return launch(guard, request, inputs, lab.trust, audience="node-1", **options)  # type: ignore[arg-type]

    return start


def run(*options: str, fields: str = "") -> Start:
    """`policyguard run` with these options, or these lines in the job file."""

    def start(lab: Lab, request: Request, inputs: JobInputs) -> int:
        job = lab.folder / "job.yaml"
        job.write_text(
            f"resource: {request.resource.ref}\nproperties: {{gpus: {request.resource.properties['gpus']}}}\n{fields}"
        )
        words = ["--job", str(job), "--subject", request.subject.ref, *options, "--", *inputs.argv]
        return policyguard(lab, "run", "--config", str(lab.folder / "policyguard.yaml"), *words, cwd=inputs.directory)

    return start


def hook(lab: Lab, request: Request, inputs: JobInputs) -> int:
    """A script that starts the job only if the hook, which knows the request alone, ends with 0."""
    resource = {"type": "job", "id": request.resource.id, "properties": dict(request.resource.properties)}
    subject = {"type": "user", "id": request.subject.id}
    body = json.dumps({"subject": subject, "action": {"name": "job:ask"}, "resource": resource})
    code = policyguard(lab, "hook", "--config", str(lab.folder / "policyguard.yaml"), text=body)
    return _job(inputs) if code == 0 else code


def block(lab: Lab, request: Request, inputs: JobInputs) -> int:
    with lab.guard(advisory=True) as guard, allowed(guard, request, inputs):
        return _job(inputs)


def decorated(lab: Lab, request: Request, inputs: JobInputs) -> int:
    with lab.guard(advisory=True) as guard:
        return guarded(guard, lambda: request, inputs)(lambda: _job(inputs))()


def enforced(lab: Lab, request: Request, inputs: JobInputs) -> int:
    with lab.guard() as guard:
        guard.enforce(request, inputs)
        return _job(inputs)


def policyguard(lab: Lab, *words: str, cwd: str | Path | None = None, text: str = "") -> int:
    return subprocess.run(
        [sys.executable, "-B", "-P", "-c", _MAIN, str(ROOT), *words],
        cwd=cwd or lab.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(lab.folder)},
        input=text.encode(),
        capture_output=True,
        check=False,
        timeout=60,
    ).returncode


def _job(inputs: JobInputs) -> int:
    return subprocess.run(inputs.argv, cwd=inputs.directory, env=inputs.environment, check=False).returncode


MEASURING: dict[str, Start] = {
    "launch": launched(),
    "launch with a watch": launched(watch=WatchOptions(period_s=0.2)),
    "launch without byte code of its own": launched(private_bytecode=False),
    "policyguard run": run(),
    "policyguard run --watch": run("--watch", "0.2"),
    "policyguard run --replay-store": run("--replay-store", "../used.db"),
    "policyguard run --out": run("--out", "../signed.json"),
    "policyguard run -q": run("-q"),
    "with allowed(...)": block,
    "@guarded": decorated,
    "Guard.enforce": enforced,
}
"""Entry points that measure the job: each kind of denial is tried."""

REQUEST_ONLY: dict[str, Start] = {"policyguard hook": hook}
"""Entry points that know the request only."""

ASKING = """\
  - id: small-requests
    effect: allow
    subjects: ["user:alice"]
    actions: [job:ask]
    resources: {type: job}
    when: resource.gpus <= 8
"""

STARTS_NOTHING = {
    "former_options.py": "reads options",
    "git": "refuses a push, see test_repo_hook.py",
    "responses.py": "encodes answers",
    "watch": "measures a job that runs",
}
"""Of `policyguard/hooks`, what no host asks before it starts something."""

ENTRY_POINTS = {"in_process", "launcher", "stdio.py"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = make_lab(tmp_path)
    policies = tmp_path / "policies" / "jobs.yaml"
    policies.write_text(policies.read_text().replace("actions: [submit]", "actions: [submit, ask]") + ASKING)
    (tmp_path / "policyguard.yaml").write_text(
        f"policies: policies\nkey: guard.key\nlog: audit.db\naudience: node-1\nspeakFor: [{LOGIN}]\n"
    )
    return made


def too_large(lab: Lab) -> Request:
    return Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=64)


def unknown_subject(lab: Lab) -> Request:
    return Request.of("user:mallory", "job:submit", "job:team/vision/run-17", gpus=8)


def malformed(lab: Lab) -> Request:
    return Request.of("user:alice", "job:submit", "job:elsewhere", gpus=8)


def uncommitted(lab: Lab) -> Request:
    (lab.job / "train.py").write_text((lab.job / "train.py").read_text() + "# changed\n")
    return small()


def small() -> Request:
    return Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)


DENIALS = {"no rule allows": too_large, "another subject": unknown_subject, "an id that does not fit": malformed}


def last_decision(lab: Lab) -> Predicate:
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        decisions = [row.leaf for row in store.read(0, 100) if DECISION_ENTRY.matches(row.leaf)]
    return parse_statement(parse(decisions[-1]).payload).predicate


def check_not_started(lab: Lab, start: Start, request: Request) -> None:
    try:
        ended = start(lab, request, lab.inputs())
    except AccessDenied as denial:
        ended = denial
    assert not lab.ran.exists(), f"the job ran: {ended}"
    assert not last_decision(lab).allowed


@pytest.mark.parametrize("denial", DENIALS.values(), ids=DENIALS.keys())
@pytest.mark.parametrize("start", (MEASURING | REQUEST_ONLY).values(), ids=(MEASURING | REQUEST_ONLY).keys())
def test_a_denied_job_never_starts(lab: Lab, start: Start, denial: Callable[[Lab], Request]) -> None:
    """Whatever the reason of the denial, nothing ran, and the log ends with it."""
    check_not_started(lab, start, denial(lab))


@pytest.mark.parametrize("start", MEASURING.values(), ids=MEASURING.keys())
def test_a_job_denied_for_what_was_measured_never_starts(lab: Lab, start: Start) -> None:
    """The request alone would be allowed; the code has changed."""
    check_not_started(lab, start, uncommitted(lab))


@pytest.mark.parametrize("start", (MEASURING | REQUEST_ONLY).values(), ids=(MEASURING | REQUEST_ONLY).keys())
def test_an_allowed_job_starts(lab: Lab, start: Start) -> None:
    """The twin: the same entry points start the same job, one step away from a denial."""
    assert start(lab, small(), lab.inputs()) == 0
    assert lab.ran.exists()
    assert last_decision(lab).allowed


def test_denied_weights_are_never_loaded(lab: Lab) -> None:
    """The entry point for weights: a request that no rule allows does not enter the block."""
    weights = lab.folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    request = Request.of("user:alice", "checkpoint:load", "checkpoint:team/vision/net")
    with lab.guard(advisory=True) as guard, pytest.raises(AccessDenied), loading(guard, request, weights):
        pytest.fail("the block was entered")
    assert not last_decision(lab).allowed


def test_every_hook_is_an_entry_point_or_starts_nothing() -> None:
    """A new hook is tried here, or listed with the reason why it starts nothing."""
    names = {path.name for path in HOOKS.iterdir() if not path.name.startswith("__")}
    assert names == ENTRY_POINTS | STARTS_NOTHING.keys()


def test_only_the_launcher_starts_programs() -> None:
    """Of the hooks, only the launcher's modules start a process; `git/install.py` tries the hook that it wrote."""
    starting = {
        str(path.relative_to(HOOKS))
        for path in HOOKS.rglob("*.py")
        if any(
            word in path.read_text() for word in ("subprocess.", "os.exec", "os.spawn", "os.posix_spawn", "os.system")
        )
    }
    assert starting == {"git/install.py", "launcher/confined.py", "launcher/supervise.py"}
