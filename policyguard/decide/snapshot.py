"""A loaded policy set, immutable: everything that can be known before the first request is known here.

Hosts swap a snapshot by reference; any number of threads may decide on the old one meanwhile. Deciding only fills in
what the snapshot determines already, the index of a role and the test of a rule's ids, so it does not grow with what is
asked. Pure: bytes come from `files` or `bundle`, signatures are checked before.
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
from policyguard.conditions.problems import ProfileError
from policyguard.decide.admission import Admitted, Gate, Malformed, gates, known_well
from policyguard.decide.compiled_form import (
    FORMAT,
    LARGE,
    check_policy,
    compile_policy,
    decode_constant,
    hole_types,
    policy_digest,
    schema_of,
)
from policyguard.decide.evaluate import decide, evaluate
from policyguard.decide.explain import explain
from policyguard.decide.index.keys import Template, template
from policyguard.decide.index.rules import Roots, roots_of
from policyguard.decide.lasting import met_until
from policyguard.decide.redaction import Redact, withheld
from policyguard.decide.role_grants import Grants
from policyguard.errors import ConfigurationError
from policyguard.model.decision import Decision
from policyguard.model.expression import Expression
from policyguard.model.facts import Facts
from policyguard.model.policy import REQUEST, Person, PolicySet, Quorum, Schema
from policyguard.model.request import Request
from policyguard.patterns.id_pattern import Matcher, literal_stretch, matcher
from policyguard.values import Instant, Span, one_line, parse_instant

_AGAIN = "compile the policies again"
_NO_SEGMENTS: list[str] = []


class Shape:
    """A condition without its constants, compiled once for all rules that share it."""

    __slots__ = ("_large", "_lists", "demands", "expression", "hole_types", "reads", "run")

    demands: Template
    reads: frozenset[str]
    run: Callable[..., bool]

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self.hole_types = hole_types(expression)
        self._large = not LARGE.isdisjoint(self.hole_types)
        self._lists = any(kind.startswith("list(") for kind in self.hole_types)

    def __getattr__(self, name: str) -> Any:
        """Compile and analyse the condition when a rule that has it is first looked at."""
        if name == "run":
            self.run = _compiled(self.expression)
        elif name == "demands":
            self.demands = template(self.expression)
        elif name == "reads":
            self.reads = frozenset(f"{path[0]}.{path[1]}" for path in paths_read(self.expression) if len(path) > 1)
        else:
            raise AttributeError(name)
        return getattr(self, name)

    def constants(self, data: Sequence[Any]) -> tuple[Any, ...]:
        """Return a rule's constants from their JSON spelling, in the order of the holes; as many, else `ValueError`."""
        if len(data) != len(self.hole_types):
            raise ValueError(f"found {len(data)} constants, expected {len(self.hole_types)}")
        if self._large:
            return tuple(map(decode_constant, data, self.hole_types))
        return tuple([tuple(each) if type(each) is list else each for each in data]) if self._lists else tuple(data)


def _compiled(expression: Expression) -> Callable[..., bool]:
    try:
        return compile_shape(expression)
    except (RecursionError, MemoryError, SyntaxError):
        # Whatever Python's compiler cannot take goes the long way, which decides the same.
        return _unsure


def _unsure(*_: object) -> bool:
    raise NotImplementedError("the exact evaluator decides")


