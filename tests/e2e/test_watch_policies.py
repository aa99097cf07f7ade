"""Policies that are exchanged while a job runs: accepted ones speak against it, others are told once and not used."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from policyguard.attest.dsse import parse
from policyguard.attest.statement import parse_statement
from policyguard.audit.entries import DECISION_ENTRY
from policyguard.audit.stores.sqlite import SqliteStore
from tests.e2e.launcher_lab import Lab
from tests.e2e.watch_lab import PERIOD_S, Obeying, eventually, obeying_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return obeying_lab(tmp_path)


def policies(lab: Lab) -> Path:
    return lab.folder / "policies" / "jobs.yaml"


def replaced(lab: Lab, old: str, new: str) -> None:
    text = policies(lab).read_text()
    assert old in text
    policies(lab).write_text(text.replace(old, new))


def last_entry(lab: Lab) -> object:
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        last = store.last()
        assert last is not None
        decisions = [row.leaf for row in store.read(0, last.entry + 1) if DECISION_ENTRY.matches(row.leaf)]
        return parse_statement(parse(decisions[-1]).payload).predicate


def test_policies_that_now_deny_are_a_logged_alert(lab: Lab) -> None:
    """A job that newer policies would not allow is told, with their reasons; it goes on, as nothing says stop."""
    with lab.guard() as guard, Obeying(lab, guard) as job:
        replaced(lab, "resource.gpus <= 8", "resource.gpus <= 4")
        assert eventually(lambda: bool(job.alerts))
        job.enough()
        assert job.status == 0
    assert job.reasons == [("drift.policy",)]
    assert "engine.no_allow" in job.words("resource.policy")
    assert last_entry(lab).reason_codes == ("drift.policy",)  # type: ignore[attr-defined]


def test_policies_exchanged_before_the_watch_began_are_judged(lab: Lab) -> None:
    """Between the decision and the first look nobody wins time: the guard decided by what is no longer there."""
    with lab.guard() as guard:
        replaced(lab, "resource.gpus <= 8", "resource.gpus <= 4")
        with Obeying(lab, guard) as job:
            assert eventually(lambda: bool(job.alerts))
    assert job.reasons == [("drift.policy",)]


def test_policies_that_still_allow_are_no_alert(lab: Lab) -> None:
    """The twin: other policies, the same answer; nothing is told."""
    with lab.guard() as guard, Obeying(lab, guard) as job:
        replaced(lab, "resource.gpus <= 8", "resource.gpus <= 9")
        time.sleep(6 * PERIOD_S)
    assert (job.status, job.alerts) == (0, [])


def test_the_way_back_is_reported(lab: Lab) -> None:
    """Whoever puts the old policies back leaves both instants in the log."""
    with lab.guard() as guard, Obeying(lab, guard) as job:
        replaced(lab, "resource.gpus <= 8", "resource.gpus <= 4")
        assert eventually(lambda: len(job.alerts) == 1)
        replaced(lab, "resource.gpus <= 4", "resource.gpus <= 8")
        assert eventually(lambda: len(job.alerts) == 2)
    assert job.reasons == [("drift.policy",), ("drift.reverted",)]


def test_a_denial_ends_the_job_only_where_the_decision_says_so(lab: Lab) -> None:
    """With the obligation of the decision it was started under, the job ends with 77, after the alert."""
    path = policies(lab)
    path.write_text(path.read_text().rstrip() + "\n    obligations: [stop.on_drift]\n")
    with lab.guard() as guard, Obeying(lab, guard) as job:
        replaced(lab, "resource.gpus <= 8", "resource.gpus <= 4")
        job.thread.join(15)
        assert job.status == 77
    assert job.reasons == [("drift.policy",)]


def test_policies_that_do_not_load_change_nothing_and_are_reported_once(lab: Lab) -> None:
    """Breaking the policies ends no job and silences no alert; it is an alert of its own, told once."""
    path = policies(lab)
    path.write_text(path.read_text().rstrip() + "\n    obligations: [stop.on_drift]\n")
    with lab.guard() as guard, Obeying(lab, guard) as job:
        replaced(lab, "kind: Policy", "kind: Polcy")
        assert eventually(lambda: bool(job.alerts))
        time.sleep(4 * PERIOD_S)
        assert job.reasons == [("drift.policies_unusable",)]
        assert "Polcy" in job.words("resource.policies")
        (lab.job / "optimizer.py").write_text("step = None\n")
        job.thread.join(15)
        assert job.status == 77
    assert job.reasons[-1] == ("drift.code", "drift.policies_unusable")


@pytest.mark.parametrize("pinned", [True, False], ids=["their digest is not accepted", "it is"])
def test_only_accepted_policies_speak_against_a_job(lab: Lab, pinned: bool) -> None:
    """I4: whoever can write the policy folder, but not the trust of the workers, ends nobody's job."""
    path = policies(lab)
    path.write_text(path.read_text().rstrip() + "\n    obligations: [stop.on_drift]\n")
    with lab.guard() as guard:
        digests = frozenset({guard.snapshot.policy_digest}) if pinned else frozenset()
        trust = replace(lab.trust, policy_digests=digests, min_epoch=None if pinned else 1)
        with Obeying(lab, guard, trust=trust) as job:
            replaced(lab, "resource.gpus <= 8", "resource.gpus <= 4")
            assert eventually(lambda: bool(job.alerts))
            if pinned:
                time.sleep(2 * PERIOD_S)
            job.enough()
    assert (job.status, job.reasons) == ((0, [("drift.policies_unusable",)]) if pinned else (77, [("drift.policy",)]))


def test_policies_are_judged_once_they_are_accepted(lab: Lab) -> None:
    """Whoever publishes policies first and the workers' trust after that need not touch the policies again."""
    accepted: list[str] = []
    with lab.guard() as guard, Obeying(lab, guard, accepts=lambda digest, _: digest in accepted) as job:
        replaced(lab, "resource.gpus <= 8", "resource.gpus <= 4")
        assert eventually(lambda: job.reasons == [("drift.policies_unusable",)])
        accepted.append(guard.policies_on_disk().policy_digest)
        assert eventually(lambda: len(job.alerts) == 2)
    assert job.reasons[1] == ("drift.policy",)


def test_older_policies_speak_against_nobody(lab: Lab) -> None:
    """I4: an older epoch is told and not used, as a reload refuses it (I4)."""
    replaced(lab, "kind: Schema\n", "kind: Schema\nmetadata: {name: lab, epoch: 3}\n")
    with lab.guard() as guard, Obeying(lab, guard) as job:
        text = policies(lab).read_text().replace("epoch: 3", "epoch: 2").replace("gpus <= 8", "gpus <= 4")
        policies(lab).write_text(text)
        assert eventually(lambda: bool(job.alerts))
    assert job.reasons == [("drift.policies_unusable",)]
    assert "epoch 2, expected at least 3" in job.words("resource.policies")
