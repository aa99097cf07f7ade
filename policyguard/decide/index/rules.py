"""The rules of a snapshot by action, resource type and role; a role's tree is built when the role asks again.

A hook decides once and exits: visiting each rule of a role costs it a fifth of building the tree. The tree leaves out
only rules whose outcome is FALSE, so both ways decide the same, and no decision depends on those before it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policyguard.decide.compiled_rule import CompiledRule
from policyguard.decide.index.keys import bind
from policyguard.decide.index.tree import CONTEXT, PREFIX, RESOURCE, SUBJECT, Candidate, Demand, Key, Node, Slot, build
from policyguard.model.policy import Schema
from policyguard.patterns.id_pattern import DOMAIN, domain_index, is_aligned, literal_domain, literal_prefix

NAMES = {SUBJECT: "subject", RESOURCE: "resource", CONTEXT: "context"}
ANYONE = ""
"""The role under which rules stand that name none."""


MOST_TREES = 4096
"""How many trees one map keeps; held roles are few sets in practice, and this bounds the memory in theory."""


class Trees(dict[tuple[str, ...], Node | None]):
    """`trees[held]` is the tree over the rules that any of the held roles brings, and those that `always` count.

    Who asks first gets the rules themselves; who asks again gets their index, unless `eager` says at once: a hook
    decides once and exits. Keys are sets of roles that bindings grant, so strangers leave no trace. Two threads that
    ask at once build equal trees, and either may stay.
    """

    __slots__ = ("always", "asked", "eager", "known", "piles")

    def __init__(
        self, piles: Mapping[str, Sequence[CompiledRule]], always: tuple[str, ...], known: frozenset[Slot], eager: bool
    ) -> None:
        self.piles = piles
        self.always = always
        self.known = known
        self.eager = eager
        self.asked: set[tuple[str, ...]] = set()

    def __missing__(self, held: tuple[str, ...]) -> Node | None:
        if not self.piles:
            return None
        roles = (*self.always, *held)
        rules = tuple({id(rule): rule for role in roles for rule in self.piles.get(role, ())}.values())
        # INVARIANT I3: neither what is kept nor what was asked for once grows beyond its bound.
        if len(self) >= MOST_TREES or len(self.asked) >= MOST_TREES:
            self.clear()
            self.asked.clear()
        if not rules:
            self[held] = None
            return None
        if not self.eager and held not in self.asked:
            self.asked.add(held)
            return Node(tuple([rule.unprepared for rule in rules]))
        node = self[held] = build([Candidate(rule.hot, demands(rule)) for rule in rules], self.known)
        return node


class InDomain(dict[str | None, Trees]):
    """Rules of one domain only, most rules of a lab: `in_domain[domain][held]` is their tree.

    A domain that no rule names leaves no trace, however often requests name it.
    """

    __slots__ = ("eager", "piles")

    def __init__(self, piles: Mapping[str, Mapping[str, Sequence[CompiledRule]]]) -> None:
        self.piles = piles
        self.eager = False

    def __missing__(self, domain: str | None) -> Trees | None:
        piles = self.piles.get(domain) if domain is not None else None
        if piles is None:
            return None
        trees = self[domain] = Trees(piles, (ANYONE,), DOMAIN_KNOWN, self.eager)
        return trees


DOMAIN_KNOWN: frozenset[Slot] = frozenset({((RESOURCE, "domain", None), "in")})
"""Below a domain, equality with it tells no rule from another."""


class Roots:
    """The rules of one action on one type: `anywhere[held]` and `anywhere[EVERYONE]`, then those of the domain."""

    __slots__ = ("anywhere", "in_domain")

    def __init__(
        self,
        anywhere: Mapping[str, Sequence[CompiledRule]],
        in_domain: Mapping[str, Mapping[str, Sequence[CompiledRule]]],
    ) -> None:
        self.anywhere = Trees(anywhere, (), frozenset(), False)
        self.in_domain = InDomain(in_domain)

    def warm(self) -> None:
        """Build what everyone needs now and the rest when it is first asked for, for a host that decides for long."""
        self.anywhere.eager = self.in_domain.eager = True
        for trees in self.in_domain.values():
            trees.eager = True
        self.anywhere[EVERYONE]


EVERYONE = (ANYONE,)


def roots_of(rules: Iterable[CompiledRule], schema: Schema) -> dict[tuple[str, str], Roots]:
    """Return, for every action on every type, the rules by role; an action nobody writes rules for is there too."""
    keys = [(action, resource.name) for resource in schema.resources.values() for action in resource.actions]
    anywhere: dict[tuple[str, str], dict[str, list[CompiledRule]]] = {key: {} for key in keys}
    in_domain: dict[tuple[str, str], dict[str, dict[str, list[CompiledRule]]]] = {key: {} for key in keys}
    domains: dict[tuple[str | None, frozenset[str | None]], str | None] = {}
    for rule in rules:
        domain = rule.scope
        if domain is None and rule.id_pattern is not None:
            pair = (rule.id_pattern, rule.type_patterns)
            if pair not in domains:
                domains[pair] = _one_domain(*pair)
            domain = domains[pair]
        for type_name in rule.resource_types:
            # INVARIANT I3: a rule about the resource's domain is not about types whose ids do not say it there.
            if not is_aligned(rule.id_pattern, schema.resources[type_name].id_pattern):
                continue
            for action in rule.actions:
                key = (action, type_name)
                if key in anywhere:
                    pile = anywhere[key] if domain is None else in_domain[key].setdefault(domain, {})
                    for role in rule.roles or (ANYONE,):
                        pile.setdefault(role, []).append(rule)
    return {key: Roots(anywhere[key], in_domain[key]) for key in keys}


def _one_domain(pattern: str, type_patterns: frozenset[str | None]) -> str | None:
    """Return the only domain whose ids fit the pattern, None if there may be several, or none at all."""
    found = {literal_domain(pattern, domain_index(type_pattern)) for type_pattern in type_patterns}
    return found.pop() if len(found) == 1 else None


def demands(rule: CompiledRule) -> tuple[Demand, ...]:
    """Return what a request must meet for this rule to matter: of its condition, its scope, its subjects, its ids."""
    found: list[Demand] = [] if rule.shape is None else list(bind(rule.shape.demands, rule.constants))
    if rule.assurance:
        # A fact that is there may be absent for this rule: no look-up by it is exact.
        doubted = {path for path, _ in rule.assurance}
        found = [demand for demand in found if f"{NAMES[demand.slot[0][0]]}.{demand.slot[0][1]}" not in doubted]
    if rule.subjects:
        found.append(_demand((SUBJECT, "id", None), *rule.subjects))
    if rule.id_pattern is not None:
        found += _pattern_demands(rule.id_pattern)
    return tuple(found)


def _demand(key: Key, *values: str) -> Demand:
    """Return an equality that is not of the condition, so that absence is FALSE and never an ERROR."""
    return Demand((key, "in"), values, True, True)


def _pattern_demands(pattern: str) -> list[Demand]:
    if "*" not in pattern and DOMAIN not in pattern:
        return [_demand((RESOURCE, "id", None), pattern)]
    found: list[Demand] = []
    prefix = literal_prefix(pattern)
    if prefix:
        found.append(_demand((PREFIX, str(len(prefix)), None), "/".join(prefix)))
    return found
