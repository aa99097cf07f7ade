"""An insider against the example policies: the same job by another action, amounts below one, branches of others."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Approval, Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy_store.load import load_snapshot
from policyguard.values import NANOSECONDS_PER_S, freeze, parse_instant
from tests.attacks.test_claims import CODE

POLICIES = Path(__file__).parents[2] / "policies"
NOW = parse_instant("2030-03-07T12:00:00Z")
SIBLINGS = ("job:submit", "job:start", "job:modify", "job:prioritize", "job:preempt")
"""The actions by which a job gets GPUs, or gets them earlier."""

JOB: dict[str, Any] = {
    "subject.authenticated": True,
    "resource.argv": ["python3", "train.py"],
    "resource.code_injecting_env": {},
    "resource.injection_treatment": {},
    "resource.code": CODE,
    "resource.uncommitted": [],
    "resource.unsigned_commits": [],
    "resource.accepted_history": True,
    "resource.program": {"kind": "script", "origin": "commit"},
    "resource.checkpoints": [],
    "resource.environment_baseline": True,
    "resource.environment": {"changed_files": [], "unlike_bytecode": [], "unowned_autorun": []},
    "resource.team_limit": 8192,
    "resource.team_usage": 0,
    "resource.target_team": "vision",
    "resource.victim_teams": [],
    "resource.node_drained": False,
}


@cache
def example() -> Snapshot:
    return load_snapshot(POLICIES, ())


def decide(
    subject: str,
    action: str,
    *,
    approved_by: tuple[str, ...] = (),
    claimed: tuple[str, ...] = (),
    **resource: Any,
) -> Decision:
    """Decide about a job of the subject, with measured facts that are all in order but for `resource`."""
    facts = {**JOB, "resource.owner": subject, **{f"resource.{name}": value for name, value in resource.items()}}
    grant = {"grant_id": "g", "subject": subject, "gpus": 64, "expires": "2030-03-08T12:00:00Z"}
    entries = {path: Fact(freeze(value), Assurance.ATTESTED, "test", NOW) for path, value in facts.items()}
    entries |= {path: Fact(entries[path].value, Assurance.CLAIMED, "request", NOW) for path in claimed}
    entries["context.grants"] = Fact(freeze([grant]), Assurance.ATTESTED, "test", NOW)
    approvals = tuple(
        Approval(who, Assurance.ATTESTED, "test", NOW, NOW + NANOSECONDS_PER_S, who) for who in approved_by
    )
    request = Request.of(subject, action, "job:team/vision/run-1")
    return Engine(example()).decide(Facts(request, entries, approvals=approvals, contributors=(subject,)), NOW)


@pytest.mark.parametrize("action", SIBLINGS)
@pytest.mark.parametrize("subject", ["user:ivan", "user:bob", "user:carol"])
@pytest.mark.parametrize("gpus", [0, -1, -(2**53 - 1), 4097, 2**53 - 1])
def test_no_action_takes_fewer_than_one_gpu_or_more_than_the_largest_job(subject: str, action: str, gpus: int) -> None:
    """An intern with a grant, a researcher, a lead; two leads approve whatever it is."""
    decision = decide(subject, action, gpus=gpus, approved_by=("user:carol", "user:dan"))
    assert not decision.allowed
    assert {"quota.no_gpus", "quota.largest_job"} & set(decision.reason_codes)


@pytest.mark.parametrize("action", SIBLINGS)
def test_a_ceiling_holds_for_every_way_to_the_gpus(action: str) -> None:
    """65 GPUs with a grant for 64; 64 beyond the team's limit; 256 without approval."""
    assert not decide("user:ivan", action, gpus=65).allowed
    assert "grant.scope" in decide("user:ivan", action, gpus=65).reason_codes
    assert "quota.team_limit" in decide("user:bob", action, gpus=64, team_limit=63).reason_codes
    assert "quorum.large_job" in decide("user:bob", action, gpus=256).reason_codes
    assert decide("user:bob", action, gpus=64, gpus_before=64, team_limit=64).allowed
    assert decide("user:bob", action, gpus=1).allowed


