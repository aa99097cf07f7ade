"""A tree of attribute lookups that finds the rules that can apply to a request.

A rule is indexed by action, resource type and role, then by its requirements on single attributes: equality with one of
some values, or a bound (`resource.gpus > 64`). A literal in its id pattern and a named subject are requirements, too. A
rule without requirements is in `always` and is visited each time. So a rule that is not visited has the outcome FALSE,
exactly. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec

SUBJECT, RESOURCE, CONTEXT, PREFIX = range(4)

Key: TypeAlias = tuple[int, str, str | None]
"""(entity, attribute, its field or key if it is a record or a map); (PREFIX, "3", None): the id's first 3 segments."""

FEW = 3
"""Below this number of rules, a lookup costs more than it saves."""

ABSENT = object()
"""The key for an attribute that is absent."""

WITHOUT = object()
"""The key for a field or map key that is absent from an attribute that is present."""


class Requirement(msgspec.Struct, frozen=True, gc=False):
    """A rule is FALSE if this attribute is present with another value.

    `attribute_guarded`: also when the attribute is absent; `guarded`: also when the attribute is there and its field is
    not. Unguarded absence is an ERROR, so such rules are visited then.
    """

    slot: Slot
    values: tuple[Any, ...]
    attribute_guarded: bool
    guarded: bool


Slot: TypeAlias = tuple[Key, str]


class Candidate(msgspec.Struct, frozen=True):
    """A rule's `match_row` and its requirements."""

    rule: Any
    requirements: tuple[Requirement, ...]


class Node(NamedTuple):
    """The rules to visit at this point of the tree, and the lookups below it.

    `equals` holds (entity, attribute, get) for attributes; what is absent has its own entry under `ABSENT`. `others`
    are fields, map keys, id prefixes and bounds.
    """

    always: tuple[Any, ...]
    equals: Equals = ()
    others: tuple[Other, ...] = ()


Equals: TypeAlias = tuple[tuple[int, str, "Callable[[Any], Node | None]"], ...]

Other: TypeAlias = tuple[
    int,
    str,
    str | None,
    "Callable[[Any], Node | None]",
    tuple[int, ...],
    tuple[Any, ...],
    "Callable[[Sequence[int], int], int]",
    bool,
]
"""A lookup that is not a plain attribute: entity, name, field, get; then bounds, the rules ordered by them, the
bisection, and True if it selects the rules after that position. Without bounds the last four are empty."""


_CUTS: dict[str, tuple[Callable[[Sequence[int], int], int], bool]] = {
    ">=": (bisect_right, False),
    "<=": (bisect_left, True),
}
"""The bisection in the sorted bounds for an operator, and True if it selects the rules after that position."""


def build(rules: Sequence[Candidate], used: frozenset[Slot] = frozenset()) -> Node:
    """Build the tree over these rules; `used` are the slots already looked up on the way."""
    if len(rules) < FEW:
        return Node(tuple([candidate.rule for candidate in rules]))
    chosen = _choose(rules, used)
    grouped: dict[Slot, list[tuple[Candidate, Requirement]]] = {}
    for rule, requirement in chosen:
        if requirement is not None:
            grouped.setdefault(requirement.slot, []).append((rule, requirement))
    equals: list[tuple[int, str, Callable[[Any], Node | None]]] = []
    others: list[Other] = []
    for slot, members in sorted(grouped.items(), key=_order):
        (entity, name, field), operator = slot
        get = _nodes(slot, members, used).get
        if operator != "in":
            ordered = sorted(members, key=lambda member: member[1].values[0])
            bounds = tuple(requirement.values[0] for _, requirement in ordered)
            others.append(
                (
                    entity,
                    name,
                    field,
                    get,
                    bounds,
                    tuple([candidate.rule for candidate, _ in ordered]),
                    *_CUTS[operator],
                )
            )
        elif field is not None or entity == PREFIX:
            others.append((entity, name, field, get, (), (), bisect_left, False))
        else:
            equals.append((entity, name, get))
    always = tuple([candidate.rule for candidate, requirement in chosen if requirement is None])
    return Node(always, tuple(equals), tuple(others))