class CompiledRule:
    """One rule, ready to run once `run`, `test`, `stretch` and `spelled` are asked for: few rules are in a short life.

    `run` None means the rule has no condition. Where `stretch` is not None, an id matches if its segments there are
    `spelled`; else `test` says it, None for every id. `type_patterns` are those that ids of the rule's types match.
    """

    __slots__ = (
        "actions",
        "assurance",
        "constants",
        "contact",
        "effect",
        "expires",
        "hot",
        "id",
        "id_pattern",
        "ids",
        "narrow",
        "not_before",
        "obligations",
        "owner",
        "quorum",
        "reason",
        "reasons",
        "remedy",
        "resource_types",
        "roles",
        "run",
        "scope",
        "shape",
        "span",
        "spelled",
        "stretch",
        "subjects",
        "test",
        "text",
        "type_patterns",
    )

    hot: tuple[Any, ...]
    run: Callable[..., bool] | None
    spelled: list[str]
    stretch: slice | None
    test: Matcher | None

    def __init__(self, data: Sequence[Any], place: Sequence[Any], shapes: Sequence[Shape], intern: Interner) -> None:
        (
            self.id,
            self.effect,
            actions,
            types,
            roles,
            subjects,
            self.id_pattern,
            self.scope,
            number,
            constants,
            quorum,
            reason,
            remedy,
            contact,
            obligations,
            not_before,
            expires,
            assurance,
        ) = data
        texts = intern.texts
        self.actions: tuple[str, ...] = texts(actions)
        self.resource_types: tuple[str, ...] = texts(types)
        self.roles: tuple[str, ...] = texts(roles) if roles else ()
        self.subjects: tuple[str, ...] = texts(subjects) if subjects else ()
        self.obligations: tuple[str, ...] = texts(obligations) if obligations else ()
        self.quorum: str | None = quorum
        self.reason: str | None = reason and sys.intern(reason)
        self.remedy: str | None = remedy and sys.intern(remedy)
        self.contact: str | None = contact and sys.intern(contact)
        self.not_before: Instant | None = None if not_before is None else parse_instant(not_before)
        self.expires: Instant | None = None if expires is None else parse_instant(expires)
        self.ids: tuple[str, ...] = (self.id,)
        self.reasons: tuple[str, ...] = texts([reason]) if reason else _DEFAULT_REASONS[self.effect]
        self.shape: Shape | None = shapes[number] if number >= 0 else None
        self.constants: tuple[Any, ...] = () if self.shape is None else self.shape.constants(constants)
        self.type_patterns: frozenset[str | None] = intern.patterns(self.resource_types)
        self.assurance: tuple[tuple[str, int], ...] = tuple([tuple(each) for each in assurance]) if assurance else ()
        self.narrow = bool(self.subjects or self.not_before is not None or self.expires is not None or self.assurance)
        file, line, column, self.text, self.owner = place
        self.span = Span(sys.intern(file), line, column)

    def __getattr__(self, name: str) -> Any:
        """Fill in how the rule is tested, when it is first asked for: few rules are looked at in a short life."""
        if name == "run":
            self.run = None if self.shape is None else self.shape.run
            return self.run
        if name not in ("hot", "spelled", "stretch", "test"):
            raise AttributeError(name)
        stretch = literal_stretch(self.id_pattern, self.type_patterns)
        tests = [matcher(self.id_pattern, pattern) for pattern in self.type_patterns]
        self.test = None if stretch else next((test for test in tests if test is not None), None)
        self.stretch, self.spelled = stretch or (None, [])
        # What deciding reads of a rule, side by side: at ten thousand rules memory, not work, is what costs.
        self.hot = (
            self.stretch,
            self.spelled,
            self.test,
            self.scope,
            self.narrow,
            self.run,
            self.constants,
            self.effect,
            self,
        )
        return getattr(self, name)

    @property
    def unprepared(self) -> tuple[Any, ...]:
        """What `hot` is, for one decision: nothing is taken apart or compiled before it is reached."""
        run = None if self.shape is None else self._run_now
        return None, _NO_SEGMENTS, self.fits, self.scope, self.narrow, run, self.constants, self.effect, self

    def _run_now(self, *given: Any) -> bool:
        return self.run is None or self.run(*given)

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

    def outcome(self, admitted: Admitted) -> bool | EvalError:
        """Return the three-valued outcome of the condition on what this rule may read."""
        read = known_well(admitted, self.assurance)
        return self.evaluate_exactly(
            read.subject, read.resource, read.context, admitted.facts.request.action, admitted.now
        )

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


_DEFAULT_REASONS = (("rule.allow",), ("rule.deny",), ("rule.require",))


class Interner:
    """Makes one object of equal texts and equal tuples while a snapshot is built."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._patterns: dict[tuple[str, ...], frozenset[str | None]] = {}

    def texts(self, texts: Sequence[str]) -> tuple[str, ...]:
        key = tuple(texts)
        found = self._tuples.get(key)
        if found is None:
            found = self._tuples[key] = tuple(map(sys.intern, key))
        return found

    def patterns(self, types: tuple[str, ...]) -> frozenset[str | None]:
        """Return the patterns of these resource types' ids."""
        found = self._patterns.get(types)
        if found is None:
            resources = self._schema.resources
            found = self._patterns[types] = frozenset(resources[name].id_pattern for name in types)
        return found


