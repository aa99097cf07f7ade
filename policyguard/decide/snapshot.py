"""A loaded, immutable policy set, with everything computed that does not depend on a request.

Hosts replace a snapshot by reference; other threads may still decide with the old one. Deciding only fills in what the
snapshot already determines (the index of a role, the test of a rule's ids), so it does not grow with the number of
requests. Pure: callers read the bytes and verify signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyguard.conditions.canonical import from_canonical
from policyguard.conditions.former_names import present_condition, present_schema
from policyguard.conditions.problems import ProfileError
from policyguard.decide.admission import (
    Admitted,
    FactAdmission,
    admissions_by_type,
    under_supplied_names,
)
from policyguard.decide.compiled_check import check_compiled
from policyguard.decide.compiled_form import (
    FORMAT,
    CompiledForm,
    compile_policy,
    policy_digest,
    read_compiled,
)
from policyguard.decide.compiled_rule import CompiledRule, Interner, Shape
from policyguard.decide.conversion import Malformed
from policyguard.decide.index.rules import RuleIndex, build_rule_index
from policyguard.decide.quorum import satisfied_until
from policyguard.decide.redaction import Redact, withheld
from policyguard.decide.role_grants import RoleAssignments
from policyguard.errors import ConfigurationError
from policyguard.model.decision import Decision
from policyguard.model.facts import Facts
from policyguard.model.policy import REQUEST, Person, PolicySet, Quorum
from policyguard.model.request import Request
from policyguard.text import printable
from policyguard.values import Instant

_AGAIN = "compile the policies again"


class Snapshot:
    """An immutable, compiled policy set. Build with `of` or `from_compiled`."""

    __slots__ = (
        "_all_redactions",
        "_all_sensitive",
        "admissions_by_type",
        "by_id",
        "epoch",
        "grants",
        "is_signed",
        "name",
        "people",
        "persons",
        "policy_digest",
        "quorums",
        "rule_indexes",
        "rules",
        "schema",
        "signed_by",
        "trace_roles",
    )

    def __init__(self, compiled: CompiledForm, digest: str, *, check: bool = False) -> None:
        policy = compiled.policy
        forms = [from_canonical(form) for form in policy.shapes]
        if check:
            # INVARIANT I4: a snapshot decides nothing before everything in it is checked.
            check_compiled(compiled, forms)
        self.policy_digest = digest
        self.epoch = policy.epoch
        self.name = compiled.name
        """`metadata.name` of the `Schema`; None if it has none, or if version 0.1.0 compiled it."""
        self.is_signed = False
        self.signed_by: tuple[str, ...] = ()
        """The ids of the keys that signed it, where the operator demands signatures of several persons."""
        self.schema = present_schema(policy.schema)
        self.grants = RoleAssignments.from_data(policy.grants)
        self.people: tuple[Person, ...] = tuple(
            Person(id=id_, accounts=accounts, keys=keys, emails=emails)
            for id_, accounts, keys, emails in policy.persons
        )
        self.persons: dict[str, str] = {account: person.id for person in self.people for account in person.accounts}
        self.quorums: dict[str, Quorum] = {quorum.id: quorum for quorum in policy.quorums}
        self.trace_roles = policy.trace_roles
        self.admissions_by_type: dict[tuple[str, str], FactAdmission] = admissions_by_type(self.schema)
        self._all_sensitive = frozenset().union(
            *(admission.sensitive for admission in self.admissions_by_type.values())
        )
        # Without an admission for the type, a value is withheld whole: a path may have two types.
        self._all_redactions: dict[str, Redact] = {
            path: withheld for admission in self.admissions_by_type.values() for path in admission.redactions
        }
        is_present = self.schema is policy.schema
        shapes = [Shape(form if is_present else present_condition(form)) for form in forms]
        intern = Interner(self.schema, policy.schema)
        self.rules: tuple[CompiledRule, ...] = tuple(
            CompiledRule(row, source, shapes, intern)
            for row, source in zip(policy.rules, compiled.sources, strict=True)
        )
        self.by_id: dict[str, CompiledRule] = {rule.id: rule for rule in self.rules}
        self.rule_indexes: dict[tuple[str, str], RuleIndex] = build_rule_index(self.rules, self.schema)

    @classmethod
    def of(cls, policy_set: PolicySet, grants: RoleAssignments) -> Snapshot:
        """Compile a policy set; reading its compiled form gives an equal snapshot."""
        compiled = compile_policy(policy_set, grants)
        return cls(read_compiled(compiled), policy_digest(compiled))

    @classmethod
    def from_compiled(cls, compiled: Mapping[str, Any], digest: str) -> Snapshot:
        """Build a snapshot from its compiled form, whose signature and digest are already verified.

        Raises:
            ConfigurationError: another format, or not the form that compiling gives.
        """
        if compiled.get("format") != FORMAT:
            raise ConfigurationError(
                f"compiled snapshot: found format `{compiled.get('format')}`, expected `{FORMAT}`", help=_AGAIN
            )
        try:
            snapshot = cls(read_compiled(compiled), digest, check=True)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError, ProfileError) as problem:
            detail = f"`{problem.args[0]}` is missing" if isinstance(problem, KeyError) else str(problem)
            raise ConfigurationError(f"compiled snapshot: {printable(detail, 200).lower()}", help=_AGAIN) from problem
        snapshot.is_signed = True
        return snapshot

    @property
    def request_only_actions(self) -> frozenset[str]:
        """The actions whose quorums all have `of: request`."""
        over: dict[str, bool] = {}
        for rule in self.rules:
            if rule.quorum is not None:
                alone = self.quorums[rule.quorum].of == REQUEST
                # INVARIANT I9: an action is approved by its request alone only if all its quorums say so.
                over |= {action: alone and over.get(action, True) for action in rule.actions}
        return frozenset(action for action, alone in over.items() if alone)

    @property
    def single_use_actions(self) -> frozenset[str]:
        """The actions whose allow can consume approvals, because a quorum may be single-use."""
        return frozenset(
            action
            for rule in self.rules
            if rule.quorum is not None and self.quorums[rule.quorum].once
            for action in rule.actions
        )

    def consumes_approvals(self, decision: Decision) -> bool:
        """Return True if this allow consumes its approvals: a quorum that it met is single-use."""
        quorums = (self.by_id[rule_id].quorum for rule_id in decision.requiring)
        return decision.allowed and any(self.quorums[quorum].once for quorum in quorums if quorum is not None)

    def facts_read_at(self, action: str) -> frozenset[str]:
        """Return the paths that any rule for this action reads, whether or not it applies."""
        shapes = [rule.shape for rule in self.rules if action in rule.actions and rule.shape is not None]
        return frozenset().union(*(shape.reads for shape in shapes))

    def build_indexes(self) -> None:
        """Build every index now instead of at first use, for long-running hosts."""
        for index in self.rule_indexes.values():
            index.build_indexes()

    def admit(self, facts: Facts, now: Instant) -> Admitted | None:
        """Admit these facts for `Engine.evaluate`; None if no rule can apply to the request."""
        request = facts.request
        admission = self.admissions_by_type.get((request.subject.type, request.resource.type))
        if admission is None or not self.rules or (request.action, request.resource.type) not in self.rule_indexes:
            return None
        try:
            return admission.admit(facts, now)
        except Malformed:
            return None

    def facts_read_by(self, decision: Decision) -> frozenset[str] | None:
        """List the paths of the facts behind a decision; None means all: a default deny read them all."""
        ids = decision.determining + decision.errored + decision.requiring
        if not ids:
            return None
        shapes = [shape for rule_id in ids if (shape := self.by_id[rule_id].shape) is not None]
        if len(shapes) == 1:
            return under_supplied_names(shapes[0].reads, decision.facts)
        return under_supplied_names(frozenset().union(*(shape.reads for shape in shapes)), decision.facts)

    def lasts_until(self, decision: Decision, now: Instant, until: Instant) -> Instant:
        """Return when a decision made `now` ends: at `until`, or earlier if its approvals expire.

        Args:
            decision: the decision.
            now: when the decision was made.
            until: the latest possible end.
        """
        if not decision.requiring or not decision.allowed:
            return until
        facts = decision.facts
        admission = self.admissions_by_type[facts.request.subject.type, facts.request.resource.type]
        domain = None if admission.domain_at is None else facts.request.resource.id.split("/")[admission.domain_at]
        for rule_id in decision.requiring:
            quorum = self.quorums[self.by_id[rule_id].quorum or ""]
            until = satisfied_until(quorum, rule_id, facts, domain, now, until, self.persons, self.grants.roles_at)
        return until

    def sensitive(self, request: Request) -> frozenset[str]:
        """List the paths whose values must not be shown, for these types of subject and resource."""
        admission = self.admissions_by_type.get((request.subject.type, request.resource.type))
        return self._all_sensitive if admission is None else admission.sensitive

    def redactions(self, request: Request) -> Mapping[str, Redact]:
        """Map each path to the function that removes its `trace` fields."""
        admission = self.admissions_by_type.get((request.subject.type, request.resource.type))
        return self._all_redactions if admission is None else admission.redactions
