"""Rules whose compiled code gives up: the exact evaluator decides, and each of its three outcomes has its effect."""

from __future__ import annotations

import msgspec
import pytest

from policyguard.conditions.cost import SMALL, ConstantList
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
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
  job: {id: "team/{team}/**", actions: [submit], attributes: {gpus: {type: int}, queue: {type: string, optional: true}}}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules:
  - {id: anyone, effect: allow, actions: [job:submit], when: resource.gpus > 0}
  - {id: rule, effect: EFFECT, actions: [job:submit], when: 'resource.queue == "large" OPERATOR resource.gpus > 8'FLOOR}
"""
FLOORS = ("", ", assurance: {resource.queue: observed}")
"""Without a floor the compiled code runs first and gives up on the absent fact; with one the exact evaluator alone."""


def decided(effect: str, operator: str, gpus: int, floor: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rules that determine the decision, and those in error, where `resource.queue` is absent."""
    text = POLICIES.replace("EFFECT", effect).replace("OPERATOR", operator).replace("FLOOR", floor)
    policies = load({"lab.yaml": text.encode()})
    request = Request.of("user:alice", "job:submit", "job:team/vision/run")
    facts = Facts(request, {"resource.gpus": Fact(gpus, Assurance.CLAIMED, "request", NOW)})
    decision = Engine(Snapshot.of(policies, grants_of(policies))).decide(facts, NOW)
    return decision.determining, decision.errored


@pytest.mark.parametrize("floor", FLOORS, ids=["without a floor", "with a floor"])
def test_a_deny_that_is_false_in_spite_of_an_absent_fact_does_not_fire(floor: str) -> None:
    """`&&` absorbs the error: the small job is allowed, and nothing is in error."""
    assert decided("deny", "&&", 8, floor) == (("anyone",), ())
    assert decided("deny", "&&", 9, floor) == (("rule",), ("rule",))


@pytest.mark.parametrize("floor", FLOORS, ids=["without a floor", "with a floor"])
def test_a_deny_that_is_true_in_spite_of_an_absent_fact_fires_without_an_error(floor: str) -> None:
    """`||` absorbs the error: the large job is denied by the rule's own reason."""
    assert decided("deny", "||", 9, floor) == (("rule",), ())
    assert decided("deny", "||", 8, floor) == (("rule",), ("rule",))


@pytest.mark.parametrize("floor", FLOORS, ids=["without a floor", "with a floor"])
def test_an_allow_in_error_does_not_fire_and_one_that_absorbs_it_does(floor: str) -> None:
    """INVARIANT I2: an error never grants; a false one is no error either."""
    assert decided("allow", "||", 9, floor) == (("anyone", "rule"), ())
    assert decided("allow", "||", 8, floor) == (("anyone",), ("rule",))
    assert decided("allow", "&&", 8, floor) == (("anyone",), ())
    assert decided("allow", "&&", 9, floor) == (("anyone",), ("rule",))


def snapshot_of(when: str) -> Snapshot:
    """The snapshot of one allow with this condition."""
    head, _, _ = POLICIES.partition("rules:")
    rule = f"rules: [{{id: r, effect: allow, actions: [job:submit], when: {msgspec.json.encode(when).decode()}}}]"
    policies = load({"lab.yaml": (head + rule).encode()})
    return Snapshot.of(policies, grants_of(policies))


def test_what_a_rule_reads_are_facts_and_not_the_action_or_the_time() -> None:
    """A statement records the facts behind a decision."""
    snapshot = snapshot_of('action == "job:submit" && now == now && resource.gpus < 9 && has(resource.queue)')
    assert snapshot.facts_read_at("job:submit") == {"resource.gpus", "resource.queue"}
    assert snapshot.facts_read_at("job:start") == frozenset()


def test_a_long_list_of_a_rule_is_searched_as_a_set() -> None:
    """A short one is not worth a set; a time beside it changes nothing."""
    for size, kind in ((SMALL, tuple), (SMALL + 1, ConstantList)):
        names = ", ".join(f"'n{number}'" for number in range(size))
        for more in ("", ' && now > timestamp("2026-03-01T09:00:00Z")'):
            [rule] = snapshot_of(f"resource.queue in [{names}]{more}").rules
            assert type(rule.constants[0]) is kind
            assert len(rule.constants[0]) == size


def test_a_rule_has_no_attribute_but_its_own() -> None:
    """What is prepared at first use is named; anything else is a mistake of the code and not a rule without a test."""
    [rule] = snapshot_of("resource.gpus < 9").rules
    for thing in (rule, rule.shape):
        with pytest.raises(AttributeError, match="ghost"):
            thing.ghost  # type: ignore[union-attr]


