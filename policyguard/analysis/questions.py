"""Who can do what: answers by the rules, with the conditions that remain where facts are not known. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import msgspec

from policyguard.analysis.residual import Residual, residual
from policyguard.conditions.ast import Path, atoms, paths_read
from policyguard.conditions.exact import Outcome, evaluate
from policyguard.decide.admission import Admitted, apply_minimum_assurance
from policyguard.decide.compiled_form import ALLOW, DENY, REQUIRE
from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.conversion import Malformed
from policyguard.decide.quorum import unmet_approvals
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import RequestError
from policyguard.model.expression import Expression
from policyguard.model.facts import Approval, Fact, Facts
from policyguard.model.policy import ANY_DOMAIN
from policyguard.model.request import Entity, Request
from policyguard.patterns.id_pattern import DOMAIN, domain_index, is_aligned, literal_domain
from policyguard.values import Instant

Verdict: TypeAlias = Literal["yes", "if", "no"]

ANYONE_ELSE = "*"
"""Means every id that the policies do not name."""

OTHER_DOMAIN = "other-domain"
"""Means every domain that the policies do not name."""

_ALWAYS_KNOWN = frozenset({("action",), ("now",), ("resource", "type"), ("subject", "type")})
_RESOURCE_ID = ("resource", "id")
_SUBJECT_ID = ("subject", "id")


class Clause(msgspec.Struct, frozen=True):
    """A rule that takes part, and the condition that remains of it; True if none does."""

    rule: CompiledRule
    when: Residual


class Answer(msgspec.Struct, frozen=True):
    """Whether a subject can: `yes`, `no`, or `if` a clause of `allows` holds and none of `denies`.

    Each clause of `requires` that holds needs the approvals of its quorum. A `no` has the denies that always apply, or
    no allows. An `if` says what the policies ask for; that all of it can hold at once is not examined.
    """

    allows: tuple[Clause, ...] = ()
    denies: tuple[Clause, ...] = ()
    requires: tuple[Clause, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if not self.allows or any(clause.when is True for clause in self.denies):
            return "no"
        settled = not self.denies and not self.requires and any(clause.when is True for clause in self.allows)
        return "yes" if settled else "if"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An action on a resource, and what is known about it.

    `entries` are facts by path, of which the paths in `known` are settled: `("resource", "gpus")`, or a member of a
    record; everything else is open. `approvals` and `contributors` are those of `Facts`. With `any_id`, it is about
    every resource of the same domain as this one, and its id is open.
    """

    action: str
    resource: Entity
    now: Instant
    entries: Mapping[str, Fact] = {}
    known: frozenset[Path] = frozenset()
    approvals: tuple[Approval, ...] = ()
    contributors: tuple[str, ...] | None = None
    any_id: bool = False


def who_can(snapshot: Snapshot, question: Question) -> Iterator[tuple[str, Answer]]:
    """Yield each subject that the policies name, sorted, and anybody else of each type as `TYPE:*`, with the answer.

    Subjects whose answer is the same share one object.

    Raises:
        RequestError: the schema has no such action or type, or the id does not fit.
    """
    named = {subject for rule in snapshot.rules for subject in rule.subjects}
    subjects = snapshot.grants.subjects | named | set(snapshot.persons)
    types = snapshot.schema.subjects
    computed = _Evaluation(snapshot, question)
    for subject in sorted(subjects):
        if subject.partition(":")[0] in types:
            yield subject, computed.answer(subject)
    for type_ in types:
        yield f"{type_}:{ANYONE_ELSE}", computed.answer(f"{type_}:{ANYONE_ELSE}")


def can(snapshot: Snapshot, subject: str, question: Question) -> Answer:
    """Return whether one subject can.

    Args:
        snapshot: the policies.
        subject: who, `type:id`.
        question: what, and what is known about it.

    Raises:
        RequestError: the schema has no such action or type, or the id does not fit.
    """
    return _Evaluation(snapshot, question).answer(subject)


