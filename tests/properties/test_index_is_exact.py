"""The index against a scan of every rule: what is not visited could neither fire nor err.

The worlds are made for the index: many rules over few attributes, so that every kind of look-up is built; values at the
edges of the integers; attributes, records, fields, maps and keys that are there or not; ids shorter than patterns.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyguard.analysis import oracle
from policyguard.analysis.plain import plain_facts, plain_policy
from policyguard.conditions.ast import paths_read
from policyguard.conditions.polarity import polarity_errors
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.compiled_form import compile_policy, policy_digest
from policyguard.decide.engine import Engine
from policyguard.decide.index.rules import ANYONE, DomainTrees, TreeCache
from policyguard.decide.index.tree import Node
from policyguard.decide.snapshot import Snapshot
from policyguard.model.decision import Decision
from policyguard.model.expression import Call, Constant, Expression, Has, ListOf, Select, Variable
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.policy import (
    Approvers,
    Attribute,
    Binding,
    Condition,
    Effect,
    EntityType,
    PolicySet,
    Quorum,
    Role,
    Rule,
    Schema,
    ValueType,
)
from policyguard.model.request import Entity, Request
from policyguard.patterns.id_pattern import is_aligned
from policyguard.values import EMPTY_MAP, MAX_INTEGER, FrozenMap, canonical
from tests.properties.worlds import DOMAINS, HOUR, NOW, snapshot_of

exact = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))

INT, BOOL, TEXT = ValueType(kind="int"), ValueType(kind="bool"), ValueType(kind="string")
ATTRIBUTES = {
    "size": Attribute(name="size", type=INT, optional=True),
    "queue": Attribute(name="queue", type=TEXT, optional=True, assurance=Assurance.OBSERVED),
    "clean": Attribute(name="clean", type=BOOL, optional=True),
    "code": Attribute(name="code", type=ValueType(kind="record", record="code"), optional=True),
    "labels": Attribute(name="labels", type=ValueType(kind="map", element=TEXT), optional=True),
    "limits": Attribute(name="limits", type=ValueType(kind="map", element=INT), optional=True),
    "flags": Attribute(name="flags", type=ValueType(kind="map", element=BOOL), optional=True),
}
PATTERNS_OF_TYPES = {"job": "team/{team}/**", "image": "team/{team}/**", "node": "org/main/{team}/*/**", "disk": None}
SCHEMA = Schema(
    subjects={
        "user": EntityType(name="user", attributes={"level": Attribute(name="level", type=INT, optional=True)}),
        "bot": EntityType(name="bot"),
    },
    resources={
        name: EntityType(name=name, attributes=ATTRIBUTES, actions=("job:use",), id_pattern=pattern)
        for name, pattern in PATTERNS_OF_TYPES.items()
    },
    context={"ticket": Attribute(name="ticket", type=TEXT, optional=True)},
    records={
        "code": {
            "dirty": Attribute(name="dirty", type=BOOL, optional=True),
            "lines": Attribute(name="lines", type=INT, optional=True),
            "owner": Attribute(name="owner", type=TEXT, optional=True),
        }
    },
)
TYPES = (("job",), ("job",), ("job", "image"), ("job", "node"), tuple(PATTERNS_OF_TYPES))
SUBJECTS = ("user:ann", "user:bob", "bot:ci")
ROLES = ("r0", "r1")
PATTERNS = (
    *(None,) * 8,
    "**",
    "team/{team}/**",
    "team/red/**",
    "team/blue/**",
    "team/*/run/**",
    "team/red/run/*",
    "team/*/run",
    "team/red/run",
    "team/blue/run/1",
    "org/main/{team}/*/**",
    "org/main/red/**",
    "org/*/red/**",
    "*/main/**",
    "team/{team}/run/**",
    "team/r*/**",
    "**/run",
    "base",
    "team",
    "org/main/red/a/b",
)
IDS = {
    "job": ("team/red", "team/blue", "team/red/run", "team/blue/run/1", "team/red/run/1/2", "team/green/x"),
    "image": ("team/red", "team/red/run", "team/blue/run"),
    "node": ("org/main/red/a", "org/main/red/a/b", "org/main/blue/run"),
    "disk": ("base", "team", "team/red/run", "org/main/red/a/b", "a/run"),
}
EDGES = (-MAX_INTEGER, -MAX_INTEGER + 1, -1, 0, 1, 2, 3, MAX_INTEGER - 1, MAX_INTEGER)
BEYOND = (2**53, -(2**53), 2**63 - 1, -(2**63))
WORDS = ("a", "b", "c", "red", "run", "team/red/run", "user:ann", "\u00e9", "e\u0301")

_ENTITIES = {name: Variable(name, name) for name in ("subject", "resource", "context")}
_RESOURCE = _ENTITIES["resource"]


def _call(function: str, *arguments: Expression) -> Call:
    return Call(function, arguments, "bool")


def _constant(value: Any) -> Constant:
    return Constant(value, {bool: "bool", int: "int", str: "string"}[type(value)])


def _key(attribute: str, key: str, kind: str) -> Call:
    return Call("index_map", (Select(_RESOURCE, attribute, f"map(string, {kind})"), _constant(key)), kind)


_CODE = Select(_RESOURCE, "code", "code")
_INTEGERS: tuple[Expression, ...] = (
    Select(_RESOURCE, "size", "int"),
    Select(_CODE, "lines", "int"),
    _key("limits", "k", "int"),
    _key("limits", "l", "int"),
    Select(_ENTITIES["subject"], "level", "int"),
)
_TEXTS: tuple[Expression, ...] = (
    Select(_RESOURCE, "queue", "string"),
    Select(_CODE, "owner", "string"),
    _key("labels", "k", "string"),
    _key("labels", "l", "string"),
    Select(_ENTITIES["context"], "ticket", "string"),
    Select(_RESOURCE, "domain", "string"),
    Select(_RESOURCE, "id", "string"),
    Select(_ENTITIES["subject"], "id", "string"),
    Select(_RESOURCE, "type", "string"),
)
_BOOLS: tuple[Expression, ...] = (
    Select(_RESOURCE, "clean", "bool"),
    Select(_CODE, "dirty", "bool"),
    _key("flags", "k", "bool"),
)
_PRESENCE: tuple[Expression, ...] = (
    *(Has(_RESOURCE, name) for name in (*ATTRIBUTES, "domain")),
    Has(_CODE, "dirty"),
    Has(_CODE, "lines"),
    Has(_CODE, "owner"),
    Has(_ENTITIES["context"], "ticket"),
    Has(_ENTITIES["subject"], "level"),
    *(
        _call("in_map", _constant(key), Select(_RESOURCE, name, f"map(string, {kind})"))
        for name, kind in (("labels", "string"), ("limits", "int"), ("flags", "bool"))
        for key in "kl"
    ),
)
_BOUNDS = ("less_int64", "less_equals_int64", "greater_int64", "greater_equals_int64")


@st.composite
def _atoms(draw: st.DrawFn) -> Expression:
    kind = draw(st.sampled_from(("bound", "bound", "equals", "equals", "in", "bool", "has", "has", "other")))
    if kind == "has":
        return draw(st.sampled_from(_PRESENCE))
    if kind == "bool":
        value = draw(st.sampled_from(_BOOLS))
        literal = _constant(draw(st.booleans()))
        return draw(
            st.sampled_from(
                (
                    value,
                    _call("logical_not", value),
                    _call("equals", value, literal),
                    _call("equals", literal, value),
                    _call("in_list", value, ListOf((literal,), "list(bool)")),
                )
            )
        )
    if kind == "other":
        left, right = draw(st.sampled_from(_TEXTS)), _constant(draw(st.sampled_from(WORDS)))
        return _call(draw(st.sampled_from(("not_equals", "starts_with_string"))), left, right)
    integer = kind == "bound" or draw(st.booleans())
    subject = draw(st.sampled_from(_INTEGERS if integer else _TEXTS))
    literals = st.sampled_from((*EDGES, *BEYOND)) if integer else st.sampled_from(WORDS)
    if kind == "in":
        options = draw(st.lists(literals.map(_constant), max_size=3))
        return _call("in_list", subject, ListOf(tuple(options), f"list({subject.type})"))
    sides = [subject, _constant(draw(literals))]
    if draw(st.booleans()):
        sides.reverse()
    return _call("equals" if kind == "equals" else draw(st.sampled_from(_BOUNDS)), *sides)


def conditions() -> st.SearchStrategy[Expression]:
    """Return conjunctions above all, for they make requirements; some of their sides are alternatives or negated."""
    side = _atoms() | st.tuples(_atoms(), _atoms()).map(lambda pair: _call("logical_or", *pair))
    inner = st.lists(side, min_size=1, max_size=3).map(_all)
    return (
        inner
        | st.tuples(inner, side).map(lambda pair: _call("logical_and", *pair))
        | inner.map(lambda each: _call("logical_not", each))
    )


def _all(sides: list[Expression]) -> Expression:
    return sides[0] if len(sides) == 1 else _call("logical_and", *sides)


@st.composite
def _focused(draw: st.DrawFn, focus: Expression) -> Expression:
    """Return a conjunction that requirements something of the focus, guarded by presence or not."""
    sides = draw(st.lists(st.sampled_from(_guards(focus)), max_size=2))
    if focus.type == "bool":
        sides.append(draw(st.sampled_from((focus, _call("logical_not", focus)))))
    else:
        literals = st.sampled_from(EDGES if focus.type == "int" else WORDS).map(_constant)
        functions = ("equals", *(_BOUNDS * 2 if focus.type == "int" else ()))
        pair = [focus, draw(literals)]
        if draw(st.booleans()):
            pair.reverse()
        sides.append(_call(draw(st.sampled_from(functions)), *pair))
    return _all([*sides, *draw(st.lists(_atoms(), max_size=1))])


def _guards(focus: Expression) -> list[Expression]:
    """Return the tests of presence that have to do with the focus, those of its fields and keys too."""
    inner = focus.arguments[0] if isinstance(focus, Call) else focus.operand if isinstance(focus, Select) else focus
    near = {focus, inner}
    return [
        test
        for test in _PRESENCE
        if (isinstance(test, Has) and any(isinstance(each, Select) and each.name == test.name for each in near))
        or (isinstance(test, Call) and test.arguments[1] in near)
    ] or [_constant(True)]


_DOUBTED = (
    "context.ticket",
    "resource.clean",
    "resource.code",
    "resource.labels",
    "resource.limits",
    "resource.queue",
    "resource.size",
    "subject.level",
)
_FLOORS = st.just(set[str]()) | st.sets(st.sampled_from(_DOUBTED), max_size=4)


@st.composite
def _rules(draw: st.DrawFn, number: int, focus: Expression) -> Rule:
    effect: Effect = draw(st.sampled_from(("allow", "deny", "require")))
    when = draw(st.sampled_from((True, True, True, False)).flatmap(lambda to: _focused(focus) if to else conditions()))
    subjects = draw(st.sampled_from(((), (), (), (), (), SUBJECTS[:1], SUBJECTS[1:])))
    # As the loader: a floor only for what the condition reads, and a scope only for types that belong to a domain.
    read = {".".join(path[:2]) for path in paths_read(when)}
    scope = draw(st.sampled_from((None, None, None, None, None, *DOMAINS)))
    types = draw(st.sampled_from(TYPES))
    return Rule(
        id=f"rule-{number}",
        effect=effect,
        actions=("job:use",),
        resource_types=types if scope is None else tuple(name for name in types if PATTERNS_OF_TYPES[name]),
        roles=() if subjects else draw(st.sampled_from(((), (), (), ("r0",), ROLES))),
        subjects=subjects,
        id_pattern=draw(st.sampled_from(PATTERNS)),
        scope=scope,
        when=Condition(text="", expression=when),
        assurance=tuple((path, Assurance.MEASURED) for path in sorted(draw(_FLOORS) & read)),
        quorum="one" if effect == "require" else None,
        not_before=draw(st.sampled_from((None, None, None, NOW, NOW + 1))),
        expires=draw(st.sampled_from((None, None, None, NOW, NOW + 1))),
    )


@st.composite
def policy_sets(draw: st.DrawFn) -> PolicySet:
    """Return a policy set whose rules ask for one attribute above all, so that its look-up has several rules."""
    focus = draw(st.sampled_from((*_INTEGERS, *_TEXTS, *_BOOLS)))
    count = draw(st.integers(6, 20))
    return PolicySet(
        schema=SCHEMA,
        roles=(Role(name="r0"), Role(name="r1", inherits=("r0",))),
        bindings=(
            Binding(subject="user:ann", role="r0", domain="red"),
            Binding(subject="user:bob", role="r1", domain="*"),
            Binding(subject="bot:ci", role="r1", domain="red", expires=NOW + HOUR),
        ),
        rules=tuple(draw(_rules(number, focus)) for number in range(count)),
        quorums=(Quorum(id="one", approvers=(Approvers(count=1, roles=("r0",)),)),),
    )


def _frozen(data: dict[str, Any]) -> FrozenMap:
    return FrozenMap(data)


def _maps(keys: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[FrozenMap]:
    return st.dictionaries(st.sampled_from(keys), values, max_size=2).map(_frozen)


_CODES = st.fixed_dictionaries(
    {}, optional={"dirty": st.booleans(), "lines": st.sampled_from(EDGES), "owner": st.sampled_from(WORDS)}
).map(_frozen)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "resource.size": st.sampled_from(EDGES),
    "resource.queue": st.sampled_from(WORDS),
    "resource.clean": st.booleans(),
    "resource.code": _CODES,
    "resource.labels": _maps(("k", "l", "m"), st.sampled_from(WORDS)),
    "resource.limits": _maps(("k", "l"), st.sampled_from(EDGES)),
    "resource.flags": _maps(("k", "l"), st.booleans()),
    "subject.level": st.sampled_from(EDGES),
    "context.ticket": st.sampled_from(WORDS),
}


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    kind = draw(st.sampled_from(("job", "job", "image", "node", "disk")))
    subject = draw(st.sampled_from(SUBJECTS)).split(":")
    resource = Entity(kind, draw(st.sampled_from(IDS[kind])))
    entries = {
        path: Fact(draw(values), draw(st.sampled_from((Assurance.CLAIMED, Assurance.ATTESTED))), "test", NOW)
        for path, values in _VALUES.items()
        if draw(st.integers(0, 3)) and (path != "subject.level" or subject[0] == "user")
    }
    return Facts(Request(Entity(subject[0], subject[1]), "job:use", resource), entries, EMPTY_MAP, (), ())


def told(decision: Decision) -> tuple[object, ...]:
    return (
        decision.allowed,
        decision.reason_codes,
        decision.determining,
        decision.errored,
        decision.requiring,
        decision.unmet_approvals,
        decision.obligations,
    )


class Scan(TreeCache):
    """TreeCache without an index: all rules of the action and type that any of the held roles brings."""

    def __missing__(self, held: tuple[str, ...]) -> Node:
        return Node(
            tuple(
                rule.match_row
                for pile in self.rules_by_role.values()
                for rule in pile
                if not set(rule.roles or (ANYONE,)).isdisjoint(held)
            )
        )


def scanning(policies: PolicySet) -> Snapshot:
    """Return the snapshot with its index taken away: every rule of the action, type and role is visited."""
    snapshot = snapshot_of(policies)
    for (action, type_name), roots in snapshot.rule_indexes.items():
        pattern = snapshot.schema.resources[type_name].id_pattern
        candidates = [
            rule
            for rule in snapshot.rules
            if action in rule.actions and type_name in rule.resource_types and is_aligned(rule.id_pattern, pattern)
        ]
        roots.anywhere = Scan({"all": candidates}, (), frozenset(), True)
        roots.in_domain = DomainTrees({})
    return snapshot


@exact
@given(policy_sets(), st.lists(facts(), min_size=4, max_size=8))
def test_the_index_visits_every_rule_that_could_fire_or_err(policies: PolicySet, questions: list[Facts]) -> None:
    """With the index and without it every decision is the same, errored rules included."""
    indexed, scanned = snapshot_of(policies), scanning(policies)
    for question in questions:
        assert told(Engine(indexed).decide(question, NOW)) == told(Engine(scanned).decide(question, NOW))


@pytest.mark.parametrize("effect", get_args(Effect))
@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
@pytest.mark.parametrize("code", [None, {}, {"lines": 2}], ids=["no record", "no field", "both"])
def test_the_index_leaves_out_no_rule_whose_field_is_absent(
    effect: Effect, guarded: bool, code: dict[str, Any] | None
) -> None:
    """An unguarded deny of an absent field is an error that refuses, so the index may not hide it."""
    lines = Select(_CODE, "lines", "int")
    when = [_call("equals", lines, _constant(number)) for number in range(4)]
    if guarded:
        when = [_call("logical_and", Has(_CODE, "lines"), test) for test in when]
    policies = _one_field_policies(effect, when)
    entries = {} if code is None else {"resource.code": Fact(_frozen(code), Assurance.ATTESTED, "test", NOW)}
    request = Request(Entity("user", "ann"), "job:use", Entity("job", "team/red/run"))
    question = Facts(request, entries, EMPTY_MAP, (), ())
    indexed = Engine(snapshot_of(policies)).decide(question, NOW)
    assert told(indexed) == told(Engine(scanning(policies)).decide(question, NOW))
    # With guards only the absence of the record, which `has` itself reads, is an error.
    is_error = code is None or (code == {} and not guarded)
    assert bool(indexed.errored) is is_error


@pytest.mark.parametrize(
    ("kind", "name", "allowed"),
    [
        ("job", "team/main/red/a", False),
        ("node", "org/main/red/a", False),
        ("job", "team/red/red/a", True),
        ("node", "org/main/blue/a", True),
    ],
)
def test_a_deny_whose_types_have_their_domain_in_different_segments_holds_for_both(
    kind: str, name: str, allowed: bool
) -> None:
    """The second segment is the domain of a job, the third that of a node: the rule belongs to no single domain."""
    both: dict[str, Any] = {"actions": ("job:use",), "resource_types": ("job", "node")}
    rules = (
        Rule(id="allow", effect="allow", **both),
        Rule(id="deny", effect="deny", id_pattern="*/main/red/**", **both),
    )
    policies = PolicySet(schema=SCHEMA, roles=(Role(name="r0"),), rules=rules)
    request = Request(Entity("user", "ann"), "job:use", Entity(kind, name))
    question = Facts(request, {}, EMPTY_MAP, (), ())
    assert Engine(snapshot_of(policies)).decide(question, NOW).allowed is allowed
    assert Engine(scanning(policies)).decide(question, NOW).allowed is allowed


def _one_field_policies(effect: Effect, conditions: list[Call]) -> PolicySet:
    """An allow for everyone, and a rule of this effect for each condition."""
    rules = [Rule(id="allow", effect="allow", actions=("job:use",), resource_types=("job",))]
    for number, when in enumerate(conditions):
        rules.append(
            Rule(
                id=f"rule-{number}",
                effect=effect,
                actions=("job:use",),
                resource_types=("job",),
                when=Condition(text="", expression=when),
                quorum="one" if effect == "require" else None,
            )
        )
    return PolicySet(
        schema=SCHEMA,
        roles=(Role(name="r0"),),
        rules=tuple(rules),
        quorums=(Quorum(id="one", approvers=(Approvers(count=1, roles=("r0",)),)),),
    )


@settings(exact, max_examples=20)
@given(policy_sets(), st.lists(facts(), min_size=3, max_size=5))
def test_the_engine_agrees_with_the_oracle_where_the_index_works_hardest(
    policies: PolicySet, questions: list[Facts]
) -> None:
    """The naive procedure finds the same rules; it shares no code with the index, the matchers or the compiled code."""
    snapshot, plain = snapshot_of(policies), plain_policy(policies)
    for question in questions:
        expected, found = oracle.decide(plain, plain_facts(question), NOW), Engine(snapshot).decide(question, NOW)
        assert found.allowed is expected["allowed"]
        assert list(found.errored) == expected["errored"]
        assert list(found.determining) == expected["determining"]
        assert list(found.requiring) == expected["requiring"]


@settings(exact, max_examples=20)
@given(policy_sets(), facts())
def test_a_snapshot_that_went_through_bytes_decides_the_same(policies: PolicySet, question: Facts) -> None:
    """Compile, spell as canonical JSON, read back: one digest, one decision."""
    # What the loader refuses, such as a deny that asks whether a fact is there, no compiled snapshot has.
    sound = [
        rule for rule in policies.rules if rule.when is None or not polarity_errors(rule.when.expression, rule.effect)
    ]
    policies = msgspec.structs.replace(policies, rules=tuple(sound))
    grants = assign_roles(policies.roles, policies.bindings, policies.exclusions, policies.persons)
    compiled = compile_policy(policies, grants)
    again = msgspec.json.decode(canonical(compiled))
    assert policy_digest(again) == policy_digest(compiled)
    read = Snapshot.from_compiled(again, policy_digest(again))
    assert told(Engine(read).decide(question, NOW)) == told(Engine(Snapshot.of(policies, grants)).decide(question, NOW))
