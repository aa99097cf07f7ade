"""I12: whatever refuses a job leaves a signed entry, as long as there are a key and a log to leave it with."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import Predicate, parse_statement
from policyguard.audit.check import check_log
from policyguard.audit.entries import JOB_END_ENTRY
from policyguard.audit.proofs import prove_inclusion
from policyguard.audit.receipt import SignedDecision
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.errors import EvidenceError, VerificationError
from policyguard.hooks.launcher.launch import launch
from policyguard.verify import verify_origin
from tests.e2e.launcher_lab import Lab, commit_all, make_lab, request

START = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from policyguard.cli.main import main; main()"
)
"""Starts the command line without PYTHONPATH, which would be an open door of the job."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


def entries(lab: Lab) -> list[Predicate]:
    """What an auditor reads, each entry verified from its signature to its place in a log that adds up."""
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        check_log(store, lab.trust.logs, ())
        last = store.last()
        assert last is not None
        found = []
        for row in store.read(0, last.entry + 1):
            if JOB_END_ENTRY.matches(row.leaf):
                continue
            envelope = parse(row.leaf)
            verify_origin(SignedDecision(envelope, prove_inclusion(store, row.entry)).to_json(), lab.trust)
            found.append(parse_statement(envelope.payload).predicate)
    return found


def test_a_job_that_changed_before_its_start_is_refused_in_the_log(lab: Lab) -> None:
    """The allow stands there, and beside it that it started nothing, why, and which entry it was."""

    def edit(_: SignedDecision) -> None:
        (lab.job / "train.py").write_text("raise SystemExit\n")

    with lab.guard() as guard, pytest.raises(VerificationError, match="V7"):
        launch(guard, request(), lab.inputs(), lab.trust, audience="node-1", on_decision=edit)
    allowed, refused = entries(lab)
    assert (allowed.decision, refused.decision, refused.reason_codes) == ("allow", "deny", ("start.refused",))
    assert refused.missing["resource.start"].startswith("V7: ")
    assert bytes(refused.facts["resource.decision_id"].value).decode() == f'"{allowed.decision_id}"'  # type: ignore[arg-type]
    assert not lab.ran.exists()


def test_a_program_that_went_before_its_start_is_refused_in_the_log(lab: Lab) -> None:
    """What cannot be started after it was allowed is told, too."""
    program = lab.job / "run"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    commit_all(lab.job)

    def remove(_: SignedDecision) -> None:
        program.unlink()

    with lab.guard() as guard, pytest.raises((VerificationError, EvidenceError)):
        launch(guard, request(), lab.inputs(["./run"]), lab.trust, audience="node-1", on_decision=remove)
    assert [each.reason_codes for each in entries(lab)][1:] == [("start.refused",)]


def test_a_job_that_starts_leaves_one_entry(lab: Lab) -> None:
    """The twin: nothing was refused, so nothing is told."""
    with lab.guard() as guard:
        assert launch(guard, request(), lab.inputs(), lab.trust, audience="node-1") == 0
    assert [each.decision for each in entries(lab)] == ["allow"]


def command(lab: Lab, *words: str, stdin: str = "", log: str = "audit.db") -> subprocess.CompletedProcess[str]:
    paths = [
        f"--{name}={lab.folder / path}" for name, path in (("policies", "policies"), ("key", "guard.key"), ("log", log))
    ]
    whole = [sys.executable, "-P", "-c", START, words[0], *paths, *words[1:]]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        whole, cwd=lab.job, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )


def asked(lab: Lab, verb: str) -> subprocess.CompletedProcess[str]:
    if verb == "hook":
        return command(lab, "hook", stdin=json.dumps(request().to_data()))
    job = lab.folder / "job.yaml"
    job.write_text("subject: user:alice\nresource: job:team/vision/run-17\nproperties: {gpus: 8}\n")
    return command(lab, "run", "--job", str(job), "--", sys.executable, "train.py", str(lab.ran))


@pytest.mark.parametrize("verb", ["run", "hook"])
def test_policies_that_do_not_load_refuse_in_the_log(lab: Lab, verb: str) -> None:
    """The exit code is what it was, and an entry that says for whom nothing could be decided, and why."""
    (lab.folder / "policies" / "jobs.yaml").write_text("kind: Nonsense\n")
    done = asked(lab, verb)
    assert done.returncode == 65, done.stderr
    assert (lab.ran.exists(), "Traceback" in done.stderr) == (False, False)
    (refused,) = entries(lab)
    assert refused.reason_codes == ("guard.unusable",)
    account = f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    # `run` knows the account, and the job file is only a claim; a hook has nothing but the request.
    requester = account if verb == "run" else "user:alice"
    assert (refused.decision, refused.requester, refused.action) == ("deny", requester, "job:submit")
    assert "jobs.yaml" in refused.missing["guard"]
    claimed = refused.facts.pop("subject.requested")
    assert (bytes(claimed.value or b""), claimed.assurance) == (b'"user:alice"', "claimed")
    assert {path: fact.assurance for path, fact in refused.facts.items()} == (
        {"subject.account": "observed"} if verb == "run" else {}
    )


@pytest.mark.parametrize("verb", ["run", "hook"])
def test_without_a_log_the_refusal_is_the_same(lab: Lab, verb: str) -> None:
    """Where the entry cannot be written either, the first problem is what is reported, in one line."""
    (lab.folder / "policies" / "jobs.yaml").write_text("kind: Nonsense\n")
    (lab.folder / "audit.db").mkdir()
    done = asked(lab, verb)
    assert (done.returncode, "Traceback" in done.stderr) == (65, False)
    assert "Nonsense" in done.stderr + done.stdout
