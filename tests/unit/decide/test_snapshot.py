"""What hosts ask a snapshot: which approvals it uses up, what it reads and hides, and how long a decision lasts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from policyguard.decide.engine import Engine
from policyguard.decide.redaction import withheld
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.facts import Approval, Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of

NOW = 1_800_000_000 * 10**9
HOUR = 3600 * 10**9
POLICIES = """\
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit, stop, start, kill, list]
    attributes:
      gpus: {type: int}
      secret: {type: string, sensitive: true, optional: true}
      code: {type: code, optional: true}
  node: {actions: [drain], attributes: {owner: {type: string, sensitive: true, optional: true}}}
records: {code: {attributes: {files: {type: list(string), sensitive: trace}}}}
---
apiVersion: policyguard/v1
kind: Roles
roles: [{name: lead}]
---
apiVersion: policyguard/v1
kind: Bindings
bindings: [{subject: "user:lena", role: lead, domain: red}, {subject: "user:omar", role: lead, domain: "*"}]
---
apiVersion: policyguard/v1
kind: Persons
persons:
  - {id: alice, accounts: ["user:alice"]}
  - {id: lena, accounts: ["user:lena"]}
  - {id: omar, accounts: ["user:omar"]}
---
apiVersion: policyguard/v1
kind: Quorums
quorums:
  - {id: request, approvers: [{count: 1, roles: [lead]}], of: request}
  - {id: once, approvers: [{count: 1, roles: [lead]}], of: request, once: true}
  - {id: tree, approvers: [{count: 1, roles: [lead]}]}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: rules}
rules:
  - id: small
    effect: allow
    actions: ["job:submit", "job:stop", "job:start", "job:kill", "job:list"]
    when: resource.gpus < 9
  - {id: drain, effect: allow, actions: ["node:drain"]}
  - {id: submit, effect: require, actions: ["job:submit"], quorum: once}
  - {id: stop, effect: require, actions: ["job:stop"], quorum: request}
  - {id: start-tree, effect: require, actions: ["job:start"], quorum: tree}
  - {id: start, effect: require, actions: ["job:start"], quorum: request}
  - {id: kill, effect: require, actions: ["job:kill"], quorum: once}
  - {id: kill-tree, effect: require, actions: ["job:kill"], quorum: tree}
"""
POLICY_SET = load({"lab.yaml": POLICIES.encode()})
SNAPSHOT = Snapshot.of(POLICY_SET, grants_of(POLICY_SET))


def decided(
    action: str, *approvers: str, gpus: int = 8, resource: str = "job:team/red/run", left: int = HOUR
) -> Decision:
    request = Request.of("user:alice", action, resource)
    approvals = tuple(Approval(f"user:{name}", Assurance.ATTESTED, "test", NOW, NOW + left, "00") for name in approvers)
    entries = {"resource.gpus": Fact(gpus, Assurance.CLAIMED, "request", NOW)} if resource.startswith("job") else {}
    return Engine(SNAPSHOT).decide(Facts(request, entries, approvals=approvals, contributors=()), NOW)


def test_an_action_is_approved_by_its_request_alone_if_all_its_quorums_say_so() -> None:
    """INVARIANT I9: one quorum of the tree among them, before or after, is enough to need the tree."""
    assert SNAPSHOT.request_only_actions == {"job:submit", "job:stop"}


def test_actions_of_a_single_use_quorum_may_use_approvals_up() -> None:
    """Whichever other quorum they have."""
    assert SNAPSHOT.single_use_actions == {"job:submit", "job:kill"}


@pytest.mark.parametrize(
    ("action", "approvers", "allowed", "consumes"),
    [
        ("job:submit", ("lena",), True, True),
        ("job:submit", (), False, False),
        ("job:stop", ("lena",), True, False),
        ("job:kill", ("lena",), True, True),
        ("job:list", ("lena",), True, False),
    ],
)
def test_only_an_allow_by_a_single_use_quorum_uses_approvals_up(
    action: str, approvers: tuple[str, ...], *, allowed: bool, consumes: bool
) -> None:
    """A denial leaves them for the next request."""
    decision = decided(action, *approvers)
    assert (decision.allowed, SNAPSHOT.consumes_approvals(decision)) == (allowed, consumes)


def test_a_decision_lasts_as_long_as_the_approvals_it_rests_on() -> None:
    """INVARIANT I9: what rests on none, or allows nothing, ends when it would; roles are asked in the id's domain."""
    until = NOW + 10 * HOUR
    for decision, end in (
        (decided("job:submit", "lena"), NOW + HOUR),
        (decided("job:submit", "omar", left=20 * HOUR), until),
        (decided("job:submit", "omar", resource="job:team/blue/run"), NOW + HOUR),
        (decided("job:list", "lena"), until),
        (decided("job:submit"), until),
        (decided("job:submit", "lena", resource="job:team/blue/run"), until),
        (decided("node:drain", resource="node:n1"), until),
    ):
        assert SNAPSHOT.lasts_until(decision, NOW, until) == end


def test_the_facts_behind_a_decision_are_those_its_rules_read() -> None:
    """A default deny read them all; a rule without a condition none."""
    assert SNAPSHOT.facts_read_by(decided("job:list")) == frozenset({"resource.gpus"})
    assert SNAPSHOT.facts_read_by(decided("job:submit", "lena")) == frozenset({"resource.gpus"})
    assert SNAPSHOT.facts_read_by(decided("node:drain", resource="node:n1")) == frozenset()
    assert SNAPSHOT.facts_read_by(decided("job:list", gpus=9)) is None


def test_what_no_rule_can_concern_is_not_admitted() -> None:
    """An unknown type or action, no rules at all, a request that does not fit the schema."""

    def admit(snapshot: Snapshot, subject: str, action: str, resource: str, **values: Any) -> bool:
        entries = {f"resource.{name}": Fact(value, Assurance.CLAIMED, "test", NOW) for name, value in values.items()}
        return snapshot.admit(Facts(Request.of(subject, action, resource), entries), NOW) is not None

    assert admit(SNAPSHOT, "user:a", "job:submit", "job:team/red/run", gpus=1)
    assert not admit(SNAPSHOT, "robot:a", "job:submit", "job:team/red/run", gpus=1)
    assert not admit(SNAPSHOT, "user:a", "job:submit", "jobs:team/red/run")
    assert not admit(SNAPSHOT, "user:a", "node:drain", "job:team/red/run")
    assert not admit(SNAPSHOT, "user:a", "job:submit", "job:team/red/run", gpus="1")
    empty = Snapshot.of(msgspec.structs.replace(POLICY_SET, rules=()), grants_of(POLICY_SET))
    assert not admit(empty, "user:a", "job:submit", "job:team/red/run", gpus=1)


def test_of_an_unknown_type_everything_is_hidden_that_any_type_hides() -> None:
    """INVARIANT I14: nothing says which type was meant; for a known one only its own attributes are."""
    job, node, unknown = (
        Request.of("user:a", "x:y", ref) for ref in ("job:team/red/run", "node:n1", "ghost:team/red/run")
    )
    assert SNAPSHOT.sensitive(job) == {"resource.secret"}
    assert SNAPSHOT.sensitive(node) == {"resource.owner"}
    assert SNAPSHOT.sensitive(unknown) == {"resource.secret", "resource.owner"}
    assert set(SNAPSHOT.redactions(job)) == {"resource.code"}
    assert SNAPSHOT.redactions(job)["resource.code"] is not withheld
    assert SNAPSHOT.redactions(node) == {}
    assert SNAPSHOT.redactions(unknown) == {"resource.code": withheld}
