"""A rule may want a fact known better than the schema does: large jobs rest on stronger evidence than small ones."""

from __future__ import annotations

import msgspec
import pytest

from policyguard.decide.compiled_form import compile_policy
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of

NOW = 1_800_000_000 * 10**9
POLICIES = """\
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
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs}
rules:
  - {id: anyone, effect: allow, actions: [job:submit], when: resource.gpus > 0}
  - id: large-jobs-in-their-queue
    effect: deny
    actions: [job:submit]
    when: resource.gpus >= 256 && resource.queue != "large"
    assurance: {resource.queue: observed}
    reason: queue.large
"""
POLICY_SET = load({"lab.yaml": POLICIES.encode()})
SNAPSHOT = Snapshot.of(POLICY_SET, grants_of(POLICY_SET))


def decided(gpus: int, queue: str, assurance: Assurance) -> Decision:
    request = Request.of("user:alice", "job:submit", "job:team/vision/run")
    entries = {
        "resource.gpus": Fact(gpus, Assurance.CLAIMED, "request", NOW),
        "resource.queue": Fact(queue, assurance, "request", NOW),
    }
    return Engine(SNAPSHOT).decide(Facts(request, entries), NOW)


def test_a_small_job_may_claim_what_a_large_one_must_show() -> None:
    """Below the tier the weaker fact is never read; above it, it is absent and the deny fires on the error."""
    assert decided(8, "small", Assurance.CLAIMED).allowed
    assert not decided(256, "large", Assurance.CLAIMED).allowed
    assert decided(256, "large", Assurance.OBSERVED).allowed
    assert decided(256, "small", Assurance.ATTESTED).reason_codes == ("queue.large",)


def test_the_denial_says_how_well_it_must_be_known() -> None:
    """INVARIANT I1: the explanation names the fact, how it is known and what counts for this rule."""
    decision = decided(256, "large", Assurance.CLAIMED)
    assert decision.errored == ("large-jobs-in-their-queue",)
    assert "resource.queue present but only claimed, observed counts" in decision.explain()


def test_the_compiled_form_keeps_it() -> None:
    """A snapshot from its compiled form decides the same."""
    compiled = msgspec.json.decode(msgspec.json.encode(compile_policy(POLICY_SET, grants_of(POLICY_SET))))
    again = Snapshot.from_compiled(compiled, SNAPSHOT.policy_digest)
    assert again.by_id["large-jobs-in-their-queue"].assurance == (("resource.queue", 2),)


@pytest.mark.parametrize("wrong", [[["resource.queue", 1]], [["queue", 2]], [["resource.queue"]], None])
def test_a_compiled_form_with_another_spelling_is_refused(wrong: object) -> None:
    """No level that counts for nothing, no path of nowhere."""
    compiled = msgspec.json.decode(msgspec.json.encode(compile_policy(POLICY_SET, grants_of(POLICY_SET))))
    compiled["policy"]["rules"][1][-1] = wrong
    with pytest.raises(ConfigurationError):
        Snapshot.from_compiled(compiled, SNAPSHOT.policy_digest)
