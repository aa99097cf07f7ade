"""Which rules a request can concern, found by look-ups.

A rule hangs under its action, resource type and role, then under what it demands of single attributes: equality with
one of some values, or a bound (`resource.gpus > 64`). Its scope, a literal in its id pattern and a named subject are
demands too. What demands nothing is in `always` and visited each time, so no rule hides from the index: a rule that is
not visited has the outcome FALSE, exactly. Pure.
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
"""Below this many rules a look-up costs more than it saves."""

ABSENT = object()
"""Stands for an attribute that is not there."""

WITHOUT = object()
"""Stands for a field or key that is not in an attribute that is there."""


class Demand(msgspec.Struct, frozen=True, gc=False):
    """FALSE when the key is present with another value.

    `attribute_guarded`: also when the attribute is absent; `guarded`: also when the attribute is there and its field is
    not. Unguarded absence is an ERROR, so such rules are visited then.
    """

    slot: Slot
    values: tuple[Any, ...]
    attribute_guarded: bool
    guarded: bool


Slot: TypeAlias = tuple[Key, str]


class Candidate(msgspec.Struct, frozen=True):
    """A rule, and what it demands."""

    rule: Any
    demands: tuple[Demand, ...]


class Node(NamedTuple):
    """What a look-up leads to: rules always visited, and where to look further.

    `equals` holds (entity, attribute, get) for attributes; what is absent has its own entry under `ABSENT`. `others`
    are fields, map keys, id prefixes and bounds.
    """

    always: tuple[Any, ...]
    equals: tuple[tuple[int, str, Callable[[Any], Node | None]], ...] = ()
    others: tuple[Other, ...] = ()


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
"""A look-up that is no plain attribute: entity, name, field, get; then bounds, the rules ordered by them, where to cut
and whether those from the cut on are met. Without bounds the last four are empty."""


_CUTS: dict[str, tuple[Callable[[Sequence[int], int], int], bool]] = {
    ">=": (bisect_right, False),
    "<=": (bisect_left, True),
}
"""Where to cut the sorted bounds, and whether the rules met are those from the cut on."""


def build(rules: Sequence[Candidate], used: frozenset[Slot] = frozenset()) -> Node:
    """Return the tree over these rules. `used` are slots already looked up on the way here."""
    if len(rules) < FEW:
        return Node(tuple([each.rule for each in rules]))
    chosen = _choose(rules, used)
    grouped: dict[Slot, list[tuple[Candidate, Demand]]] = {}
    for rule, demand in chosen:
        if demand is not None:
            grouped.setdefault(demand.slot, []).append((rule, demand))
    equals: list[tuple[int, str, Callable[[Any], Node | None]]] = []
    others: list[Other] = []
    for slot, members in sorted(grouped.items(), key=_order):
        (entity, name, field), operator = slot
        get = _nodes(slot, members, used).get
        if operator != "in":
            ordered = sorted(members, key=lambda each: each[1].values[0])
            bounds = tuple(demand.values[0] for _, demand in ordered)
            others.append(
                (entity, name, field, get, bounds, tuple([each.rule for each, _ in ordered]), *_CUTS[operator])
            )
        elif field is not None or entity == PREFIX:
            others.append((entity, name, field, get, (), (), bisect_left, False))
        else:
            equals.append((entity, name, get))
    always = tuple([each.rule for each, demand in chosen if demand is None])
    return Node(always, tuple(equals), tuple(others))


def _order(item: tuple[Slot, object]) -> tuple[int, str, str, str]:
    ((entity, name, field), operator), _ = item
    return entity, name, field or "", operator


def _choose(rules: Sequence[Candidate], used: frozenset[Slot]) -> list[tuple[Candidate, Demand | None]]:
    """Return each rule with the demand that tells it from most others, None where none is worth a look-up."""
    values: dict[Slot, set[Any]] = {}
    for rule in rules:
        for demand in rule.demands:
            slot = demand.slot
            if slot not in used:
                values.setdefault(slot, set()).update(demand.values)
    # A bound lets a part of the rules through, an equality one value's: any equality that tells apart comes first.
    worth = {
        slot: (slot[1] == "in" and len(found) > 1, len(found), _order((slot, None))) for slot, found in values.items()
    }
    chosen: list[tuple[Candidate, Demand | None]] = []
    members: dict[Slot, int] = {}
    for rule in rules:
        ranked = [(rank, demand) for demand in rule.demands if (rank := worth.get(demand.slot)) is not None]
        best = max(ranked, key=_rank)[1] if ranked else None
        chosen.append((rule, best))
        if best is not None:
            members[best.slot] = members.get(best.slot, 0) + 1
    return [(rule, best if best is not None and members[best.slot] >= FEW else None) for rule, best in chosen]


_rank = itemgetter(0)


def _nodes(slot: Slot, rules: list[tuple[Candidate, Demand]], used: frozenset[Slot]) -> dict[Any, Node]:
    """Return what lies below each value, and below `ABSENT` and `WITHOUT` the rules that such absence may concern."""
    (_, _, field), operator = slot
    nodes = {
        ABSENT: Node(tuple([each.rule for each, demand in rules if not demand.attribute_guarded])),
        WITHOUT: Node(tuple([each.rule for each, demand in rules if field is not None and not demand.guarded])),
    }
    if operator == "in":
        by_value: dict[Any, list[Candidate]] = {}
        for rule, demand in rules:
            for value in dict.fromkeys(demand.values):
                by_value.setdefault(value, []).append(rule)
        nodes |= {value: build(members, used | {slot}) for value, members in by_value.items()}
    return {value: node for value, node in nodes.items() if node.always or node.equals or node.others}


def gather(node: Node, entities: tuple[dict[str, Any], ...], found: list[Any]) -> None:
    """Append to `found` every rule below the node whose demands these attributes meet or leave open."""
    always, equals, others = node
    found += always
    for entity, name, get in equals:
        below = get(entities[entity].get(name, ABSENT))
        if below is not None:
            if below[1] or below[2]:
                gather(below, entities, found)
            else:
                found += below[0]
    if others:
        _gather_others(others, entities, found)


def _gather_others(others: tuple[Other, ...], entities: tuple[dict[str, Any], ...], found: list[Any]) -> None:
    for entity, name, field, get, bounds, ordered, cut, from_cut in others:
        if entity == PREFIX:
            segments = int(name)
            value: Any = "/".join(entities[RESOURCE]["id"].split("/", segments)[:segments])
        else:
            value = entities[entity].get(name, ABSENT)
            if field is not None and value is not ABSENT:
                value = value.get(field, WITHOUT)
        if bounds and value is not ABSENT and value is not WITHOUT:
            at = cut(bounds, value)
            found += ordered[at:] if from_cut else ordered[:at]
        else:
            below = get(value)
            if below is not None:
                gather(below, entities, found)
