"""The theorems of docs/semantics.md, each a property by its name, and the engine against the naive oracle."""

from __future__ import annotations

from itertools import product

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policyguard.analysis import oracle
from policyguard.analysis.plain import plain_facts, plain_policy
from policyguard.decide.engine import Engine
from policyguard.model.decision import Decision
from policyguard.model.expression import Call, Constant, Expression, Select, Variable
from policyguard.model.facts import Approval, Assurance, Fact, Facts
from policyguard.model.policy import EFFECTS, Binding, Condition, Effect, PolicySet, Role, Rule
from policyguard.model.request import Request
from tests.properties.worlds import DOMAINS, NOW, PERSONS, QUORUMS, SCHEMA, World, facts, snapshot_of, worlds

theorem = settings(max_examples=70, deadline=None, suppress_health_check=list(HealthCheck))

_WORDS = {
    "engine.no_rules": "no_rules",
    "engine.unknown_type": "unknown_type",
    "engine.malformed": "malformed",
    "engine.unknown_action": "unknown_action",
    "engine.no_allow": "no_allow",
    "needs-approval": "needs_approval",
}


def outcome(decision: Decision) -> dict[str, object]:
    """Return a decision in the oracle's words."""
    reason = "allow" if decision.allowed else _WORDS.get(decision.reason_codes[0], "deny")
    return {
        "allowed": decision.allowed,
        "reason": reason,
        "determining": list(decision.determining),
        "errored": list(decision.errored),
        "requiring": list(decision.requiring),
        "unmet": sorted({gap.quorum for gap in decision.unmet_approvals}),
    }


@theorem
@given(worlds())
def test_the_engine_agrees_with_the_oracle(world: World) -> None:
    """The index, the compiled conditions and the closed roles decide as the slow and plain text of semantics.md."""
    expected = oracle.decide(plain_policy(world.policies), plain_facts(world.facts), NOW)
    found = outcome(world.decide())
    if expected["reason"] == "deny":
        # The oracle lists quorums that are unmet beside a deny; the engine has no need to look.
        expected = {**expected, "unmet": []}
    assert found == expected


@theorem
@given(worlds())
def test_default_deny(world: World) -> None:
    """Without a firing allow rule nothing is allowed."""
    none = replace(world.policies, rules=tuple(rule for rule in world.policies.rules if rule.effect != "allow"))
    assert not Engine(snapshot_of(none)).decide(world.facts, NOW).allowed


@theorem
@given(worlds(), st.integers(0, 7))
def test_deny_trumps_allow(world: World, position: int) -> None:
    """A deny that fires denies, wherever it stands and whatever else allows."""
    request = world.facts.request
    actions = SCHEMA.resources[request.resource.type].actions
    assume(request.action in actions)
    deny = Rule(id="the-deny", effect="deny", actions=(request.action,), resource_types=(request.resource.type,))
    rules = world.policies.rules
    policies = replace(world.policies, rules=(*rules[:position], deny, *rules[position:]))
    decision = Engine(snapshot_of(policies)).decide(world.facts, NOW)
    assert not decision.allowed
    assert "the-deny" in decision.determining


@theorem
@given(worlds(), st.randoms(use_true_random=False), st.booleans())
def test_order_and_duplicates_do_not_matter(world: World, random: object, twice: bool) -> None:
    """Shuffling the rules, the roles and the bindings changes nothing, nor does stating a rule twice."""
    policies = world.policies
    rules, bindings = list(policies.rules), list(policies.bindings)
    random.shuffle(rules)  # type: ignore[attr-defined]
    random.shuffle(bindings)  # type: ignore[attr-defined]
    if twice:
        rules += rules
    shuffled = snapshot_of(replace(policies, rules=tuple(rules), bindings=tuple(bindings)))
    assert outcome(Engine(shuffled).decide(world.facts, NOW)) == outcome(world.decide())


@theorem
@given(worlds())
def test_an_error_never_grants(world: World) -> None:
    """INVARIANT I2: if every errored allow had been false and every other errored rule true, nothing would change."""
    decision = world.decide()
    errored = set(decision.errored)
    settled = tuple(
        replace(rule, when=None) if rule.id in errored else rule
        for rule in world.policies.rules
        if not (rule.id in errored and rule.effect == "allow")
    )
    again = Engine(snapshot_of(replace(world.policies, rules=settled))).decide(world.facts, NOW)
    assert again.allowed == decision.allowed


