"""The index alone, on random requirements: what is met is found, and a look-up of one kind finds nothing else."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyguard.decide.index.tree import (
    CONTEXT,
    FEW,
    PREFIX,
    RESOURCE,
    SUBJECT,
    Candidate,
    Key,
    Requirement,
    build,
    gather,
)
from policyguard.values import MAX_INTEGER

quickly = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))

INTEGERS: tuple[Key, ...] = ((RESOURCE, "size", None), (SUBJECT, "level", None), (RESOURCE, "code", "lines"))
TEXTS: tuple[Key, ...] = ((RESOURCE, "queue", None), (CONTEXT, "ticket", None), (RESOURCE, "code", "owner"))
PREFIXES: tuple[Key, ...] = ((PREFIX, "1", None), (PREFIX, "2", None), (PREFIX, "3", None))
NUMBERS = (-(2**63) - 1, -MAX_INTEGER, -1, 0, 1, 2, 3, MAX_INTEGER, 2**63)
WORDS = ("a", "b", "c")
IDS = ("a", "a/b", "a/b/c", "a/b/c/d", "b/a", "b")


@st.composite
def requirements(draw: st.DrawFn, key: Key) -> Requirement:
    """Return a requirement of this key."""
    if key[0] == PREFIX:
        prefix = draw(st.lists(st.sampled_from(WORDS), min_size=int(key[1]), max_size=int(key[1])))
        return Requirement((key, "in"), ("/".join(prefix),), True, True)
    guards = draw(st.tuples(st.booleans(), st.booleans()))
    if key[2] is None:
        guards = (guards[0], guards[0])
    if key in TEXTS:
        return Requirement((key, "in"), tuple(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3))), *guards)
    operator = draw(st.sampled_from((">=", "<=", "in")))
    most = 3 if operator == "in" else 1
    return Requirement(
        (key, operator), tuple(draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=most))), *guards
    )


@st.composite
def attributes(draw: st.DrawFn) -> tuple[dict[str, Any], ...]:
    """Return the three entities; anything but the resource's id may be absent."""
    number, word = st.sampled_from(NUMBERS), st.sampled_from(WORDS)
    code = st.fixed_dictionaries({}, optional={"lines": number, "owner": word})
    resource = {"size": number, "queue": word, "code": code}
    return (
        draw(st.fixed_dictionaries({}, optional={"level": number})),
        draw(st.fixed_dictionaries({"id": st.sampled_from(IDS)}, optional=resource)),
        draw(st.fixed_dictionaries({}, optional={"ticket": word})),
    )


def is_met(requirement: Requirement, entities: tuple[dict[str, Any], ...]) -> bool:
    """Return whether a rule with this requirement could be TRUE or an ERROR, as `Requirement` says it."""
    (entity, name, field), operator = requirement.slot
    if entity == PREFIX:
        return bool(entities[RESOURCE]["id"].split("/")[: int(name)] == requirement.values[0].split("/"))
    if name not in entities[entity]:
        return not requirement.attribute_guarded
    value = entities[entity][name]
    if field is not None:
        if field not in value:
            return not requirement.guarded
        value = value[field]
    if operator == "in":
        return value in requirement.values
    return bool(value >= requirement.values[0] if operator == ">=" else value <= requirement.values[0])


def found(candidates: list[Candidate], entities: tuple[dict[str, Any], ...]) -> list[int]:
    rules: list[int] = []
    gather(build(candidates), entities, rules)
    return sorted(rules)


@quickly
@given(
    st.lists(st.lists(st.sampled_from((*INTEGERS, *TEXTS, *PREFIXES)).flatmap(requirements), max_size=3), max_size=14),
    attributes(),
)
def test_a_rule_whose_demands_are_met_is_found_once(rules: list[list[Requirement]], entities: tuple[Any, ...]) -> None:
    """Whatever the requirements of all the others."""
    candidates = [Candidate(number, tuple(its)) for number, its in enumerate(rules)]
    visited = found(candidates, entities)
    assert len(visited) == len(set(visited))
    met = {number for number, its in enumerate(rules) if all(is_met(requirement, entities) for requirement in its)}
    assert met <= set(visited)


@quickly
@given(
    st.sampled_from((*INTEGERS, *TEXTS, *PREFIXES)).flatmap(
        lambda key: st.lists(requirements(key), min_size=5, max_size=14)
    ),
    attributes(),
)
def test_a_lookup_finds_no_rule_whose_one_demand_fails(one_each: list[Requirement], entities: tuple[Any, ...]) -> None:
    """With enough rules under a slot to be worth it, those found are those met, and no other."""
    candidates = [Candidate(number, (requirement,)) for number, requirement in enumerate(one_each)]
    slots = [requirement.slot for requirement in one_each]
    looked_up = [slots.count(slot) >= FEW for slot in slots]
    expected = [n for n, requirement in enumerate(one_each) if not looked_up[n] or is_met(requirement, entities)]
    assert found(candidates, entities) == expected


@pytest.mark.parametrize("operator", ["in", ">=", "<="])
@pytest.mark.parametrize("resource", [{}, {"code": {}}, {"code": {"lines": 2}}], ids=["no record", "no field", "both"])
def test_an_absent_field_is_visited_where_it_is_an_error(operator: str, resource: dict[str, Any]) -> None:
    """Every combination of guards, each with several rules under the one lookup: no example is left to chance."""
    entities: tuple[dict[str, Any], ...] = ({}, {"id": "a", **resource}, {})
    guards = tuple(product((False, True), repeat=2))
    all_of_them = [
        Requirement(((RESOURCE, "code", "lines"), operator), (value,), *pair) for pair in guards for value in (1, 2, 3)
    ]
    candidates = [Candidate(number, (requirement,)) for number, requirement in enumerate(all_of_them)]
    expected = [n for n, requirement in enumerate(all_of_them) if is_met(requirement, entities)]
    assert found(candidates, entities) == expected


def test_the_fewest_rules_that_pay_for_a_lookup_get_one() -> None:
    """A number of rules equal to `FEW` is looked up, one rule less is visited whole."""
    one_each = [Requirement(((RESOURCE, "queue", None), "in"), (word,), True, True) for word in WORDS[:FEW]]
    candidates = [Candidate(number, (requirement,)) for number, requirement in enumerate(one_each)]
    entities: tuple[dict[str, Any], ...] = ({}, {"id": "a", "queue": "b"}, {})
    assert found(candidates, entities) == [1]
    assert found(candidates[:-1], entities) == [0, 1]
