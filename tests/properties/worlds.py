"""Small random worlds: policy sets and facts for the property tests, as nouns and without YAML.

One schema with every kind of trouble in it: an attribute that needs a measurement, an optional one, a record, a list,
a type without a domain. Conditions are well typed and respect the polarity of `has`, as the loader guarantees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from policyguard.conditions.check import Checker
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import PolicyErrors
from policyguard.model.decision import Decision
from policyguard.model.expression import Call, Constant, Expression, Has, ListOf, Quantifier, Select, Variable
from policyguard.model.facts import Approval, Assurance, Fact, Facts
from policyguard.model.policy import (
    Approvers,
    Attribute,
    Binding,
    Condition,
    Effect,
    EntityType,
    Person,
    PolicySet,
    Quorum,
    Role,
    Rule,
    Schema,
    ValueType,
)
from policyguard.model.request import Entity, Request
from policyguard.values import EMPTY_MAP, FrozenMap, Value

NOW = 1_800_000_000 * 10**9
HOUR = 3600 * 10**9

INT, BOOL, TEXT = ValueType(kind="int"), ValueType(kind="bool"), ValueType(kind="string")
TEXTS = ValueType(kind="list", element=TEXT)
CODE = ValueType(kind="record", record="code")

ATTRIBUTES = {
    "gpus": Attribute(name="gpus", type=INT),
    "queue": Attribute(name="queue", type=TEXT, optional=True, enum=("prod", "dev")),
    "clean": Attribute(name="clean", type=BOOL, assurance=Assurance.MEASURED, max_age_s=3600),
    "code": Attribute(name="code", type=CODE, assurance=Assurance.OBSERVED, optional=True),
    "files": Attribute(name="files", type=TEXTS, optional=True),
}
SCHEMA = Schema(
    subjects={
        "user": EntityType(name="user", attributes={"level": Attribute(name="level", type=INT, optional=True)}),
        "service": EntityType(name="service"),
    },
    resources={
        "job": EntityType(
            name="job", attributes=ATTRIBUTES, actions=("job:submit", "job:kill"), id_pattern="team/{team}/**"
        ),
        "image": EntityType(name="image", attributes=ATTRIBUTES, actions=("image:push", "job:submit")),
    },
    context={"ticket": Attribute(name="ticket", type=TEXT, optional=True)},
    records={"code": {"dirty": Attribute(name="dirty", type=BOOL), "lines": Attribute(name="lines", type=INT)}},
)
SUBJECTS = ("user:ann", "user:bob", "user:cyd", "user:dee", "service:ci")
ROLES = ("r0", "r1", "r2", "r3")
DOMAINS = ("red", "blue")
PERSONS = (
    Person(id="ann", accounts=("user:ann", "service:ci")),
    Person(id="bob", accounts=("user:bob", "user:cyd")),
    Person(id="dee", accounts=("user:dee",)),
)
QUORUMS = (
    Quorum(id="one", approvers=(Approvers(count=1, roles=("r0", "r1")),)),
    Quorum(
        id="mixed",
        approvers=(Approvers(count=1, roles=("r1",), domain="red"), Approvers(count=1, roles=("r2",), domain="*")),
        max_age_s=1800,
    ),
)


@dataclass(frozen=True, slots=True)
class World:
    """A policy set, its snapshot, and one question."""

    policies: PolicySet
    snapshot: Snapshot
    facts: Facts

    def decide(self) -> Decision:
        return Engine(self.snapshot).decide(self.facts, NOW)


def snapshot_of(policies: PolicySet) -> Snapshot:
    """Return the snapshot with its index built, which else comes with the second decision."""
    snapshot = fresh_snapshot_of(policies)
    snapshot.build_indexes()
    return snapshot


def fresh_snapshot_of(policies: PolicySet) -> Snapshot:
    return Snapshot.of(policies, assign_roles(policies.roles, policies.bindings, policies.exclusions, policies.persons))


_RESOURCE, _SUBJECT, _CONTEXT = (
    Variable("resource", "resource"),
    Variable("subject", "subject"),
    Variable("context", "context"),
)
_GPUS = Select(_RESOURCE, "gpus", "int")
_CODE = Select(_RESOURCE, "code", "code")
_FILES = Select(_RESOURCE, "files", "list(string)")
_INTEGERS: tuple[Expression, ...] = (_GPUS, Select(_SUBJECT, "level", "int"), Select(_CODE, "lines", "int"))
_TEXTS: tuple[Expression, ...] = (
    Select(_RESOURCE, "queue", "string"),
    Select(_CONTEXT, "ticket", "string"),
    Select(_SUBJECT, "id", "string"),
    Select(_RESOURCE, "id", "string"),
    Variable("action", "string"),
)
_BOOLS: tuple[Expression, ...] = (Select(_RESOURCE, "clean", "bool"), Select(_CODE, "dirty", "bool"))
_PRESENCE: tuple[Expression, ...] = (
    Has(_RESOURCE, "queue"),
    Has(_RESOURCE, "code"),
    Has(_CONTEXT, "ticket"),
    Has(_RESOURCE, "files"),
    Has(_SUBJECT, "level"),
    Has(_CODE, "dirty"),
)
_HUGE = 2**53 - 1
_WHOLE_PROFILE: tuple[str, ...] = (
    "10 / resource.gpus > 1",
    "10 % resource.gpus == 0 || resource.gpus == 0",
    "-resource.gpus < subject.level",
    f"(resource.gpus * {_HUGE}) * 1024 > 0",
    f"[resource.gpus, 1].map(n, n * {_HUGE}).all(n, n * 512 != 0)",
    f'{{"k": resource.gpus * {_HUGE}}}.k * 2048 < 0',
    '{"a": resource.gpus, "b": 2}["b"] > resource.gpus',
    '{"a": 1}[resource.queue] == 1',
    "[resource.gpus, 2][resource.gpus] == 2",
    "(resource.gpus > 1 ? resource.clean : resource.code.dirty)",
    '(context.ticket == "T-1" ? resource.code.lines : resource.gpus) > 0',
    "size(resource.files) == resource.gpus",
    'resource.files.filter(f, f != "a").size() > 0',
    'resource.files.map(f, f + resource.queue).exists(g, g.contains("prod"))',
    'resource.files.map(f, f != "a", size(f)).all(n, n < 4)',
    'resource.files.exists_one(f, f.startsWith("a"))',
    "resource.files.all(f, resource.files.exists(g, g == f && resource.gpus > 0))",
    "resource.files.exists(f, f == context.ticket) || resource.clean",
    "resource.files == [resource.queue]",
    "resource.files + [resource.queue] != resource.files",
    "resource.queue in resource.files",
    'resource.queue.matches("^p") && !resource.id.endsWith("1")',
    'glob(resource.id, "team/*/run-*") == resource.clean',
    'under(resource.id, "team/red")',
    'int(resource.queue) > 0 || resource.queue == "dev"',
    "string(resource.gpus) == context.ticket",
    "bool(context.ticket)",
    'now - timestamp("2026-01-01T00:00:00Z") > duration("1h")',
    'now + duration(resource.queue) > timestamp("2027-01-15T08:00:00Z")',
    "now.getHours() > resource.gpus",
    "timestamp(resource.gpus) < now",
    'subject.id < "user:bob" && subject.type == "user"',
    'resource.domain == "red" || resource.code.dirty',
    'action == "job:submit" && resource.code.lines > resource.gpus',
)
"""Conditions with every construct of the profile, each with errors nearby; none tests for presence."""

_CHECKER = Checker(SCHEMA)
_WHOLE_PROFILE_ATOMS = tuple(_CHECKER.check(text, resource_type="job") for text in _WHOLE_PROFILE)
_WORDS = ("prod", "dev", "T-1", "user:ann", "a", "job:submit")


def _call(function: str, *arguments: Expression) -> Expression:
    return Call(function, arguments, "bool")


@st.composite
def _plain_atoms(draw: st.DrawFn) -> Expression:
    """Return an atom without `has`."""
    kind = draw(st.sampled_from(("int", "text", "bool", "in", "exists", "all", "profile", "profile", "profile")))
    if kind == "profile":
        return draw(st.sampled_from(_WHOLE_PROFILE_ATOMS))
    word = st.sampled_from(_WORDS).map(lambda value: Constant(value, "string"))
    if kind == "int":
        operator = draw(st.sampled_from(("less_equals_int64", "greater_int64", "equals")))
        return _call(operator, draw(st.sampled_from(_INTEGERS)), Constant(draw(st.integers(-2, 4)), "int"))
    if kind == "text":
        return _call(draw(st.sampled_from(("equals", "not_equals"))), draw(st.sampled_from(_TEXTS)), draw(word))
    if kind == "bool":
        return draw(st.sampled_from(_BOOLS))
    if kind == "in":
        options = draw(st.lists(word, min_size=1, max_size=3))
        return _call("in_list", draw(st.sampled_from(_TEXTS)), ListOf(tuple(options), "list(string)"))
    body = _call("equals", Variable("f", "string"), draw(word))
    return Quantifier("exists" if kind == "exists" else "all", "f", _FILES, body, "bool")


def conditions(positive_has: bool) -> st.SearchStrategy[Expression]:
    """Return conditions in which `has` stands only positively, or only negatively."""
    presence = st.sampled_from(_PRESENCE)
    leaf = _plain_atoms() | (presence if positive_has else presence.map(lambda has: _call("logical_not", has)))

    def grow(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        pairs = st.tuples(st.sampled_from(("logical_and", "logical_or")), inner, inner)
        return pairs.map(lambda pair: _call(*pair)) | _plain_atoms().map(lambda atom: _call("logical_not", atom))

    return st.recursive(leaf, grow, max_leaves=4)


@st.composite
def rules(draw: st.DrawFn, number: int) -> Rule:
    effect: Effect = draw(st.sampled_from(("allow", "allow", "deny", "require")))
    types = draw(st.sampled_from((("job",), ("job",), ("image",), ("job", "image"))))
    actions = draw(st.sampled_from((("job:submit",), ("job:kill",), ("job:submit", "job:kill", "image:push"))))
    when = draw(st.none() | conditions(positive_has=effect == "allow"))
    in_teams = types == ("job",)
    return Rule(
        id=f"rule-{number}",
        effect=effect,
        actions=actions,
        resource_types=types,
        roles=tuple(draw(st.lists(st.sampled_from(ROLES), max_size=2, unique=True))),
        subjects=tuple(draw(st.lists(st.sampled_from(SUBJECTS), max_size=1))) if draw(st.booleans()) else (),
        id_pattern=draw(st.sampled_from(PATTERNS)) if in_teams else None,
        scope=draw(st.sampled_from((None, None, *DOMAINS))) if in_teams else None,
        when=None if when is None else Condition(text="", expression=when),
        assurance=draw(st.sampled_from(FLOORS)) if when is not None else (),
        quorum=draw(st.sampled_from([quorum.id for quorum in QUORUMS])) if effect == "require" else None,
        reason=draw(st.sampled_from((None, "some.reason"))),
        expires=draw(st.sampled_from((None, None, NOW, NOW + HOUR))),
    )


FLOORS: tuple[tuple[tuple[str, Assurance], ...], ...] = (
    (),
    (),
    (),
    (("resource.gpus", Assurance.OBSERVED),),
    (("resource.clean", Assurance.ATTESTED),),
    (("resource.code", Assurance.MEASURED), ("resource.queue", Assurance.MEASURED)),
    (("context.ticket", Assurance.OBSERVED), ("subject.level", Assurance.ATTESTED)),
)
PATTERNS = (None, None, "team/{team}/**", "team/red/**", "team/*/run-*", "team/blue/run-1", "team/{team}/run-1")


@st.composite
def policy_sets(draw: st.DrawFn, most_rules: int = 7) -> PolicySet:
    count = draw(st.integers(0, most_rules))
    inherits = {
        name: tuple(sorted(draw(st.sets(st.sampled_from(ROLES[:i]), max_size=2)))) if i else ()
        for i, name in enumerate(ROLES)
    }
    bindings = draw(st.lists(bindings_(), max_size=6, unique_by=lambda b: (b.subject, b.role, b.domain)))
    return PolicySet(
        schema=SCHEMA,
        roles=tuple(Role(name=name, inherits=inherits[name]) for name in ROLES),
        bindings=tuple(bindings),
        persons=PERSONS,
        rules=tuple(draw(rules(number)) for number in range(count)),
        quorums=QUORUMS,
    )


@st.composite
def bindings_(draw: st.DrawFn) -> Binding:
    return Binding(
        subject=draw(st.sampled_from(SUBJECTS)),
        role=draw(st.sampled_from(ROLES)),
        domain=draw(st.sampled_from((*DOMAINS, "*"))),
        expires=draw(st.sampled_from((None, None, NOW, NOW + HOUR))),
    )


def _values(name: str) -> st.SearchStrategy[Value]:
    choices: dict[str, st.SearchStrategy[Any]] = {
        "resource.gpus": st.integers(-2, 4),
        "resource.queue": st.sampled_from(("prod", "dev")),
        "resource.clean": st.booleans(),
        "resource.code": st.builds(
            lambda dirty, lines: FrozenMap({**dirty, **lines}),
            st.just({}) | st.booleans().map(lambda value: {"dirty": value}),
            st.just({}) | st.integers(0, 3).map(lambda value: {"lines": value}),
        ),
        "resource.files": st.lists(st.sampled_from(("a", "prod")), max_size=2).map(tuple),
        "subject.level": st.integers(-2, 4),
        "context.ticket": st.sampled_from(("T-1", "prod")),
    }
    return choices[name]


PATHS = (
    "resource.gpus",
    "resource.queue",
    "resource.clean",
    "resource.code",
    "resource.files",
    "subject.level",
    "context.ticket",
)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    subject = draw(st.sampled_from(SUBJECTS))
    kind, _, name = subject.partition(":")
    team = draw(st.sampled_from(DOMAINS))
    resource = draw(
        st.sampled_from(
            (Entity("job", f"team/{team}/run-1"), Entity("job", f"team/{team}/x/y"), Entity("image", "base"))
        )
    )
    request = Request(Entity(kind, name), draw(st.sampled_from(("job:submit", "job:kill", "image:push"))), resource)
    entries = {}
    for path in PATHS:
        if draw(st.booleans()) and not (path == "subject.level" and kind == "service"):
            assurance = draw(st.sampled_from(tuple(Assurance)))
            seen = draw(st.sampled_from((NOW, NOW - HOUR, NOW - 2 * HOUR)))
            entries[path] = Fact(draw(_values(path)), assurance, "test", seen)
    approvals = draw(st.lists(approvals_(), max_size=3))
    contributors = draw(st.none() | st.lists(st.sampled_from((*SUBJECTS, "user:nobody")), max_size=2).map(tuple))
    return Facts(request, entries, EMPTY_MAP, tuple(approvals), contributors)


@st.composite
def approvals_(draw: st.DrawFn) -> Approval:
    return Approval(
        account=draw(st.sampled_from((*SUBJECTS, "user:nobody"))),
        assurance=draw(st.sampled_from((Assurance.OBSERVED, Assurance.ATTESTED, Assurance.ATTESTED))),
        source="test",
        approved_at=draw(st.sampled_from((NOW, NOW - HOUR, NOW - 60 * 10**9, NOW + HOUR))),
        expires=draw(st.sampled_from((NOW, NOW + HOUR))),
        approval_digest="0" * 64,
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a world; a policy set that separation of duty would refuse cannot arise, there are no exclusions."""
    policies = draw(policy_sets())
    try:
        snapshot = snapshot_of(policies)
    except PolicyErrors as problems:
        raise AssertionError(f"a world that does not load: {problems}") from problems
    return World(policies, snapshot, draw(facts()))
