"""The launcher: a denied job never starts, an allowed one starts exactly as decided and is passed through."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from policyguard.attest.keys import PrivateKey
from policyguard.attest.revocation import revocation, sign_list
from policyguard.attest.trust import RevocationTrust
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import (
    AccessDenied,
    AuditError,
    ConfigurationError,
    EvidenceError,
    RequestError,
    VerificationError,
)
from policyguard.evidence.collector import JobInputs
from policyguard.exit_codes import code_of_error
from policyguard.guard import Guard
from policyguard.hooks.launcher.job_environment import VARIABLE, read_decision
from policyguard.hooks.launcher.launch import launch
from policyguard.model.request import Request
from policyguard.values import EMPTY_MAP
from policyguard.verify import verify, verify_origin
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def start(lab: Lab, asked: Request | None = None, inputs: JobInputs | None = None, **options: object) -> int:
    with lab.guard() as guard:
        arguments = {"audience": "node-1", **options}
        return launch(guard, asked or request(), inputs or lab.inputs(), lab.trust, **arguments)  # type: ignore[arg-type]


def environment_of(lab: Lab) -> dict[str, str]:
    """Return what the job saw."""
    return dict(line.partition("=")[::2] for line in lab.ran.read_text().splitlines())


def test_an_allowed_job_runs_and_its_decision_verifies(lab: Lab) -> None:
    """The bytes in the job's environment hold for this request, what was measured, this audience and now."""
    starts: list[str] = []
    assert start(lab, on_start=lambda verified: starts.append(verified.decision_id)) == 0
    carried = read_decision(environment_of(lab))
    with lab.guard() as guard:
        bound = guard.gather(request(), lab.inputs()).bound
    predicate = verify_origin(carried, lab.trust).predicate
    assert [predicate.decision_id] == starts
    assert predicate.allowed
    assert set(predicate.bound) == set(bound)
    now = os.stat(lab.ran).st_mtime_ns
    verified = verify(carried, lab.trust, request(), audience="node-1", now=now + 10**9, bound=bound)
    assert verified.decision_id == predicate.decision_id


def dirty(lab: Lab) -> JobInputs:
    (lab.job / "train.py").write_text("import time\n")
    return lab.inputs()


def untracked(lab: Lab) -> JobInputs:
    (lab.job / "torch.py").write_text("evil\n")
    return lab.inputs()


def no_repository(lab: Lab) -> JobInputs:
    (lab.job / ".git").rename(lab.folder / "away")
    return lab.inputs()


DENIED: dict[str, tuple[Request, Callable[[Lab], JobInputs]]] = {
    "too many GPUs": (request(gpus=256), Lab.inputs),
    "another user": (request(user="mallory"), Lab.inputs),
    "an uncommitted change": (request(), dirty),
    "an untracked module": (request(), untracked),
    "no repository at all": (request(), no_repository),
    "a door in the environment": (request(), lambda lab: lab.inputs(LD_PRELOAD="/tmp/evil.so")),
    "claims instead of facts": (
        Request.of(
            "user:alice", "job:submit", "job:team/vision/run-17", gpus=8, code={"dirty": False}, code_injecting_env={}
        ),
        lambda lab: dirty(lab),
    ),
    "a property nobody knows": (
        Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8, frobs=1),
        Lab.inputs,
    ),
}


@pytest.mark.parametrize(("asked", "prepare"), DENIED.values(), ids=DENIED.keys())
def test_a_denied_job_never_starts(lab: Lab, asked: Request, prepare: Callable[[Lab], JobInputs]) -> None:
    """The contract of every hook: no marker file, and the denial is signed and logged."""
    told: list[SignedDecision] = []
    with pytest.raises(AccessDenied) as caught:
        start(lab, asked, prepare(lab), on_decision=told.append)
    assert not lab.ran.exists()
    assert told == [caught.value.signed]
    assert not verify_origin(told[0].to_json(), lab.trust).predicate.allowed