@theorem
@given(worlds(), st.data())
def test_removing_a_fact_never_grants(world: World, data: st.DataObject) -> None:
    """Leaving out a fact, an approval or the contributors never turns a deny into an allow."""
    before = world.decide()
    entries = dict(world.facts.entries)
    gone = data.draw(st.sampled_from([None, *sorted(entries)]))
    if gone is not None:
        del entries[gone]
    approvals = world.facts.approvals[: data.draw(st.integers(0, len(world.facts.approvals)))]
    contributors = data.draw(st.sampled_from((None, world.facts.contributors)))
    fewer = msgspec.structs.replace(world.facts, entries=entries, approvals=approvals, contributors=contributors)
    after = Engine(world.snapshot).decide(fewer, NOW)
    assert before.allowed or not after.allowed


@theorem
@given(worlds(), st.data())
def test_lowering_assurance_never_grants(world: World, data: st.DataObject) -> None:
    """INVARIANT I1: a fact that is known less well never turns a deny into an allow."""
    assume(world.facts.entries)
    path = data.draw(st.sampled_from(sorted(world.facts.entries)))
    fact = world.facts.entries[path]
    lower = data.draw(st.sampled_from([level for level in Assurance if level <= fact.assurance]))
    weaker = {**world.facts.entries, path: msgspec.structs.replace(fact, assurance=lower)}
    after = Engine(world.snapshot).decide(msgspec.structs.replace(world.facts, entries=weaker), NOW)
    assert world.decide().allowed or not after.allowed


@theorem
@given(worlds())
def test_an_unrelated_attribute_changes_nothing(world: World) -> None:
    """A fact about an attribute that no rule reads changes nothing; one that only a collector knows is ignored."""
    more = {**world.facts.entries, "resource.unread": Fact("anything", Assurance.MEASURED, "collector", NOW)}
    after = Engine(world.snapshot).decide(msgspec.structs.replace(world.facts, entries=more), NOW)
    assert outcome(after) == outcome(world.decide())


@theorem
@given(worlds(), facts())
def test_a_scoped_document_touches_nothing_outside(world: World, other: Facts) -> None:
    """Rules of a document scoped to a team change no decision about anything else."""
    request = other.request
    inside = request.resource.id.split("/")[1] if request.resource.type == "job" else None
    team = next(domain for domain in DOMAINS if domain != inside)
    scoped = tuple(
        replace(rule, id=f"{rule.id}-scoped", scope=team)
        for rule in world.policies.rules
        if rule.resource_types == ("job",)
    )
    with_document = snapshot_of(replace(world.policies, rules=(*world.policies.rules, *scoped)))
    before, after = Engine(world.snapshot).decide(other, NOW), Engine(with_document).decide(other, NOW)
    if world.policies.rules:
        assert outcome(after) == outcome(before)


@theorem
@given(worlds())
def test_a_second_account_adds_no_approver(world: World) -> None:
    """INVARIANT I8: approvals by another account of a person who has approved leave the same places open."""
    accounts = {account: person.accounts for person in PERSONS for account in person.accounts}
    again = tuple(
        msgspec.structs.replace(approval, account=account)
        for approval in world.facts.approvals
        for account in accounts.get(approval.account, ())
    )
    holding = replace(
        world.policies,
        bindings=tuple(
            {
                (b.subject, b.role, b.domain): b
                for binding in world.policies.bindings
                for account in accounts.get(binding.subject, (binding.subject,))
                for b in [replace(binding, subject=account)]
            }.values()
        ),
    )
    snapshot = snapshot_of(holding)
    once = Engine(snapshot).decide(world.facts, NOW)
    twice = Engine(snapshot).decide(msgspec.structs.replace(world.facts, approvals=world.facts.approvals + again), NOW)
    assert [(gap.quorum, gap.needed) for gap in twice.unmet_approvals] == [
        (gap.quorum, gap.needed) for gap in once.unmet_approvals
    ]


@theorem
@given(worlds())
def test_the_same_input_gives_the_same_decision(world: World) -> None:
    """Deciding twice, and deciding on a snapshot built again, gives equal decisions and the same words."""
    first, second = world.decide(), Engine(snapshot_of(world.policies)).decide(world.facts, NOW)
    assert outcome(first) == outcome(second)
    assert first.explain(full=True) == second.explain(full=True)
    assert first.policy_digest == second.policy_digest


