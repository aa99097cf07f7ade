"""A Python host gets from a configuration file what `policyguard run` gets, and imports no command line for it."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from policyguard.attest.trust import Trust, TrustedKey
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import AccessDenied, ConfigurationError, PolicyErrors, RequestError
from policyguard.guard import Guard
from policyguard.model.request import Request
from policyguard.values import Instant
from policyguard.verify import verify
from tests.attacks.git_lab import git
from tests.e2e.cli_lab import ROOT, CliLab

JOB = "subject: user:alice\nresource: job:team/vision/run-17\nproperties: {gpus: 8}\nfiles: [train.py]\n"
HOST = """
import json, sys
from policyguard import Guard
with Guard.from_config(sys.argv[1]) as guard:
    signed = guard.decide_job(sys.argv[2], sys.argv[3:], subject="user:alice")
print(json.dumps({"allowed": signed.decision.allowed, "modules": sorted(sys.modules)}))
"""
REQUEST = Request.of("user:alice", "repo:read", "repo:team/vision/trainer")


@pytest.fixture
def code(lab: CliLab) -> Path:
    """A repository with a job, and a configuration that says something of each section."""
    folder = lab.path("code")
    folder.mkdir()
    folder.joinpath("train.py").write_text("print('trained')\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "a job")
    lab.path("job.yaml").write_text(JOB)
    lab.path("approvals").mkdir()
    lab.path("quota.json").write_text('{"observed_at": "2026-01-01T00:00:00Z", "teams": {}}')
    with lab.path("policyguard.yaml").open("a") as config:
        config.write("approvals: approvals\nquota: {file: quota.json}\ncheckpoints: {cache: digests}\n")
    return folder


def start(lab: CliLab, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(lab.folder), "PYTHONSAFEPATH": "1"}
    script = "import sys; sys.path.insert(0, sys.argv.pop(1)); " + words[0]
    return subprocess.run(
        [sys.executable, "-c", script, str(ROOT), *words[1:]],
        cwd=folder,
        env={**environment, "POLICYGUARD_CONFIG": str(lab.path("policyguard.yaml"))},
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def statements(lab: CliLab) -> list[dict[str, Any]]:
    """Return the predicates of the decisions in the log, without ids and times."""
    with SqliteStore.open(lab.path("audit.db"), read_only=True) as store:
        leaves = [json.loads(row.leaf) for row in store.read(0, 100) if DECISION_ENTRY.matches(row.leaf)]
    predicates = [json.loads(base64.b64decode(leaf["payload"]))["predicate"] for leaf in leaves]
    for predicate in predicates:
        for name in ("decision_id", "expires", "issued_at", "not_before"):
            del predicate[name]
        for fact in predicate["facts"].values():
            del fact["observed_at"]
    return predicates


@pytest.mark.parametrize(
    ("gpus", "change", "allowed"),
    [(8, "", True), (16, "# changed\n", False)],
    ids=["a small job from a commit", "a larger one from changed code"],
)
def test_a_host_and_run_decide_alike(lab: CliLab, code: Path, gpus: int, change: str, *, allowed: bool) -> None:
    """On one job, `Guard.from_config` and `policyguard run` sign the same facts and the same decision."""
    with code.joinpath("train.py").open("a") as script:
        script.write(change)
    lab.path("job.yaml").write_text(JOB.replace("gpus: 8", f"gpus: {gpus}"))
    command = (sys.executable, "train.py")
    main = "from policyguard.cli.main import main; main()"
    ended = start(
        lab,
        code,
        main,
        "run",
        "--config",
        "../policyguard.yaml",
        "--subject",
        "user:alice",
        "--job",
        "../job.yaml",
        "--",
        *command,
    )
    host = start(lab, code, HOST, str(lab.path("policyguard.yaml")), "../job.yaml", *command)
    assert host.returncode == 0, host.stderr
    by_run, by_host = statements(lab)
    assert by_run == by_host
    assert {"resource.argv", "resource.code", "resource.environment_baseline"} <= set(by_host["bound"])
    assert json.loads(host.stdout)["allowed"] is (ended.returncode == 0) is allowed


def test_a_host_imports_no_command_line(lab: CliLab, code: Path) -> None:
    """Neither click nor a module of `policyguard.cli` is imported for `Guard.from_config` and its collectors."""
    host = start(lab, code, HOST, str(lab.path("policyguard.yaml")), "../job.yaml", sys.executable, "train.py")
    assert host.returncode == 0, host.stderr
    modules = json.loads(host.stdout)["modules"]
    packages = {".".join(name.split(".")[:depth]) for name in modules for depth in (1, 2)}
    assert "policyguard.assembly" in packages
    assert {"click", "rich", "policyguard.cli"} & packages == set()


def test_a_host_asks_about_plain_requests(lab: CliLab) -> None:
    """A request without a command is answered as by `policyguard decide`; the work in this folder is not measured."""
    lab.path("request.json").write_bytes(json.dumps(plain(REQUEST)).encode())
    assert lab.here("decide", "request.json").code == 0
    with Guard.from_config("policyguard.yaml") as guard:
        assert guard.enforce(REQUEST).decision.allowed
    by_verb, by_host = statements(lab)
    assert by_verb == by_host


def plain(request: Request) -> dict[str, Any]:
    return {
        "subject": {"type": request.subject.type, "id": request.subject.id},
        "action": {"name": request.action},
        "resource": {"type": request.resource.type, "id": request.resource.id},
    }


def test_directory_and_environment_are_the_job_s(lab: CliLab, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host names where the job will run and what it will get; its own folder and variables do not count."""
    monkeypatch.setenv("PYTHONPATH", "/host")
    words = [sys.executable, "train.py"]
    with Guard.from_config(lab.path("policyguard.yaml")) as guard:
        clean = guard.decide_job(
            "job.yaml", words, directory=code, environment={"PATH": os.defpath}, subject="user:alice"
        )
        injected = guard.decide_job("job.yaml", words, directory=code, subject="user:alice")
    assert clean.decision.allowed
    assert not injected.decision.allowed


