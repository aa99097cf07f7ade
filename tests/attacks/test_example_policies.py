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

POLICIES = Path(__file__).parents[2] / "policies"
NOW = parse_instant("2030-03-07T12:00:00Z")
SIBLINGS = ("job:submit", "job:start", "job:modify", "job:prioritize", "job:preempt")
"""The actions by which a job gets GPUs, or gets them earlier."""

CODE: dict[str, Any] = {
    "commit": "4d1f0c",
    "tree": "9e02ab",
    "dirty": False,
    "dirty_files": [],
    "untracked_files": [],
    "ignored_code_files": [],
    "environments": [],
    "outside_links": [],
    "submodules": [],
    "history": [],
}
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


def decide(subject: str, action: str, *, approved_by: tuple[str, ...] = (), **resource: Any) -> Decision:
    """Decide about a job of the subject, with measured facts that are all in order but for `resource`."""
    facts = {**JOB, "resource.owner": subject, **{f"resource.{name}": value for name, value in resource.items()}}
    grant = {"grant_id": "g", "subject": subject, "gpus": 64, "expires": "2030-03-08T12:00:00Z"}
    entries = {path: Fact(freeze(value), Assurance.ATTESTED, "test", NOW) for path, value in facts.items()}
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
    assert decide("user:bob", action, gpus=64, team_limit=64).allowed
    assert decide("user:bob", action, gpus=1).allowed


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