UNREVIEWED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("code.uncommitted", {"code": {**CODE, "dirty": True, "dirty_files": ["train.py"]}}),
    ("code.uncommitted", {"code": {**CODE, "untracked_files": ["helper.py"]}}),
    ("code.outside_commit", {"code": {**CODE, "outside_links": ["lib"]}}),
    ("code.outside_commit", {"code": {**CODE, "history": ["grafts"]}}),
    ("code.ignored", {"code": {**CODE, "ignored_code_files": ["fused.so"]}}),
    ("code.other_program", {"program": {"kind": "inline", "origin": "none"}}),
    ("code.unsigned", {"unsigned_commits": ["4d1f0c"]}),
    ("code.foreign_history", {"accepted_history": False}),
    ("env.no_baseline", {"environment_baseline": False}),
    ("env.code_injection", {"injection_treatment": {"LD_LIBRARY_PATH": "restricted"}}),
)
"""A reason, and what is measured of a job of which the code, program or environment is not in order."""


@pytest.mark.parametrize("action", ["job:submit", "job:start"])
@pytest.mark.parametrize(("reason", "measured"), UNREVIEWED)
@pytest.mark.parametrize("gpus", [9, 255])
def test_a_job_starts_with_no_code_that_could_not_be_submitted(
    action: str, reason: str, measured: dict[str, Any], gpus: int
) -> None:
    """Bob starts with 255 GPUs what was never submitted with more than 8."""
    decision = decide("user:bob", action, gpus=gpus, **measured)
    assert not decision.allowed
    assert reason in decision.reason_codes
    assert decide("user:bob", action, gpus=gpus).allowed


@pytest.mark.parametrize("name", ["code", "program", "unsigned_commits", "accepted_history", "environment_baseline"])
def test_a_job_of_which_nothing_was_measured_does_not_start(name: str) -> None:
    decision = decide("user:bob", "job:start", gpus=64, claimed=(f"resource.{name}",))
    assert "engine.error" in decision.reason_codes
    assert decide("user:bob", "job:start", gpus=64).allowed


@pytest.mark.parametrize("action", ["job:submit", "job:start"])
@pytest.mark.parametrize("subject", ["user:ivan", "user:bob"])
def test_what_a_larger_job_runs_cannot_be_replaced_after_the_decision(action: str, subject: str) -> None:
    """From nine GPUs on it runs from an export of its commit, from 64 on confined; an intern with a grant as well."""
    leads = ("user:carol", "user:dan")
    for gpus, obliged in ((8, set()), (9, {"run.from_commit"}), (63, {"run.from_commit"})):
        decision = decide(subject, action, gpus=gpus)
        assert decision.allowed
        assert set(decision.obligations) & {"run.from_commit", "run.confined"} == obliged
    for gpus in (64,) if subject == "user:ivan" else (64, 255, 256, 4096):
        decision = decide(subject, action, gpus=gpus, approved_by=leads)
        assert decision.allowed
        assert {"run.from_commit", "run.confined", "stop.on_drift"} <= set(decision.obligations)


@pytest.mark.parametrize("subject", ["user:ivan", "user:bob", "user:carol"])
@pytest.mark.parametrize("before", [None, 1, 8, 63])
def test_a_small_job_does_not_grow_to_one_whose_code_nobody_measured(subject: str, before: int | None) -> None:
    """Submitted with 8 GPUs and `python -c`, then changed to 64; a job that has 64 may be changed, and made smaller."""
    known: dict[str, Any] = {} if before is None else {"gpus_before": before}
    assert "code.not_measured" in decide(subject, "job:modify", gpus=64, **known).reason_codes
    for gpus in (1, 8, 9, 64):
        assert decide(subject, "job:modify", gpus=gpus, gpus_before=64).allowed
    assert decide(subject, "job:modify", gpus=8, **known).allowed


def loads(*reasons: str, size: int = 9, **more: Any) -> list[dict[str, Any]]:
    """Make the records of a job that loads one file of which the scan says `unknown` for these reasons."""
    plain = {"path": "net", "digest": "77aa", "size": size, "format": "unknown", "named_format": "unknown"}
    signed = {"verdict": "unknown", "reasons": list(reasons), "producer": "", "manifest_matches": False}
    return [{**plain, **signed, **more}]