class Snapshot:
    """An immutable, compiled policy set. Build with `of` or `from_compiled`."""

    __slots__ = (
        "_all_redactions",
        "_all_sensitive",
        "by_id",
        "epoch",
        "gates",
        "grants",
        "people",
        "persons",
        "policy_digest",
        "quorums",
        "roots",
        "rules",
        "schema",
        "trace_roles",
    )

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
        # Of a type that no gate knows a value is withheld whole: two types may give one path two shapes.
        self._all_redactions: dict[str, Redact] = {
            path: withheld for gate in self.gates.values() for path in gate.redactions
        }
        shapes = [Shape(from_canonical(form)) for form in policy["shapes"]]
        intern = Interner(self.schema)
        self.rules: tuple[CompiledRule, ...] = tuple(
            CompiledRule(data, place, shapes, intern)
            for data, place in zip(policy["rules"], compiled["places"], strict=True)
        )
        self.by_id: dict[str, CompiledRule] = {rule.id: rule for rule in self.rules}
        self.roots: dict[tuple[str, str], Roots] = roots_of(self.rules, self.schema)

    @classmethod
    def of(cls, policy_set: PolicySet, grants: Grants) -> Snapshot:
        """Return the snapshot of a policy set: the same object as its compiled form gives."""
        compiled = compile_policy(policy_set, grants)
        return cls(compiled, policy_digest(compiled))

    @classmethod
    def from_compiled(cls, compiled: Mapping[str, Any], digest: str) -> Snapshot:
        """Return the snapshot a compiled form spells; its signature and digest are already verified.

        Raises:
            ConfigurationError: another format, or not the form that compiling gives.
        """
        if compiled.get("format") != FORMAT:
            raise ConfigurationError(
                f"compiled snapshot: found format `{compiled.get('format')}`, expected `{FORMAT}`", help=_AGAIN
            )
        try:
            check_policy(compiled["policy"])
            return cls(compiled, digest)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, ProfileError) as problem:
            words = f"`{problem.args[0]}` is missing" if isinstance(problem, KeyError) else str(problem)
            raise ConfigurationError(f"compiled snapshot: {one_line(words, 200).lower()}", help=_AGAIN) from problem

    @property
    def approved_alone(self) -> frozenset[str]:
        """The actions that are approved by their request alone: every quorum that may be asked for is `of: request`."""
        over: dict[str, bool] = {}
        for rule in self.rules:
            if rule.quorum is not None:
                alone = self.quorums[rule.quorum].of == REQUEST
                # INVARIANT I195: an action is approved without a look at work only if all its quorums say so.
                over |= {action: alone and over.get(action, True) for action in rule.actions}
        return frozenset(action for action, alone in over.items() if alone)

    @property
    def approved_once(self) -> frozenset[str]:
        """The actions of which an allow may use approvals up: a quorum that may be asked for counts them once."""
        return frozenset(
            action
            for rule in self.rules
            if rule.quorum is not None and self.quorums[rule.quorum].once
            for action in rule.actions
        )

    def spends(self, decision: Decision) -> bool:
        """Return whether this allow uses up its approvals: a quorum that was met counts them once."""
        quorums = (self.by_id[rule_id].quorum for rule_id in decision.requiring)
        return decision.allowed and any(self.quorums[each].once for each in quorums if each is not None)

    def warm(self) -> None:
        """Build now what is else built when a decision first needs it: for hosts that live long."""
        for roots in self.roots.values():
            roots.warm()

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

    def explain(self, decision: Decision, *, full: bool = False, viewer: str | None = None) -> str:
        """Return the decision in words, for this viewer: a subject that the caller has authenticated."""
        return explain(self, decision, full=full, viewer=viewer)

    def mattering(self, decision: Decision) -> frozenset[str] | None:
        """Return the paths whose facts made this decision, None for all of them: a default deny read them all."""
        ids = decision.determining + decision.errored + decision.requiring
        if not ids:
            return None
        if len(ids) == 1:
            shape = self.by_id[ids[0]].shape
            return frozenset() if shape is None else shape.reads
        shapes = [shape for rule_id in ids if (shape := self.by_id[rule_id].shape) is not None]
        return frozenset().union(*(shape.reads for shape in shapes))

    def lasts_until(self, decision: Decision, now: Instant, until: Instant) -> Instant:
        """Return when a decision made `now` ends at the latest: at `until`, or when its approvals count no more."""
        if not decision.requiring or not decision.allowed:
            return until
        facts = decision.facts
        gate = self.gates[facts.request.subject.type, facts.request.resource.type]
        domain = None if gate.domain_at is None else facts.request.resource.id.split("/")[gate.domain_at]
        for rule_id in decision.requiring:
            quorum = self.quorums[self.by_id[rule_id].quorum or ""]
            until = met_until(quorum, rule_id, facts, domain, now, until, self.persons, self.grants.roles_at)
        return until

    def sensitive(self, request: Request) -> frozenset[str]:
        """Return the paths whose values never leave, for a request of these types."""
        gate = self.gates.get((request.subject.type, request.resource.type))
        return self._all_sensitive if gate is None else gate.sensitive

    def redactions(self, request: Request) -> Mapping[str, Redact]:
        """Return what takes the parts for `trace` out of a fact's value, by path, for a request of these types."""
        gate = self.gates.get((request.subject.type, request.resource.type))
        return self._all_redactions if gate is None else gate.redactions
