"""A loaded policy set, immutable: everything that can be known before the first request is known here.

Hosts swap a snapshot by reference; any number of threads may decide on the old one meanwhile. Deciding changes nothing
in it, so it never grows. Pure: bytes come from `files` or `bundle`, signatures are checked before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from policyguard.conditions.ast import filled, from_canonical, paths_read
from policyguard.conditions.codegen import compile_shape
from policyguard.conditions.exact import EvalError
from policyguard.conditions.exact import evaluate as evaluate_exactly
from policyguard.decide.admit import Admitted, Gate, Malformed, gates
from policyguard.decide.compile import FORMAT, compile_policy, decode_constant, hole_types, policy_digest, schema_of
from policyguard.decide.demand import Template, bind, template
from policyguard.decide.evaluate import ANYONE, decide, evaluate
from policyguard.decide.explain import explain
from policyguard.decide.grants import Grants
from policyguard.decide.index import PREFIX, RESOURCE, SUBJECT, Demand, Key, Node, build
from policyguard.decide.pattern import (
    DOMAIN,
    Matcher,
    domain_index,
    literal_domain,
    literal_prefix,
    literal_stretch,
    matcher,
)
from policyguard.model.decision import Decision
from policyguard.model.expression import Expression
from policyguard.model.facts import Facts
from policyguard.model.policy import Person, PolicySet, Quorum, Schema
from policyguard.model.request import Request
from policyguard.values import Instant, Span, parse_instant


class Shape:
    """A condition without its constants, compiled once for all rules that share it."""

    __slots__ = ("demands", "expression", "hole_types", "reads", "run")

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self.hole_types = hole_types(expression)
        self.run: Callable[..., bool] = compile_shape(expression)
        self.demands: Template = template(expression)
        self.reads = frozenset(f"{path[0]}.{path[1]}" for path in paths_read(expression) if len(path) > 1)


class CompiledRule:
    """One rule, ready to run. `run` None means the rule has no condition; `test` None that every id matches."""

    __slots__ = (
        "actions", "constants", "contact", "demands", "effect", "expires", "id", "id_pattern", "ids", "narrow",
        "not_before", "obligations", "owner", "quorum", "reason", "reasons", "remedy", "resource_types", "roles", "run",
        "scope", "shape", "span", "spelled", "stretch", "subjects", "test", "text",
    )  # fmt: skip

    def __init__(self, data: Sequence[Any], place: Sequence[Any], shapes: Sequence[Shape], intern: Interner) -> None:
        (self.id, self.effect, actions, types, roles, subjects, self.id_pattern, self.scope, number, constants,
         quorum, reason, remedy, contact, obligations, not_before, expires) = data  # fmt: skip
        self.actions: tuple[str, ...] = intern.texts(actions)
        self.resource_types: tuple[str, ...] = intern.texts(types)
        self.roles: tuple[str, ...] = intern.texts(roles)
        self.subjects: tuple[str, ...] = intern.texts(subjects)
        self.obligations: tuple[str, ...] = intern.texts(obligations)
        self.quorum: str | None = quorum
        self.reason: str | None = intern.text(reason)
        self.remedy: str | None = intern.text(remedy)
        self.contact: str | None = intern.text(contact)
        self.not_before: Instant | None = None if not_before is None else parse_instant(not_before)
        self.expires: Instant | None = None if expires is None else parse_instant(expires)
        self.ids: tuple[str, ...] = (self.id,)
        self.reasons: tuple[str, ...] = intern.texts([self.reason or _DEFAULT_REASONS[self.effect]])
        self.shape: Shape | None = shapes[number] if number >= 0 else None
        self.run = None if self.shape is None else self.shape.run
        self.constants: tuple[Any, ...] = ()
        self.demands: tuple[Demand, ...] = ()
        if self.shape is not None:
            self.constants = tuple(map(decode_constant, constants, self.shape.hole_types))
        self.test: Matcher | None = None
        self.stretch: slice | None = None
        self.spelled: list[str] = []
        self.narrow = bool(self.subjects or self.not_before is not None or self.expires is not None)
        file, line, column, self.text, self.owner = place
        self.span = Span(intern.text(file) or "", line, column)

    def fits(self, identifier: str) -> bool:
        """Whether an id of one of the rule's types fits the rule's pattern."""
        if self.stretch is not None:
            return identifier.split("/")[self.stretch] == self.spelled
        return self.test is None or self.test(identifier)

    def concerns(self, subject_ref: str, now: Instant) -> bool:
        """Whether the rule's named subjects and its time window take in this request."""
        if self.subjects and subject_ref not in self.subjects:
            return False
        if self.not_before is not None and now < self.not_before:
            return False
        return self.expires is None or now < self.expires

    @property
    def condition(self) -> Expression | None:
        """The checked condition with this rule's own constants."""
        return None if self.shape is None else filled(self.shape.expression, self.constants)

    def evaluate_exactly(
        self, subject: dict[str, Any], resource: dict[str, Any], context: dict[str, Any], action: str, now: Instant
    ) -> bool | EvalError:
        """Return the three-valued outcome by the specification; called when the compiled code was not sure."""
        condition = self.condition
        return True if condition is None else evaluate_exactly(condition, subject, resource, context, action, now)