def test_a_denied_job_names_the_file(lab: Lab) -> None:
    """The explanation names what differs from the commit."""
    with pytest.raises(AccessDenied) as caught:
        start(lab, inputs=dirty(lab))
    code = caught.value.signed.decision.facts.entries["resource.code"].value
    assert code["dirty_files"] == ("train.py",)


CHANGES: dict[str, Callable[[Lab], object]] = {
    "the program": lambda lab: (lab.job / "train.py").write_text("evil\n"),
    "a new module": lambda lab: (lab.job / "torch.py").write_text("evil\n"),
    "the commit": lambda lab: (lab.job / ".git" / "HEAD").write_text("ref: refs/heads/other\n"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_changes_after_the_decision_does_not_start(lab: Lab, change: Callable[[Lab], object]) -> None:
    """Step V7: the second look just before the start finds another request digest."""
    with pytest.raises(VerificationError) as caught:
        start(lab, on_decision=lambda signed: change(lab))
    assert caught.value.step == "V7"
    assert not lab.ran.exists()


def test_a_program_swapped_after_the_decision_does_not_start(lab: Lab) -> None:
    """I15: the executable's digest is part of what was decided."""
    tool = lab.folder / "tool"
    tool.write_text(f"#!/bin/sh\ntouch {lab.ran}\n")
    tool.chmod(0o755)
    inputs = lab.inputs([str(tool)])
    with pytest.raises(VerificationError, match="V7"):
        start(lab, inputs=inputs, on_decision=lambda signed: tool.write_text(f"#!/bin/sh\necho; touch {lab.ran}\n"))
    assert not lab.ran.exists()
    assert start(lab, inputs=inputs) == 0
    assert lab.ran.exists()


def test_another_audience_does_not_start(lab: Lab) -> None:
    """Step V8: a launcher accepts only decisions for itself."""
    with lab.guard(audience="node-2") as guard, pytest.raises(VerificationError) as caught:
        launch(guard, request(), lab.inputs(), lab.trust, audience="node-1")
    assert caught.value.step == "V8"
    assert not lab.ran.exists()


def test_an_expired_decision_does_not_start(lab: Lab) -> None:
    """Step V6: judged by this launcher's clock."""
    with pytest.raises(VerificationError) as caught:
        start(lab, clock=lambda: 4_000_000_000_000_000_000)
    assert caught.value.step == "V6"
    assert not lab.ran.exists()


def test_a_launcher_reads_the_revocation_list(lab: Lab) -> None:
    """Step V12: without the list that trust names, or with a revoked guard's key, nothing starts; the twin starts."""
    revoker = PrivateKey.generate(b"\x08" * 32)
    path = lab.folder / "revocations.json"
    pinned = RevocationTrust(source=str(path), keys=(revoker.public,), max_age_s=3600)
    trust = replace(lab.trust, revocation=pinned)

    def launched() -> int:
        with lab.guard() as guard:
            return launch(guard, request(), lab.inputs(), trust, audience="node-1")

    now = time.time_ns() // 1000 * 1000
    revoked = revocation("key", lab.trust.keys[0].key.text, reason="stolen", now=now)
    for content in (None, sign_list((revoked,), 1, now, revoker), sign_list((), 1, now - 3601 * 10**9, revoker)):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(VerificationError) as caught:
            launched()
        assert caught.value.step == "V12"
        assert not lab.ran.exists()
    path.write_bytes(sign_list((), 2, now, revoker))
    assert launched() == 0
    assert lab.ran.exists()


def test_an_advisory_decision_does_not_start(lab: Lab) -> None:
    """Step V10: an advisory guard starts nothing."""
    with lab.guard(advisory=True) as guard, pytest.raises(VerificationError) as caught:
        launch(guard, request(), lab.inputs(), lab.trust, audience="node-1")
    assert caught.value.step == "V10"
    assert not lab.ran.exists()


def test_a_guard_that_does_not_measure_commands_starts_nothing(lab: Lab) -> None:
    """I15: a decision that is not bound to the command would hold for any command."""
    guard = Guard.open(lab.folder / "policies", key=lab.folder / "guard.key", log=lab.folder / "audit.db")
    with guard, pytest.raises(ConfigurationError, match="does not measure commands"):
        launch(guard, request(), lab.inputs(), lab.trust, audience="node-1")
    assert not lab.ran.exists()


def test_a_log_that_cannot_be_written_starts_nothing(lab: Lab) -> None:
    """No log, no allow."""
    with lab.guard() as guard:
        guard.close()
        with pytest.raises(AuditError):
            launch(guard, request(), lab.inputs(), lab.trust, audience="node-1")
    assert not lab.ran.exists()


def test_a_program_that_does_not_exist_is_one_line(lab: Lab) -> None:
    """Nothing is decided: the log has no allow of a job that could not start."""
    with pytest.raises(RequestError, match="the command: `no-such-program`: found no executable program") as refused:
        start(lab, inputs=lab.inputs(["no-such-program"]))
    assert code_of_error(refused.value) == 65
    assert start(lab) == 0
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        assert sum(DECISION_ENTRY.matches(row.leaf) for row in store.read(0, 9)) == 1


def test_the_launcher_keeps_its_own_variables(lab: Lab) -> None:
    """I14: the passphrase of the guard's key is not the job's business; everything else is passed on."""
    assert start(lab, inputs=lab.inputs(POLICYGUARD_PASSPHRASE="s3cret", POLICYGUARD_CONFIG="x", LANG="C")) == 0
    seen = environment_of(lab)
    assert "s3cret" not in lab.ran.read_text()
    assert ([name for name in seen if name.startswith("POLICYGUARD_")], seen["LANG"]) == ([VARIABLE], "C")


POISON = """
import py_compile
path = py_compile.compile('step.py')
code = open(path, 'rb').read()
open(path, 'wb').write(code.replace(b'good', b'evil'))
"""


@pytest.mark.parametrize("private", [True, False])
def test_stray_byte_code_does_not_run(lab: Lab, private: bool) -> None:
    """A `.pyc` that its source would not give is ignored; the job is denied if that is switched off, or with `-E`."""
    (lab.job / "step.py").write_text("WORD = 'good'\n")
    (lab.job / ".gitignore").write_text("__pycache__/\n")
    (lab.job / "train.py").write_text("import sys, step\nopen(sys.argv[1], 'w').write(step.WORD)\n")
    commit_all(lab.job)
    subprocess.run([sys.executable, "-c", POISON], cwd=lab.job, env={}, check=True)
    inputs = lab.inputs()
    isolated = structs.replace(inputs, argv=(inputs.argv[0], "-E", *inputs.argv[1:]))
    for denied in (isolated, *(() if private else (inputs,))):
        with pytest.raises(AccessDenied, match=r"code\.dirty = true"):
            start(lab, inputs=denied, private_bytecode=private)
    assert not lab.ran.exists()
    if private:
        assert start(lab, inputs=inputs) == 0
        assert lab.ran.read_text() == "good"


def test_a_large_decision_travels_as_a_file(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit of a variable: a path to a file of mode 0600 that is gone when the job is."""
    monkeypatch.setattr("policyguard.hooks.launcher.job_environment.MAX_INLINE_BYTES", 100)
    (lab.job / "train.py").write_text(
        "import os, sys\npath = os.environ['POLICYGUARD_DECISION'][1:]\n"
        "open(sys.argv[1], 'w').write(f'{os.stat(path).st_mode & 0o777:o} {path} {open(path).read()}')\n"
    )
    commit_all(lab.job)
    assert start(lab) == 0
    mode, path, text = lab.ran.read_text().split(" ", 2)
    assert mode == "600"
    assert not os.path.exists(path)
    assert verify_origin(text.encode(), lab.trust).predicate.allowed


def test_nothing_carried_is_one_line() -> None:
    """A worker that was started without a decision says what to do."""
    with pytest.raises(EvidenceError, match="is not set") as caught:
        read_decision(EMPTY_MAP)  # type: ignore[arg-type]
    assert "policyguard run" in str(caught.value.help)