def allowed_by(rule: str, *asked: tuple[str, int]) -> list[bool]:
    """Whether one allow fires for each id and time, in this order: the first of a process, then by the index."""
    head, _, _ = POLICIES.partition("rules:")
    policies = load({"lab.yaml": f"{head}rules: [{{id: r, effect: allow, actions: [job:submit], {rule}}}]".encode()})
    engine = Engine(Snapshot.of(policies, grants_of(policies)))
    decisions = []
    for identifier, now in asked:
        request = Request.of("user:alice", "job:submit", f"job:{identifier}")
        facts = {"resource.gpus": Fact(8, Assurance.CLAIMED, "request", now)}
        decisions.append(engine.decide(Facts(request, facts), now).allowed)
    return decisions


FITTING, BLUE, OTHER = "team/red/run/1", "team/blue/run/1", "team/red/rum/2"
PATTERNS = {
    "team/red/run/1": (BLUE, OTHER),
    "team/red/run/**": (BLUE, OTHER),
    "team/red/*/1": (BLUE, OTHER),
    "team/red/**": (BLUE,),
    "**/red/*/*": (BLUE,),
    "team/r*/**": (BLUE,),
}


@pytest.mark.parametrize(("pattern", "other"), [(one, other) for one, others in PATTERNS.items() for other in others])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_rule_for_some_ids_is_for_no_others(pattern: str, other: str, *, is_first: bool) -> None:
    """The first decision tests the rule itself, later ones the index; each answers for each id."""
    ids = (FITTING if is_first else other, FITTING, other, FITTING, other)
    rule = f'resources: {{type: job, id: "{pattern}"}}'
    assert allowed_by(rule, *((identifier, NOW) for identifier in ids)) == [each == FITTING for each in ids]


def test_a_rule_counts_from_its_beginning_until_just_before_its_end() -> None:
    """To the nanosecond, whichever of the two it has."""
    begin, end = (f"2027-01-15T0{hour}:00:00Z" for hour in (8, 9))
    hour = 3600 * 10**9
    times = [(FITTING, NOW + at) for at in (-1, 0, hour - 1, hour)]
    assert allowed_by(f"notBefore: {begin}, expires: {end}", *times) == [False, True, True, False]
    assert allowed_by(f"notBefore: {begin}", *times) == [False, True, True, True]
    assert allowed_by(f"expires: {end}", *times) == [True, True, True, False]
    assert allowed_by('subjects: ["user:bob"]', *times) == [False] * 4
    assert allowed_by('subjects: ["user:bob", "user:alice"]', *times) == [True] * 4


def test_denies_whose_facts_must_be_known_better_are_not_left_out_by_the_index() -> None:
    """INVARIANT I3: a claimed queue is absent for them: each is in error and denies, whatever the claim says."""
    head, _, _ = POLICIES.partition("rules:")
    rules = "rules:\n  - {id: anyone, effect: allow, actions: [job:submit]}\n" + "".join(
        f"  - {{id: d{number}, effect: deny, actions: [job:submit], when: 'resource.queue == \"q{number}\"', "
        "assurance: {resource.queue: observed}}\n"
        for number in range(20)
    )
    policies = load({"lab.yaml": (head + rules).encode()})
    engine = Engine(Snapshot.of(policies, grants_of(policies)))
    request = Request.of("user:alice", "job:submit", "job:team/red/run")
    for assurance, denied in ((Assurance.CLAIMED, 20), (Assurance.OBSERVED, 1)):
        facts = Facts(request, {"resource.queue": Fact("q7", assurance, "request", NOW)})
        for _ in range(3):
            decision = engine.decide(facts, NOW)
            assert (decision.allowed, len(decision.determining)) == (False, denied)


def test_a_rule_for_domains_is_for_no_type_whose_ids_do_not_name_one() -> None:
    """INVARIANT I3: an id that reads like one of another type says nothing about a domain."""
    text = POLICIES.replace("resources:\n", "resources:\n  disk: {actions: [use]}\n", 1).partition("rules:")[0]
    text += 'rules:\n  - {id: r, effect: allow, actions: ["job:submit"], resources: {id: "team/{team}/**"}}\n'
    policies = load({"lab.yaml": text.encode()})
    # The loader refuses such a rule; a snapshot that another program has signed may have it.
    [rule] = policies.rules
    wider = msgspec.structs.replace(rule, actions=("job:submit", "disk:use"), resource_types=("job", "disk"))
    policies = msgspec.structs.replace(policies, rules=(wider,))
    engine = Engine(Snapshot.of(policies, grants_of(policies)))
    for _ in range(3):
        for action, resource, allowed in (("job:submit", "job", True), ("disk:use", "disk", False)):
            request = Request.of("user:alice", action, f"{resource}:team/red/run")
            assert engine.decide(Facts(request, {}), NOW).allowed is allowed