_DEFAULT_REASONS = ("rule.allow", "rule.deny", "rule.require")


class Interner:
    """Makes one object of equal texts and equal tuples while a snapshot is built."""

    def __init__(self) -> None:
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}

    def text(self, text: str | None) -> str | None:
        return None if text is None else sys.intern(text)

    def texts(self, texts: Sequence[str]) -> tuple[str, ...]:
        key = tuple(map(sys.intern, texts))
        return self._tuples.setdefault(key, key)


class Snapshot:
    """An immutable, compiled policy set. Build with `of` or `from_compiled`."""

    __slots__ = (
        "_all_sensitive", "by_id", "epoch", "gates", "grants", "people", "persons", "policy_digest", "quorums", "roots",
        "rules", "schema", "trace_roles",
    )  # fmt: skip

    def __init__(self, compiled: Mapping[str, Any], digest: str) -> None:
        policy = compiled["policy"]
        self.policy_digest = digest
        self.epoch: int = policy["epoch"]
        self.schema: Schema = schema_of(policy["schema"])
        self.grants = Grants.from_data(policy["grants"])
        self.people: tuple[Person, ...] = tuple(
            Person(id=id_, accounts=tuple(accounts), keys=tuple(keys), emails=tuple(emails))
            for id_, accounts, keys, emails in policy["persons"]
        )
        self.persons: dict[str, str] = {account: person.id for person in self.people for account in person.accounts}
        self.quorums: dict[str, Quorum] = {data["id"]: msgspec.convert(data, Quorum) for data in policy["quorums"]}
        self.trace_roles: tuple[str, ...] = tuple(policy["trace_roles"])
        self.gates: dict[tuple[str, str], Gate] = gates(self.schema)
        self._all_sensitive = frozenset().union(*(gate.sensitive for gate in self.gates.values()))
        shapes = [Shape(from_canonical(form)) for form in policy["shapes"]]
        intern = Interner()
        self.rules: tuple[CompiledRule, ...] = tuple(
            CompiledRule(data, place, shapes, intern)
            for data, place in zip(policy["rules"], compiled["places"], strict=True)
        )
        self.by_id: dict[str, CompiledRule] = {rule.id: rule for rule in self.rules}
        self.roots: dict[tuple[str, str], dict[str, Node]] = _roots(self.rules, self.schema)

    @classmethod
    def of(cls, policy_set: PolicySet, grants: Grants) -> Snapshot:
        """Return the snapshot of a policy set: the same object as its compiled form gives."""
        compiled = compile_policy(policy_set, grants)
        return cls(compiled, policy_digest(compiled))

    @classmethod
    def from_compiled(cls, compiled: Mapping[str, Any], digest: str) -> Snapshot:
        """Return the snapshot a compiled form spells; its signature and digest are already verified.

        Raises:
            ValueError: another format.
        """
        if compiled.get("format") != FORMAT:
            raise ValueError(
                f"found format `{compiled.get('format')}`, expected `{FORMAT}`, compile the policies again"
            )
        return cls(compiled, digest)

    def decide(self, facts: Facts, now: Instant) -> Decision:
        """Return the decision on these facts. Never raises on data."""
        return decide(self, facts, now)

    def admit(self, facts: Facts, now: Instant) -> Admitted | None:
        """Return what counts of these facts, for `evaluate`; None where no rule could concern them."""
        request = facts.request
        gate = self.gates.get((request.subject.type, request.resource.type))
        if gate is None or not self.rules or (request.action, request.resource.type) not in self.roots:
            return None
        try:
            return gate.admit(facts, now)
        except Malformed:
            return None

    def evaluate(self, admitted: Admitted) -> Decision:
        """Return the decision on admitted facts: the rules alone. `decide` is both steps."""
        return evaluate(self, admitted)

    def explain(self, decision: Decision, *, full: bool = False) -> str:
        """Return the decision in words."""
        return explain(self, decision, full=full)

    def mattering(self, decision: Decision) -> frozenset[str] | None:
        """Return the paths whose facts made this decision, None for all of them: a default deny read them all."""
        ids = decision.determining + decision.errored + decision.requiring
        if not ids:
            return None
        shapes = [shape for rule_id in ids if (shape := self.by_id[rule_id].shape) is not None]
        if len(shapes) == 1:
            return shapes[0].reads
        return frozenset().union(*(shape.reads for shape in shapes))

    def sensitive(self, request: Request) -> frozenset[str]:
        """Return the paths whose values never leave, for a request of these types."""
        gate = self.gates.get((request.subject.type, request.resource.type))
        return self._all_sensitive if gate is None else gate.sensitive


