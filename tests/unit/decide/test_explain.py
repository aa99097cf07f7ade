"""Explanations say what was decided, hide what is sensitive, and stay one page of one-line sentences."""

from __future__ import annotations

import pytest

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from policyguard.values import FrozenMap, Value

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
      name: {type: string, optional: true}
      secret: {type: string, optional: true, sensitive: true}
      clean: {type: bool, optional: true, assurance: measured}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: member}, {name: lead, inherits: [member]}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings:
  - {subject: "user:alice", role: member, domain: vision}
  - {subject: "user:carol", role: lead, domain: vision}
---
apiVersion: policyguard/v1
kind: Quorums
quorums: [{id: one-lead, approvers: [{count: 1, roles: [lead]}]}]
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs}
rules:
  - id: members
    effect: allow
    roles: [member]
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus <= 8 && resource.clean
  - id: forbidden-names
    effect: deny
    actions: [job:submit]
    resources: {type: job}
    when: resource.name == "evil" || resource.secret == "s3cret"
    reason: job.name
    remedy: choose another name
    contact: user:carol
  - id: large
    effect: require
    actions: [job:submit]
    resources: {type: job}
    when: resource.gpus > 4
    quorum: one-lead
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    policy_set = load({"policies/all.yaml": POLICIES.encode()})
    return Snapshot.of(policy_set, grants_of(policy_set))


def decide(snapshot: Snapshot, user: str = "alice", missing: str | None = None, **values: Value) -> Decision:
    given: dict[str, Value] = {"gpus": 1, "name": "good", "secret": "none", "clean": True, **values}
    entries = {f"resource.{name}": Fact(value, Assurance.MEASURED, "test", NOW) for name, value in given.items()}
    reasons = FrozenMap()
    if missing is not None:
        del entries[missing]
        reasons = FrozenMap({missing: "test: nobody looked"})
    request = Request.of(f"user:{user}", "job:submit", "job:team/vision/run-17")
    return Engine(snapshot).decide(Facts(request, entries, reasons), NOW)


def test_an_allow_names_its_rule_and_place(snapshot: Snapshot) -> None:
    """First the answer, then the reason, the rule with file, line and column, and the policies."""
    decision = decide(snapshot)
    assert decision.allowed
    lines = decision.explain().splitlines()
    assert lines[0] == "ALLOW  user:alice  job:submit  job:team/vision/run-17"
    assert lines[1] == "reason   rule.allow"
    assert "rule `members` allows  (policies/all.yaml:" in lines[2]
    assert lines[-1].startswith(f"policy   {snapshot.policy_digest[:16]} epoch 1, decided at 2027-01-15T08:00:00Z")


def test_a_deny_says_what_would_change_it(snapshot: Snapshot) -> None:
    """The atom that fired, the remedy and whom to ask."""
    text = decide(snapshot, name="evil").explain()
    for part in (
        "reason   job.name",
        "rule `forbidden-names` denies",
        "resource.name = evil (measured, test)",
        "remedy   choose another name",
        "ask      user:carol",
    ):
        assert part in text


def test_sensitive_values_are_hidden(snapshot: Snapshot) -> None:
    """A sensitive fact decides and is never shown, not even in the full trace or when it is wrong."""
    for decision in (decide(snapshot, secret="s3cret"), decide(snapshot, secret="hunter2"), decide(snapshot, secret=7)):
        text = decision.explain(full=True)
        assert "hunter2" not in text
        assert "resource.secret = " not in text
    assert not decide(snapshot, secret="s3cret").allowed


def test_a_missing_fact_says_why(snapshot: Snapshot) -> None:
    """A deny that could not be evaluated names the fact and the collector's reason."""
    decision = decide(snapshot, missing="resource.name")
    assert decision.reason_codes == ("engine.error",)
    assert "resource.name is missing: test: nobody looked" in decision.explain()


def test_a_stranger_learns_which_role_is_needed(snapshot: Snapshot) -> None:
    """Without an allow the rules that could have are named, with what kept each."""
    text = decide(snapshot, user="mallory").explain()
    assert "no rule allows it; 1 could have" in text
    assert "needs role `member` in `vision`; `user:mallory` holds no role there" in text


def test_a_gap_names_who_can_approve(snapshot: Snapshot) -> None:
    """An unmet quorum says how many are missing and who holds the role."""
    text = decide(snapshot, gpus=8).explain()
    assert "missing  1 more person with role `lead` in `vision` (quorum `one-lead`)" in text
    assert "user:carol" in text


@pytest.mark.parametrize("value", ["a\nALLOW  user:mallory", "a\x1b[2J", "a\u2028b", "x" * 100_000], ids=repr)
def test_a_value_cannot_forge_a_line(value: str, snapshot: Snapshot) -> None:
    """Line breaks in a value stay inside its line, and a huge value is cut."""
    text = decide(snapshot, name=value, gpus=9).explain(full=True)
    assert [line for line in text.splitlines() if line.startswith("ALLOW")] == []
    assert max(map(len, text.splitlines())) < 1000


def test_explaining_again_says_the_same(snapshot: Snapshot) -> None:
    """An explanation is of the decision, not of the moment it is asked for."""
    decision = decide(snapshot, name="evil")
    assert decision.explain() == decision.explain()
    assert len(decision.explain(full=True)) > len(decision.explain())


SEVERAL = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job: {id: "*", actions: [submit], attributes: {gpus: {type: int}, clean: {type: bool}, quota: {type: int}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs}
rules:
  - {id: small, effect: allow, actions: [job:submit], resources: {type: job}, when: resource.gpus < 8}
  - {id: none, effect: deny, actions: [job:submit], resources: {type: job}, when: resource.gpus < 1}
  - {id: dirty, effect: deny, actions: [job:submit], resources: {type: job},
     when: "!resource.clean && resource.gpus > 1"}
  - {id: over, effect: deny, actions: [job:submit], resources: {type: job}, when: resource.quota < 1}
  - {id: named, effect: deny, actions: [job:submit], resources: {type: job}, when: resource.id == "x"}
"""


@pytest.mark.parametrize("full", [False, True])
def test_a_fact_that_several_rules_need_is_one_block(full: bool) -> None:
    """What decided comes first; each missing fact is there once, and `full` has a block for each rule."""
    policies = load({"p.yaml": SEVERAL.encode()})
    engine = Engine(Snapshot.of(policies, grants_of(policies)))
    request = Request.of("user:alice", "job:submit", "job:x")
    decision = engine.decide(Facts(request, {}, contributors=()), 1_800_000_000 * 10**9)
    lines = engine.explain(decision, full=full).split("\n")[2:-1]
    assert lines[0].startswith("because  rule `named` denies")
    if full:
        assert sum("could not be evaluated" in line for line in lines) == 4
        return
    assert [line.partition("  (")[0] for line in lines[2:]] == [
        "because  rule `over` could not be evaluated, so it denies",
        "           resource.quota is missing",
        "because  resource.gpus is missing, so 3 rules could not be evaluated",
        "           denied by `dirty`, `none`",
        "           not allowed by `small`",
        "because  some of these rules need more than that",
        "           resource.clean is missing",
    ]
