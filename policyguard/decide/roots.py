"""The rules of a snapshot by action, resource type and role; a role's tree is built when the role asks again.

A hook decides once and exits: visiting each rule of a role costs it a fifth of building the tree. The tree leaves out
only rules whose outcome is FALSE, so both ways decide the same, and no decision depends on those before it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from policyguard.decide.demand import bind
from policyguard.decide.index import PREFIX, RESOURCE, SUBJECT, Candidate, Demand, Key, Node, build
from policyguard.decide.pattern import DOMAIN, domain_index, literal_domain, literal_prefix
from policyguard.model.policy import Schema

if TYPE_CHECKING:
    from policyguard.decide.snapshot import CompiledRule

ANYONE = ""
"""The role under which rules stand that name none."""


class Roots(dict[str, Node | None]):
    """The rules of one action on one type: `roots[role]` leads to them, None where no rule names the role.

    Two threads that ask at once build equal trees, and either may stay.
    """

    __slots__ = ("_asked", "_piles")

    def __init__(self, piles: Mapping[str, Sequence[CompiledRule]]) -> None:
        self._piles = piles
        self._asked: set[str] = set()

    def __missing__(self, role: str) -> Node | None:
        pile = self._piles.get(role)
        if pile is None:
            if self._piles:
                self[role] = None
            return None
        if role not in self._asked:
            self._asked.add(role)
            return Node(tuple(pile))
        return self._built(role, pile)

    def _built(self, role: str, pile: Sequence[CompiledRule]) -> Node:
        node = self[role] = build([Candidate(rule, demands(rule)) for rule in pile])
        return node

    def warm(self) -> None:
        """Build every tree now, for a host that decides for long and would rather wait once."""
        for role, pile in self._piles.items():
            if role not in self:
                self._built(role, pile)


def roots_of(rules: Iterable[CompiledRule], schema: Schema) -> dict[tuple[str, str], Roots]:
    """Return, for every action on every type, the rules by role; an action nobody writes rules for is there too."""
    piles: dict[tuple[str, str], dict[str, list[CompiledRule]]] = {
        (action, resource.name): {} for resource in schema.resources.values() for action in resource.actions
    }
    for rule in rules:
        roles = rule.roles or (ANYONE,)
        for type_name in rule.resource_types:
            for action in rule.actions:
                pile = piles.get((action, type_name))
                if pile is not None:
                    for role in roles:
                        if role in pile:
                            pile[role].append(rule)
                        else:
                            pile[role] = [rule]
    return {key: Roots(by_role) for key, by_role in piles.items()}


def demands(rule: CompiledRule) -> tuple[Demand, ...]:
    """Return what a request must meet for this rule to matter: of its condition, its scope, its subjects, its ids."""
    found: list[Demand] = [] if rule.shape is None else list(bind(rule.shape.demands, rule.constants))
    if rule.scope is not None:
        found.append(_demand((RESOURCE, "domain", None), rule.scope))
    if rule.subjects:
        found.append(_demand((SUBJECT, "id", None), *rule.subjects))
    if rule.id_pattern is not None:
        found += _pattern_demands(rule.id_pattern, rule.type_patterns, scoped=rule.scope is not None)
    return tuple(found)


def _demand(key: Key, *values: str) -> Demand:
    """Return an equality that is not of the condition, so that absence is FALSE and never an ERROR."""
    return Demand((key, "in"), values, True, True)


def _pattern_demands(pattern: str, type_patterns: Iterable[str | None], *, scoped: bool) -> list[Demand]:
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