def actions_of(snapshot: Snapshot, subject: str, now: Instant) -> Iterator[tuple[Question, str | None, Answer]]:
    """Yield each action that a subject may do on resources of some domain, or of none, with the answer.

    The domains are those that the policies name, and `OTHER_DOMAIN` for all others; None where ids have no domain.

    Args:
        snapshot: the policies.
        subject: who, `type:id`.
        now: the time.
    """
    named = {row[2] for row in snapshot.grants.rows() if row[0] == subject} | {rule.scope for rule in snapshot.rules}
    for resource in snapshot.schema.resources.values():
        index = domain_index(resource.id_pattern)
        domains = named | {literal_domain(rule.id_pattern, index) for rule in snapshot.rules}
        ordered = sorted(domain for domain in domains if domain is not None and domain != ANY_DOMAIN)
        for domain in (None,) if index is None else (*ordered, OTHER_DOMAIN):
            pattern = (resource.id_pattern or "**").replace(DOMAIN, domain or "x")
            entity = Entity(resource.name, pattern.replace("**", "x").replace("*", "x"))
            for action in resource.actions:
                question = Question(action=action, resource=entity, now=now, any_id=True)
                answer = can(snapshot, subject, question)
                if answer.verdict != "no":
                    yield question, domain, answer


class _Evaluation:
    """The evaluation of one question; what subjects have in common is computed once."""

    def __init__(self, snapshot: Snapshot, question: Question) -> None:
        self._snapshot, self._question = snapshot, question
        _check(snapshot, question)
        self._rules = tuple(rule for rule in snapshot.rules if self._concerns(rule))
        self._named = frozenset(subject for rule in self._rules for subject in rule.subjects)
        self._admitted: dict[str, Admitted] = {}
        self._known = _ALWAYS_KNOWN | question.known
        if not question.any_id:
            self._known |= {_RESOURCE_ID}
        self._clauses: dict[tuple[str, int], tuple[Residual, bool]] = {}
        self._by_roles: dict[tuple[str, tuple[str, ...]], Answer] = {}

    def answer(self, subject: str) -> Answer:
        type_ = subject.partition(":")[0]
        roles = self._snapshot.grants.roles_at(subject, self._admit(type_).domain, self._question.now)
        # A rule may name the subject, and an approval by its own person counts for nothing: such answers are its own.
        is_alone = subject in self._named or bool(self._question.approvals)
        if not is_alone and (type_, roles) in self._by_roles:
            return self._by_roles[type_, roles]
        rules = [rule for rule in self._rules if self._applies(rule, subject, roles)]
        answer = self._combine(subject, rules)
        if not is_alone and not any(self._shared(rule, type_)[1] for rule in rules):
            self._by_roles[type_, roles] = answer
        return answer

    def _concerns(self, rule: CompiledRule) -> bool:
        question = self._question
        type_ = question.resource.type
        if question.action not in rule.actions or type_ not in rule.resource_types:
            return False
        if not is_aligned(rule.id_pattern, self._snapshot.schema.resources[type_].id_pattern):
            return False
        if (rule.not_before or question.now) > question.now or question.now >= (rule.expires or question.now + 1):
            return False
        if question.any_id:
            index = domain_index(self._snapshot.schema.resources[type_].id_pattern)
            domain = literal_domain(rule.id_pattern, index)
            return domain is None or index is None or question.resource.id.split("/")[index] == domain
        return rule.fits(question.resource.id)

    def _applies(self, rule: CompiledRule, subject: str, roles: tuple[str, ...]) -> bool:
        if rule.scope is not None and rule.scope != self._admit(subject.partition(":")[0]).domain:
            return False
        if rule.subjects and subject not in rule.subjects:
            return False
        return not rule.roles or not set(rule.roles).isdisjoint(roles)

    def _combine(self, subject: str, rules: list[CompiledRule]) -> Answer:
        clauses: dict[int, list[Clause]] = {ALLOW: [], DENY: [], REQUIRE: []}
        for rule in rules:
            when = self._residual(rule, subject)
            if when is not False and not (rule.effect == REQUIRE and self._is_met(rule, subject)):
                clauses[rule.effect].append(Clause(rule, when))
        return Answer(*(tuple(clauses[effect]) for effect in (ALLOW, DENY, REQUIRE)))

    def _residual(self, rule: CompiledRule, subject: str) -> Residual:
        type_, _, identifier = subject.partition(":")
        shared, depends = self._shared(rule, type_)
        if not depends or identifier == ANYONE_ELSE:
            return shared
        return self._settled(rule, subject, self._known | {_SUBJECT_ID})

    def _shared(self, rule: CompiledRule, type_: str) -> tuple[Residual, bool]:
        """Evaluate a rule for all subjects of a type: the residual, and True if an id would settle more of it."""
        key = (type_, id(rule))
        if key not in self._clauses:
            shared = self._settled(rule, f"{type_}:{ANYONE_ELSE}", self._known)
            parts = () if isinstance(shared, bool) else atoms(shared)
            depends = any(
                _SUBJECT_ID in read and _is_known(read, self._known | {_SUBJECT_ID}) for read in map(paths_read, parts)
            )
            self._clauses[key] = shared, depends
        return self._clauses[key]

    def _settled(self, rule: CompiledRule, subject: str, known: Collection[Path]) -> Residual:
        condition = rule.condition
        if condition is None:
            return True
        admitted = apply_minimum_assurance(self._admit(subject.partition(":")[0]), rule.assurance)
        attributes = {**admitted.subject, "id": subject}

        def outcome_of(node: Expression) -> Outcome | None:
            if not _is_known(paths_read(node), known):
                return None
            return evaluate(
                node, attributes, admitted.resource, admitted.context, self._question.action, self._question.now
            )

        return residual(condition, outcome_of, error_is=rule.effect != ALLOW)

    def _is_met(self, rule: CompiledRule, subject: str) -> bool:
        """Return True if the approvals that are supposed fill the quorum."""
        question, snapshot = self._question, self._snapshot
        if not question.approvals:
            return False
        facts = Facts(
            Request(_entity(subject), question.action, question.resource),
            approvals=question.approvals,
            contributors=question.contributors or (subject,),
        )
        domain = self._admit(subject.partition(":")[0]).domain
        quorum = snapshot.quorums[rule.quorum or ""]
        return not unmet_approvals(
            quorum, rule.id, facts, domain, question.now, snapshot.persons, snapshot.grants.roles_at
        )

    def _admit(self, type_: str) -> Admitted:
        """Admit the known facts for subjects of a type."""
        if type_ not in self._admitted:
            question = self._question
            admission = self._snapshot.admissions_by_type.get((type_, question.resource.type))
            if admission is None:
                raise RequestError(f"unknown subject type `{type_}`, expected one of the schema", path="the subject")
            request = Request(Entity(type_, "nobody"), question.action, question.resource)
            try:
                self._admitted[type_] = admission.admit(Facts(request, dict(question.entries)), question.now)
            except Malformed as problem:
                raise RequestError(problem.message, path=problem.path) from problem
        return self._admitted[type_]


def _check(snapshot: Snapshot, question: Question) -> None:
    resource = snapshot.schema.resources.get(question.resource.type)
    if resource is None:
        known = ", ".join(sorted(snapshot.schema.resources))
        raise RequestError(f"unknown resource type `{question.resource.type}`, expected one of {known}")
    if question.action not in resource.actions:
        known = ", ".join(sorted(resource.actions))
        raise RequestError(f"unknown action `{question.action}` on `{resource.name}`, expected one of {known}")


def _entity(subject: str) -> Entity:
    type_, _, identifier = subject.partition(":")
    return Entity(type_, identifier)


def _is_known(paths: Iterable[Path], known: Collection[Path]) -> bool:
    """Return True if each of the paths, or a path above it, is known."""
    return all(any(path[:length] in known for length in range(1, len(path) + 1)) for path in paths)
