"""Who can do what, answered with few facts known, agrees with the engine once all of them are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policyguard.analysis.questions import Answer, Clause, Question, can, who_can
from policyguard.conditions.exact import evaluate
from policyguard.decide.admission import apply_minimum_assurance
from policyguard.decide.compiled_form import ALLOW
from policyguard.decide.engine import Engine
from policyguard.model.expression import Constant
from policyguard.model.facts import Facts
from tests.properties.worlds import NOW, World, snapshot_of, worlds


def question_of(facts: Facts, known: set[str]) -> Question:
    """Ask what the request asks, with some of its facts; approvals count only where contributors are known."""
    request = facts.request
    entries = {path: fact for path, fact in facts.entries.items() if path in known}
    approvals = facts.approvals if facts.contributors is not None else ()
    return Question(
        action=request.action,
        resource=request.resource,
        now=NOW,
        entries=entries,
        known=frozenset(tuple(path.split(".")) for path in entries),
        approvals=approvals,
        contributors=facts.contributors or None,
    )


def predicts(answer: Answer, world: World, facts: Facts) -> bool:
    """Evaluate the clauses of an answer on all facts."""
    snapshot = snapshot_of(world.policies)
    request = facts.request
    admitted = snapshot.admissions_by_type[request.subject.type, request.resource.type].admit(facts, NOW)

    def holds(clause: Clause) -> bool:
        read = apply_minimum_assurance(admitted, clause.rule.assurance)
        when = Constant(clause.when, "bool", 0) if isinstance(clause.when, bool) else clause.when
        outcome = evaluate(when, read.subject, read.resource, read.context, request.action, NOW)
        return outcome is True if clause.rule.effect == ALLOW else outcome is not False

    denied = any(map(holds, (*answer.denies, *answer.requires)))
    return any(map(holds, answer.allows)) and not denied


@given(worlds(), st.data())
def test_an_answer_with_some_facts_agrees_with_the_engine_on_all(world: World, data: st.DataObject) -> None:
    """The conditions that remain, evaluated on the facts that were not known, give the engine's decision."""
    snapshot, facts = snapshot_of(world.policies), world.facts
    decision = Engine(snapshot).decide(facts, NOW)
    if decision.reason_codes[0].startswith("engine.") and decision.reason_codes[0] not in (
        "engine.no_allow",
        "engine.error",
    ):
        return
    if facts.request.action not in snapshot.schema.resources[facts.request.resource.type].actions:
        return
    known = set(data.draw(st.lists(st.sampled_from(sorted(facts.entries)), unique=True))) if facts.entries else set()
    answer = can(snapshot, facts.request.subject.ref, question_of(facts, known))
    assert predicts(answer, world, facts) == decision.allowed
    if answer.verdict != "if":
        assert (answer.verdict == "yes") == decision.allowed


@given(worlds())
def test_everybody_gets_the_answer_of_asking_about_them_alone(world: World) -> None:
    """What subjects share is computed once, and changes no answer."""
    snapshot, facts = snapshot_of(world.policies), world.facts
    if facts.request.action not in snapshot.schema.resources[facts.request.resource.type].actions:
        return
    question = question_of(facts, set())
    for subject, answer in who_can(snapshot, question):
        alone = can(snapshot, subject, question)
        assert [
            [(clause.rule.id, clause.when) for clause in clauses]
            for clauses in (answer.allows, answer.denies, answer.requires)
        ] == [
            [(clause.rule.id, clause.when) for clause in clauses]
            for clauses in (alone.allows, alone.denies, alone.requires)
        ]