def _roots(rules: Sequence[CompiledRule], schema: Schema) -> dict[tuple[str, str], dict[str, Node]]:
    """Return, for every action on every type, the rules by role; an action nobody writes rules for is there too."""
    piles: dict[tuple[str, str], dict[str, list[CompiledRule]]] = {
        (action, resource.name): {} for resource in schema.resources.values() for action in resource.actions
    }
    for rule in rules:
        patterns = {schema.resources[type_name].id_pattern for type_name in rule.resource_types}
        stretch = literal_stretch(rule.id_pattern, patterns)
        if stretch is not None:
            rule.stretch, rule.spelled = stretch
        else:
            tests = [matcher(rule.id_pattern, pattern) for pattern in patterns]
            rule.test = next((test for test in tests if test is not None), None)
        rule.demands = _demands(rule, schema)
        for type_name in rule.resource_types:
            for action in rule.actions:
                pile = piles.get((action, type_name))
                if pile is not None:
                    for role in rule.roles or (ANYONE,):
                        pile.setdefault(role, []).append(rule)
    roots = {key: {role: build(members) for role, members in by_role.items()} for key, by_role in piles.items()}
    for rule in rules:
        rule.demands = ()
    return roots


def _demands(rule: CompiledRule, schema: Schema) -> tuple[Demand, ...]:
    demands: list[Demand] = [] if rule.shape is None else list(bind(rule.shape.demands, rule.constants))
    if rule.scope is not None:
        demands.append(_demand((RESOURCE, "domain", None), rule.scope))
    if rule.subjects:
        demands.append(_demand((SUBJECT, "id", None), *rule.subjects))
    if rule.id_pattern is not None:
        patterns = {schema.resources[name].id_pattern for name in rule.resource_types}
        demands += _pattern_demands(rule.id_pattern, patterns, scoped=rule.scope is not None)
    return tuple(demands)


def _demand(key: Key, *values: str) -> Demand:
    """Return an equality that is not of the condition, so that absence is FALSE and never an ERROR."""
    return Demand(key, "in", values, True, True)


def _pattern_demands(pattern: str, type_patterns: set[str | None], *, scoped: bool) -> list[Demand]:
    if "*" not in pattern and DOMAIN not in pattern:
        return [_demand((RESOURCE, "id", None), pattern)]
    found: list[Demand] = []
    indices = {domain_index(type_pattern) for type_pattern in type_patterns}
    literal = literal_domain(pattern, indices.pop()) if len(indices) == 1 else None
    if literal is not None and not scoped:
        found.append(_demand((RESOURCE, "domain", None), literal))
    prefix = literal_prefix(pattern)
    if prefix:
        found.append(_demand((PREFIX, str(len(prefix)), None), "/".join(prefix)))
    return found
