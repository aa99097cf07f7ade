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


FLOORED = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit]
    attributes:
      gpus: {type: int, optional: true}
      queue: {type: string, optional: true}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: lead}]
---
apiVersion: policyguard/v1
kind: Quorums
quorums: [{id: two, approvers: [{count: 2, roles: [lead]}], of: request}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs}
rules:
  - {id: base, effect: allow, actions: [job:submit], when: BASE}
  - {id: floored, EFFECT, actions: [job:submit], when: resource.gpus < 64 && CONDITION,
     assurance: {resource.queue: observed}}
"""
ALLOWING = "effect: allow"
DENYING = "effect: deny, reason: queue.wrong"
REQUIRING = "effect: require, quorum: two"
OVERFLOW = 'resource.queue == "large" && resource.gpus * 9007199254740991 * 9007199254740991 > 0'


def floored(
    effect: str, assurance: Assurance, *, base: str = "resource.gpus > 0", condition: str = "", gpus: int = 8
) -> Decision:
    """Decide with one rule that has an assurance floor; the fact is in queue `large`, of this assurance."""
    condition = condition or 'resource.queue == "large"'
    text = FLOORED.replace("EFFECT", effect).replace("BASE", base).replace("CONDITION", condition)
    policies = load({"lab.yaml": text.encode()})
    request = Request.of("user:alice", "job:submit", "job:team/vision/run")
    entries = {
        "resource.gpus": Fact(gpus, Assurance.MEASURED, "test", NOW),
        "resource.queue": Fact("large", assurance, "test", NOW),
    }
    return Engine(Snapshot.of(policies, grants_of(policies))).decide(Facts(request, entries), NOW)


WEAK = (Assurance.CLAIMED,)
STRONG = (Assurance.OBSERVED, Assurance.MEASURED, Assurance.ATTESTED)


@pytest.mark.parametrize("assurance", WEAK)
def test_an_error_under_a_floor_never_grants(assurance: Assurance) -> None:
    """I2: the only allow reads a fact that is too weak for it: an error, recorded, and no allow."""
    decision = floored(ALLOWING, assurance, base="resource.gpus < 0")
    assert (decision.allowed, decision.errored) == (False, ("floored",))
    assert not floored(ALLOWING, assurance, base="resource.gpus < 0", condition='resource.queue != "large"').allowed


@pytest.mark.parametrize("assurance", STRONG)
def test_an_allow_under_a_floor_that_is_met_grants(assurance: Assurance) -> None:
    """The twin, one level up."""
    decision = floored(ALLOWING, assurance, base="resource.gpus < 0")
    assert (decision.allowed, decision.errored, decision.determining) == (True, (), ("floored",))
    assert not floored(ALLOWING, assurance, base="resource.gpus < 0", condition='resource.queue != "large"').allowed


@pytest.mark.parametrize("condition", ['resource.queue == "large"', 'resource.queue == "small"'])
def test_an_error_under_a_floor_denies_and_requires(condition: str) -> None:
    """Deny fires and require applies whatever the weak fact says; with a strong one only where they are true."""
    for assurance in WEAK:
        denied = floored(DENYING, assurance, condition=condition)
        assert (denied.allowed, denied.errored, denied.reason_codes) == (False, ("floored",), ("engine.error",))
        required = floored(REQUIRING, assurance, condition=condition)
        assert (required.allowed, required.errored) == (False, ("floored",))
    for assurance in STRONG:
        holds = condition == 'resource.queue == "large"'
        for effect in (DENYING, REQUIRING):
            decision = floored(effect, assurance, condition=condition)
            assert (decision.allowed, decision.errored) == (not holds, ())


def test_a_false_part_absorbs_the_error_under_a_floor() -> None:
    """CEL's `&&` is false with one false part: the rule does not concern large jobs, however weak the fact."""
    for effect in (DENYING, REQUIRING):
        decision = floored(effect, Assurance.CLAIMED, gpus=64)
        assert (decision.allowed, decision.errored) == (True, ())
    assert not floored(ALLOWING, Assurance.CLAIMED, base="resource.gpus < 0", gpus=64).errored


def test_another_error_in_a_rule_with_a_floor_is_an_error_too() -> None:
    """Overflow with a strong fact: the exact evaluator decides under a floor, and errors count as ever."""
    for assurance in Assurance:
        assert floored(ALLOWING, assurance, base="resource.gpus < 0", condition=OVERFLOW).errored == ("floored",)
        assert not floored(ALLOWING, assurance, base="resource.gpus < 0", condition=OVERFLOW).allowed
        assert not floored(DENYING, assurance, condition=OVERFLOW).allowed
        assert not floored(REQUIRING, assurance, condition=OVERFLOW).allowed


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
def test_a_compiled_form_with_another_encoding_is_refused(wrong: object) -> None:
    """No level that counts for nothing, no path of nowhere."""
    compiled = msgspec.json.decode(msgspec.json.encode(compile_policy(POLICY_SET, grants_of(POLICY_SET))))
    compiled["policy"]["rules"][1][-1] = wrong
    with pytest.raises(ConfigurationError):
        Snapshot.from_compiled(compiled, SNAPSHOT.policy_digest)