def test_files_that_cannot_be_measured_deny(lab: CliLab, code: Path) -> None:
    """A job that names a file which is not there is denied as malformed, for a host as for `run`."""
    lab.path("job.yaml").write_text(JOB.replace("train.py", "missing.py"))
    with Guard.from_config("policyguard.yaml") as guard:
        signed = guard.decide_job("job.yaml", [sys.executable, "train.py"], directory=code, subject="user:alice")
    assert signed.decision.reason_codes == ("engine.malformed",)


@pytest.mark.parametrize("name", ["policies", "key", "log"])
def test_a_configuration_names_policies_key_and_log(lab: CliLab, name: str) -> None:
    """What is missing is named, with the file."""
    path = lab.path("policyguard.yaml")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(f"{name}:")))
    with pytest.raises(ConfigurationError, match=rf"policyguard.yaml: `{name}` is missing, expected a path"):
        Guard.from_config(path)


def test_a_guard_without_collectors_decides_no_job(lab: CliLab, code: Path) -> None:
    """The twin: a decision about a command that nobody measured is refused, and nothing is logged."""
    lab.path("own.yaml").write_text("resource: job:team/vision/run-17\n")
    with (
        Guard.open("policies", key="guard.key", log="audit.db") as guard,
        pytest.raises(ConfigurationError, match="does not measure commands"),
    ):
        guard.decide_job("own.yaml", ["true"], directory=code)
    assert statements(lab) == []


def test_a_job_file_that_cannot_be_read_is_a_bad_request(lab: CliLab) -> None:
    """Missing job files are the caller's mistake, not the configuration's."""
    with Guard.from_config("policyguard.yaml") as guard, pytest.raises(RequestError, match="cannot be read"):
        guard.decide_job("nowhere.yaml", ["true"])


def test_a_doubtful_cache_is_reported(lab: CliLab, code: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A host hears why a cache is not believed: through `report`, else in the log of Python."""
    lab.path("digests").write_text("policyguard checkpoint-digests 2 unsealed\n{}")
    lab.path("digests").chmod(0o600)
    lines: list[str] = []
    Guard.from_config("policyguard.yaml", report=lines.append).close()
    with caplog.at_level(logging.WARNING, logger="policyguard"):
        Guard.from_config("policyguard.yaml").close()
    assert lines == caplog.messages
    (line,) = lines
    assert line.endswith("digests: not believed, everything is hashed again: it has no seal")


POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources: {job: {id: "team/{team}/**", actions: [submit], attributes: {gpus: {type: int}}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: small, effect: allow, actions: [job:submit], resources: {type: job}, when: resource.gpus <= 8}
"""


def submit(gpus: int) -> Request:
    return Request.of("user:alice", "job:submit", "job:team/vision/run", gpus=gpus)


def in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Guard:
    monkeypatch.chdir(folder)
    return Guard.in_memory(POLICIES, **options)


@pytest.mark.parametrize(("gpus", "allowed"), [(8, True), (9, False)])
def test_a_guard_in_memory_signs_and_logs(
    gpus: int, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decisions are real: signed, in a log with receipts, and a worker verifies them; no file is written."""
    guard = in_memory(tmp_path, monkeypatch)
    first, signed = guard.decide(submit(1)), guard.decide(submit(gpus))
    assert signed.decision.allowed is allowed
    assert (first.receipt.index, signed.receipt.index) == (0, 1)
    trust = Trust(
        keys=(TrustedKey(key=guard.public_key),), logs=(guard.log_key,), audiences=frozenset({"local"}), min_epoch=1
    )
    verify(first.to_json(), trust, submit(1), audience="local", now=time.time_ns())
    assert list(tmp_path.iterdir()) == []


def test_a_guard_in_memory_enforces_at_a_fixed_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is an argument, and a denial raises."""
    now: Instant = 1_700_000_000_000_000_000
    guard = in_memory(tmp_path, monkeypatch, clock=lambda: now)
    assert guard.enforce(submit(8)).decision.now == now
    with pytest.raises(AccessDenied, match="job:team/vision/run"):
        guard.enforce(submit(9))


def test_mistakes_in_policies_are_reported_at_once() -> None:
    """A guard in memory reads policies as strictly as a file."""
    with pytest.raises(PolicyErrors, match="gpus"):
        Guard.in_memory(POLICIES.replace("resource.gpus", "resource.gpuz"))


def test_bindings_of_an_adapter_need_a_folder() -> None:
    """The text of a test has no folder that a casbin file could be in; such bindings are not dropped silently."""
    source = "apiVersion: policyguard/v1\nkind: Bindings\nsource: {adapter: csv, path: bindings.csv}\n"
    with pytest.raises(ConfigurationError, match="expected bindings in the text itself"):
        Guard.in_memory(f"{POLICIES}---\n{source}")


def modules_after(words: Sequence[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", *words], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    return set(done.stdout.split())


def test_a_guard_that_is_opened_imports_no_assembly() -> None:
    """The twin: `Guard.open` pays for no collector of jobs."""
    modules = modules_after(["import sys, policyguard.guard; print(*sys.modules)"])
    assert {"policyguard.assembly", "policyguard.config.file", "policyguard.scan"} & modules == set()