@pytest.mark.parametrize("action", ["job:submit", "job:start"])
@pytest.mark.parametrize("gpus", [1, 8, 9, 255])
@pytest.mark.parametrize("confined", [{}, {"confinement": {"abi": 7, "paths": {}, "roots": {}}}])
@pytest.mark.parametrize(
    "records",
    [
        loads("ckpt.not_searched", size=0),
        loads("ckpt.symlink", size=0),
        loads("ckpt.unreadable", size=0),
        loads("ckpt.not_regular", size=0),
        loads("ckpt.missing", "ckpt.not_searched", size=0),
        loads("ckpt.target_unlisted", "hub.own_code"),
        loads("ckpt.yaml_tag", "hub.own_code"),
        loads("ckpt.missing"),
        loads(),
    ],
)
def test_what_nobody_could_read_is_loaded_by_no_job(
    action: str, gpus: int, confined: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    """A folder not searched to its end, a link elsewhere, a reason beside an accepted one, in a job of any size."""
    assert "ckpt.unknown" in decide("user:bob", action, gpus=gpus, checkpoints=records, **confined).reason_codes
    signed = [{**record, "producer": "user:rosa", "manifest_matches": True} for record in records]
    assert "ckpt.unknown" not in decide("user:bob", action, gpus=gpus, checkpoints=signed, **confined).reason_codes


@pytest.mark.parametrize("action", ["job:submit", "job:start"])
def test_a_job_may_name_what_is_not_there_and_a_small_one_code_of_a_model(action: str) -> None:
    assert decide("user:bob", action, gpus=64, checkpoints=loads("ckpt.missing", size=0)).allowed
    assert decide("user:bob", action, gpus=64, checkpoints=loads("ckpt.empty", size=0)).allowed
    assert decide("user:bob", action, gpus=8, checkpoints=loads("hub.own_code")).allowed
    assert not decide("user:bob", action, gpus=9, checkpoints=loads("hub.own_code")).allowed


@pytest.mark.parametrize("action", SIBLINGS)
@pytest.mark.parametrize("name", ["time_limit", "priority", "qos", "gpus_per_node"])
def test_what_no_rule_bounds_is_not_asked_for(action: str, name: str) -> None:
    """The schema declares no such attribute, so that a request which names it is denied, not granted unread."""
    decision = Engine(example()).decide(
        Facts(
            Request.of("user:bob", action, "job:team/vision/run-1", context=None, **{name: 1}),
            {
                **{path: Fact(freeze(value), Assurance.ATTESTED, "test", NOW) for path, value in JOB.items()},
                "resource.gpus": Fact(1, Assurance.CLAIMED, "request", NOW),
                "resource.owner": Fact("user:bob", Assurance.ATTESTED, "test", NOW),
                f"resource.{name}": Fact(1, Assurance.CLAIMED, "request", NOW),
            },
        ),
        NOW,
    )
    assert not decision.allowed
    assert any(name in line for line in decision.explain().splitlines())


@pytest.mark.parametrize(
    "ref", ["refs/heads/wip", "refs/heads/wip/", "refs/heads/wip/alice", "refs/heads/wip/bobby", "refs/heads/wip/BOB/x"]
)
@pytest.mark.parametrize("action", ["repo:push", "repo:rewrite"])
def test_work_in_progress_belongs_to_the_account_that_it_names(ref: str, action: str) -> None:
    """Bob pushes, force-pushes and deletes; what is his he may, and nobody's approval is asked for."""
    facts = {"change": "rewrite", "signature": "good", "signer": "user:bob", "changed_paths": ["x"], "submodules": []}

    def decided(ref: str) -> Decision:
        entries = {
            f"resource.{name}": Fact(freeze(value), Assurance.ATTESTED, "test", NOW)
            for name, value in {**facts, "links": [], "ref": ref}.items()
        }
        request = Request.of("user:bob", action, "repo:team/vision/trainer")
        return Engine(example()).decide(Facts(request, entries), NOW)

    assert "repo.not_owner" in decided(ref).reason_codes
    assert decided("refs/heads/wip/bob").allowed
    assert decided("refs/heads/wip/bob/topic").allowed
