"""The rules of a snapshot by action, resource type and role.

The lookup tree of a set of roles is built when it is requested for the second time.

A process that decides only once visits every rule of a role instead, in a fifth of the time that building the tree
takes. The tree only leaves out rules whose outcome is FALSE, so both ways give the same decision, and no decision
depends on earlier ones. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.index.keys import instantiate
from policyguard.decide.index.tree import (
    CONTEXT,
    PREFIX,
    RESOURCE,
    SUBJECT,
    Candidate,
    Key,
    Node,
    Requirement,
    Slot,
    build,
)
from policyguard.model.policy import Schema
from policyguard.patterns.id_pattern import DOMAIN, domain_index, is_aligned, literal_domain, literal_prefix

NAMES = {SUBJECT: "subject", RESOURCE: "resource", CONTEXT: "context"}
ANYONE = ""
"""The role of rules that name no role."""


MAX_TREES = 4096
"""The maximum number of trees in one cache. Few sets of roles occur in practice; this bounds the memory."""


class TreeCache(dict[tuple[str, ...], Node | None]):
    """Lookup trees, keyed by the set of roles that a subject holds.

    Each tree covers the rules granted by those roles plus the roles in `always`. The first request with a set of roles
    visits the rules one by one; the second builds the tree, or the first if `build_immediately`. Keys are sets of roles
    that bindings grant, so unknown subjects leave no trace. Two threads that ask at once build equal trees, and either
    may stay.
    """

    __slots__ = ("always", "build_immediately", "known", "rules_by_role", "seen_once")

    def __init__(
        self,
        rules_by_role: Mapping[str, Sequence[CompiledRule]],
        always: tuple[str, ...],
        known: frozenset[Slot],
        build_immediately: bool,
    ) -> None:
        self.rules_by_role = rules_by_role
        self.always = always
        self.known = known
        self.build_immediately = build_immediately
        self.seen_once: set[tuple[str, ...]] = set()

    def __missing__(self, held: tuple[str, ...]) -> Node | None:
        if not self.rules_by_role:
            return None
        roles = (*self.always, *held)
        rules = tuple({id(rule): rule for role in roles for rule in self.rules_by_role.get(role, ())}.values())
        # INVARIANT I3: neither the trees nor the sets of roles seen once grow beyond their bound.
        if len(self) >= MAX_TREES or len(self.seen_once) >= MAX_TREES:
            self.clear()
            self.seen_once.clear()
        if not rules:
            self[held] = None
            return None
        if not self.build_immediately and held not in self.seen_once:
            self.seen_once.add(held)
            return Node(tuple([rule.lazy_match_row for rule in rules]))
        node = self[held] = build([Candidate(rule.match_row, requirements(rule)) for rule in rules], self.known)
        return node


class DomainTrees(dict[str | None, TreeCache]):
    """Tree caches keyed by domain, for rules that apply in one domain only, as most do.

    A domain that no rule names leaves no trace, however often requests name it.
    """

    __slots__ = ("build_immediately", "rules_by_role")

    def __init__(self, rules_by_role: Mapping[str, Mapping[str, Sequence[CompiledRule]]]) -> None:
        self.rules_by_role = rules_by_role
        self.build_immediately = False

    def __missing__(self, domain: str | None) -> TreeCache | None:
        rules_by_role = self.rules_by_role.get(domain) if domain is not None else None
        if rules_by_role is None:
            return None
        trees = self[domain] = TreeCache(rules_by_role, (ANYONE,), KNOWN_IN_DOMAIN, self.build_immediately)
        return trees


KNOWN_IN_DOMAIN: frozenset[Slot] = frozenset({((RESOURCE, "domain", None), "in")})
"""Slots that cannot tell rules apart below a domain: tests for that domain."""


class RuleIndex:
    """The rules for one action on one type: `anywhere` by roles, `in_domain` by domain and roles."""

    __slots__ = ("anywhere", "in_domain")

    def __init__(
        self,
        anywhere: Mapping[str, Sequence[CompiledRule]],
        in_domain: Mapping[str, Mapping[str, Sequence[CompiledRule]]],
    ) -> None:
        self.anywhere = TreeCache(anywhere, (), frozenset(), False)
        self.in_domain = DomainTrees(in_domain)

    def build_indexes(self) -> None:
        """Build the tree for everyone now, and the other trees at their first request."""
        self.anywhere.build_immediately = self.in_domain.build_immediately = True
        for trees in self.in_domain.values():
            trees.build_immediately = True
        self.anywhere[EVERYONE]


EVERYONE = (ANYONE,)


def build_rule_index(rules: Iterable[CompiledRule], schema: Schema) -> dict[tuple[str, str], RuleIndex]:
    """Index the rules of every action on every type, including actions without rules."""
    keys = [(action, resource.name) for resource in schema.resources.values() for action in resource.actions]
    anywhere: dict[tuple[str, str], dict[str, list[CompiledRule]]] = {key: {} for key in keys}
    in_domain: dict[tuple[str, str], dict[str, dict[str, list[CompiledRule]]]] = {key: {} for key in keys}
    domains: dict[tuple[str | None, frozenset[str | None]], str | None] = {}
    aligned: dict[tuple[str | None, str], bool] = {}
    for rule in rules:
        domain = rule.scope
        if domain is None and rule.id_pattern is not None:
            pair = (rule.id_pattern, rule.type_patterns)
            if pair not in domains:
                domains[pair] = _one_domain(*pair)
            domain = domains[pair]
        for type_name in rule.resource_types:
            # INVARIANT I3: a rule about the resource's domain is not about types whose ids do not say it there.
            target = (rule.id_pattern, type_name)
            if target not in aligned:
                aligned[target] = is_aligned(rule.id_pattern, schema.resources[type_name].id_pattern)
            if not aligned[target]:
                continue
            for action in rule.actions:
                key = (action, type_name)
                if key in anywhere:
                    pile = anywhere[key] if domain is None else in_domain[key].setdefault(domain, {})
                    for role in rule.roles or (ANYONE,):
                        pile.setdefault(role, []).append(rule)
    return {key: RuleIndex(anywhere[key], in_domain[key]) for key in keys}


def _one_domain(pattern: str, type_patterns: frozenset[str | None]) -> str | None:
    """Return the only domain whose ids match the pattern; None if there may be several."""
    domains = {literal_domain(pattern, domain_index(type_pattern)) for type_pattern in type_patterns}
    return domains.pop() if len(domains) == 1 else None


def requirements(rule: CompiledRule) -> tuple[Requirement, ...]:
    """List what a request must satisfy for this rule to apply: condition, subjects and id pattern."""
    collected: list[Requirement] = (
        [] if rule.shape is None else list(instantiate(rule.shape.requirements, rule.constants))
    )
    if rule.assurance:
        # A fact that is present may be absent for this rule, so no look-up by it is exact.
        restricted = {path for path, _ in rule.assurance}
        collected = [
            requirement
            for requirement in collected
            if f"{NAMES[requirement.slot[0][0]]}.{requirement.slot[0][1]}" not in restricted
        ]
    if rule.subjects:
        collected.append(_requirement((SUBJECT, "id", None), *rule.subjects))
    if rule.id_pattern is not None:
        collected += _pattern_requirements(rule.id_pattern)
    return tuple(collected)


def _requirement(key: Key, *values: str) -> Requirement:
    """Require an attribute outside the condition to have one of these values; absence is FALSE, not an error."""
    return Requirement((key, "in"), values, True, True)


def _pattern_requirements(pattern: str) -> list[Requirement]:
    if "*" not in pattern and DOMAIN not in pattern:
        return [_requirement((RESOURCE, "id", None), pattern)]
    collected: list[Requirement] = []
    prefix = literal_prefix(pattern)
    if prefix:
        collected.append(_requirement((PREFIX, str(len(prefix)), None), "/".join(prefix)))
    return collected