def _order(item: tuple[Slot, object]) -> tuple[int, str, str, str]:
    ((entity, name, field), operator), _ = item
    return entity, name, field or "", operator


def _choose(rules: Sequence[Candidate], used: frozenset[Slot]) -> list[tuple[Candidate, Requirement | None]]:
    """Choose for each rule the requirement that separates it best; None if a lookup does not pay."""
    values: dict[Slot, set[Any]] = {}
    for rule in rules:
        for requirement in rule.requirements:
            slot = requirement.slot
            if slot not in used:
                values.setdefault(slot, set()).update(requirement.values)
    # A bound lets a part of the rules through, an equality one value's: any equality that tells apart comes first.
    worth = {
        slot: (slot[1] == "in" and len(distinct) > 1, len(distinct), _order((slot, None)))
        for slot, distinct in values.items()
    }
    chosen: list[tuple[Candidate, Requirement | None]] = []
    members: dict[Slot, int] = {}
    for rule in rules:
        ranked = [
            (rank, requirement)
            for requirement in rule.requirements
            if (rank := worth.get(requirement.slot)) is not None
        ]
        best = max(ranked, key=_rank)[1] if ranked else None
        chosen.append((rule, best))
        if best is not None:
            members[best.slot] = members.get(best.slot, 0) + 1
    return [(rule, best if best is not None and members[best.slot] >= FEW else None) for rule, best in chosen]


_rank = itemgetter(0)


def _nodes(slot: Slot, rules: list[tuple[Candidate, Requirement]], used: frozenset[Slot]) -> dict[Any, Node]:
    """Build the node for each value, and for `ABSENT` and `WITHOUT`, where an absence can make a rule apply."""
    (_, _, field), operator = slot
    nodes = {
        ABSENT: Node(tuple([candidate.rule for candidate, requirement in rules if not requirement.attribute_guarded])),
        WITHOUT: Node(
            tuple([candidate.rule for candidate, requirement in rules if field is not None and not requirement.guarded])
        ),
    }
    if operator == "in":
        by_value: dict[Any, list[Candidate]] = {}
        for rule, requirement in rules:
            for value in dict.fromkeys(requirement.values):
                by_value.setdefault(value, []).append(rule)
        nodes |= {value: build(members, used | {slot}) for value, members in by_value.items()}
    return {value: node for value, node in nodes.items() if node.always or node.equals or node.others}


def gather(node: Node, entities: tuple[dict[str, Any], ...], rules: list[Any]) -> None:
    """Append to `rules` every rule below the node that these attributes do not exclude.

    Args:
        node: the root of a tree.
        entities: the attributes of subject, resource and context.
        rules: takes the rules.
    """
    always, equals, others = node
    rules += always
    gather_below(equals, others, entities, rules)


def gather_below(
    equals: Equals, others: tuple[Other, ...], entities: tuple[dict[str, Any], ...], rules: list[Any]
) -> None:
    """Follow the lookups of one node; the caller has already added its `always`.

    Args:
        equals: look-ups by equality.
        others: look-ups by other operators.
        entities: the attributes of subject, resource and context.
        rules: takes the rules.
    """
    for entity, name, get in equals:
        below = get(entities[entity].get(name, ABSENT))
        if below is not None:
            always, below_equals, below_others = below
            rules += always
            if below_equals or below_others:
                gather_below(below_equals, below_others, entities, rules)
    if others:
        _gather_others(others, entities, rules)


def _gather_others(others: tuple[Other, ...], entities: tuple[dict[str, Any], ...], rules: list[Any]) -> None:
    for entity, name, field, get, bounds, ordered, bisect, from_cut in others:
        if entity == PREFIX:
            segments = int(name)
            value: Any = "/".join(entities[RESOURCE]["id"].split("/", segments)[:segments])
        else:
            value = entities[entity].get(name, ABSENT)
            if field is not None and value is not ABSENT:
                value = value.get(field, WITHOUT)
        if bounds and value is not ABSENT and value is not WITHOUT:
            at = bisect(bounds, value)
            rules += ordered[at:] if from_cut else ordered[:at]
        else:
            below = get(value)
            if below is not None:
                gather(below, entities, rules)