@theorem
@given(worlds())
def test_every_deny_names_its_reason(world: World) -> None:
    """Every decision carries a reason code, and a deny names rules or the step that refused."""
    decision = world.decide()
    assert decision.reason_codes
    if not decision.allowed and not decision.determining:
        assert decision.reason_codes[0].startswith("engine.")


_TRUE, _FALSE = Constant(1, "int"), Constant(2, "int")
_GPUS = Select(Variable("resource", "resource"), "gpus", "int")
_TICKET = Select(Variable("context", "context"), "ticket", "string")
_OUTCOMES: dict[str, Expression] = {
    "true": Call("equals", (_GPUS, _TRUE), "bool"),
    "false": Call("equals", (_GPUS, _FALSE), "bool"),
    "error": Call("equals", (_TICKET, Constant("T", "string")), "bool"),
}
_KINDS: list[tuple[Effect, str]] = [(effect, name) for effect in EFFECTS for name in _OUTCOMES]


def _small(kinds: tuple[tuple[Effect, str], ...]) -> PolicySet:
    rules = tuple(
        Rule(
            id=f"r{i}",
            effect=effect,
            actions=("job:submit",),
            resource_types=("job",),
            roles=("r0",),
            quorum="one" if effect == "require" else None,
            when=Condition(text="", expression=_OUTCOMES[name]),
        )
        for i, (effect, name) in enumerate(kinds)
    )
    binding = Binding(subject="user:ann", role="r0", domain="red")
    return PolicySet(
        schema=SCHEMA,
        roles=(Role(name="r0"), Role(name="r1"), Role(name="r2")),
        bindings=(binding,),
        persons=PERSONS,
        rules=rules,
        quorums=QUORUMS,
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_worlds_completely(count: int) -> None:
    """All sets of up to three rules x three effects x three outcomes decide as the rule on one line says."""
    request = Request.of("user:ann", "job:submit", "job:team/red/run", gpus=1)
    asked = Facts(request, {"resource.gpus": Fact(1, Assurance.CLAIMED, "request", NOW)})
    for kinds in product(_KINDS, repeat=count):
        if count == 3 and list(kinds) != sorted(kinds):
            continue  # order does not matter: shown above, and completely for two rules
        decision = Engine(snapshot_of(_small(kinds))).decide(asked, NOW)
        denied = any(effect == "deny" and name != "false" for effect, name in kinds)
        required = any(effect == "require" and name != "false" for effect, name in kinds)
        granted = ("allow", "true") in kinds
        assert decision.allowed == (granted and not denied and not required), kinds
        assert len(decision.errored) == sum(name == "error" for _, name in kinds), kinds


def test_an_empty_policy_set_denies_with_its_own_reason() -> None:
    """No rules: DENY `engine.no_rules`, whoever asks for whatever."""
    request = Request.of("user:ann", "job:submit", "job:team/red/run", gpus=1)
    decision = Engine(snapshot_of(_small(()))).decide(Facts(request), NOW)
    assert (decision.allowed, decision.reason_codes) == (False, ("engine.no_rules",))


def test_a_met_quorum_allows_and_its_twin_does_not() -> None:
    """One approval by another person with the role allows; the same by the requester's second account does not."""
    kinds: tuple[tuple[Effect, str], ...] = (("allow", "true"), ("require", "true"))
    policies = _small(kinds)
    policies = replace(
        policies,
        bindings=(
            *policies.bindings,
            Binding(subject="user:bob", role="r0", domain="red"),
            Binding(subject="service:ci", role="r0", domain="red"),
        ),
    )
    request = Request.of("user:ann", "job:submit", "job:team/red/run", gpus=1)
    entries = {"resource.gpus": Fact(1, Assurance.CLAIMED, "request", NOW)}

    def decided(account: str, contributors: tuple[str, ...] | None) -> bool:
        approval = Approval(account, Assurance.ATTESTED, "test", NOW - 1, NOW + 1, "0" * 64)
        asked = Facts(request, entries, approvals=(approval,), contributors=contributors)
        return Engine(snapshot_of(policies)).decide(asked, NOW).allowed

    assert decided("user:bob", ())
    assert not decided("service:ci", ()), "INVARIANT I4: the requester's second account"
    assert not decided("user:bob", None), "INVARIANT I3: nobody looked who contributed"
    assert not decided("user:bob", ("user:nobody",)), "INVARIANT I3: a contributor nobody knows"
    assert not decided("user:bob", ("user:cyd",)), "the approver contributed under another account"
