"""Which rules a request can concern, found by dictionary look-ups.

A rule hangs under its action, resource type and role, then under values it demands by equality (`necessary` conjuncts,
its scope, a literal in its id pattern, a named subject). Whatever demands nothing is in `always` and visited each time,
so no rule hides from the index: a rule that is not visited has the outcome FALSE, exactly. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

SUBJECT, RESOURCE, CONTEXT, PREFIX = range(4)

Key: TypeAlias = tuple[int, str, str | None]
"""(entity, attribute, attribute of that record or None); (PREFIX, "3", None) is the id's first three segments."""

FEW = 3
"""Below this many rules a look-up costs more than it saves."""

_ABSENT = object()


class Demand(Protocol):
    """What the index needs to know of a rule."""

    @property
    def demands(self) -> tuple[tuple[Key, tuple[Any, ...], bool], ...]:
        """(key, values, guarded): FALSE when the key is present with another value; when guarded, also when absent."""


class Table:
    """Rules by the value they demand of one key."""

    __slots__ = ("absent", "entity", "field", "name", "nodes", "segments")

    def __init__(self, key: Key, nodes: dict[Any, Node], absent: tuple[Any, ...]) -> None:
        self.entity, self.name, self.field = key
        self.segments = int(self.name) if self.entity == PREFIX else 0
        self.nodes = nodes
        self.absent = absent


class Node:
    """Rules that are always visited, and tables to look further in."""

    __slots__ = ("always", "tables")

    def __init__(self, always: tuple[Any, ...], tables: tuple[Table, ...]) -> None:
        self.always = always
        self.tables = tables


def build(rules: Sequence[Demand], used: frozenset[Key] = frozenset()) -> Node:
    """Return the tree over these rules. `used` are keys already looked up on the way here."""
    if len(rules) < FEW:
        return Node(tuple(rules), ())
    chosen = _choose(rules, used)
    always = tuple(rule for rule, key in chosen if key is None)
    grouped: dict[Key, list[Demand]] = {}
    for rule, key in chosen:
        if key is not None:
            grouped.setdefault(key, []).append(rule)
    tables = tuple(_table(key, members, used | {key}) for key, members in sorted(grouped.items(), key=_order))
    return Node(always, tables)


def _order(item: tuple[Key, list[Demand]]) -> tuple[int, str, str]:
    (entity, name, field), _ = item
    return entity, name, field or ""


def _choose(rules: Sequence[Demand], used: frozenset[Key]) -> list[tuple[Demand, Key | None]]:
    """Return each rule with the key that tells it from most others, None where no key is worth a look-up."""
    values: dict[Key, set[Any]] = {}
    for rule in rules:
        for key, wanted, _ in rule.demands:
            if key not in used:
                values.setdefault(key, set()).update(wanted)
    worth = {key: len(found) for key, found in values.items()}
    chosen: list[tuple[Demand, Key | None]] = []
    members: dict[Key, int] = {}
    for rule in rules:
        keys = [key for key, _, _ in rule.demands if key in worth]
        best = max(keys, key=lambda key: (worth[key], _order((key, []))), default=None)
        chosen.append((rule, best))
        if best is not None:
            members[best] = members.get(best, 0) + 1
    return [(rule, key if key is not None and members[key] >= FEW else None) for rule, key in chosen]


def _table(key: Key, rules: list[Demand], used: frozenset[Key]) -> Table:
    by_value: dict[Any, list[Demand]] = {}
    absent: list[Demand] = []
    for rule in rules:
        for demanded, wanted, guarded in rule.demands:
            if demanded == key:
                for value in dict.fromkeys(wanted):
                    by_value.setdefault(value, []).append(rule)
                if not guarded:
                    absent.append(rule)
                break
    return Table(key, {value: build(members, used) for value, members in by_value.items()}, tuple(absent))


def gather(node: Node, entities: tuple[dict[str, Any], ...], found: list[Any]) -> None:
    """Append to `found` every rule below the node whose demands these attributes meet or leave open."""
    found += node.always
    for table in node.tables:
        entity = table.entity
        if entity == PREFIX:
            value: Any = "/".join(entities[RESOURCE]["id"].split("/", table.segments)[: table.segments])
        else:
            value = entities[entity].get(table.name, _ABSENT)
            if table.field is not None and value is not _ABSENT:
                value = value.get(table.field, _ABSENT)
        if value is _ABSENT:
            found += table.absent
            continue
        below = table.nodes.get(value)
        if below is not None:
            if below.tables:
                gather(below, entities, found)
            else:
                found += below.always


def residual(nodes: Iterable[Node]) -> int:
    """Return how many rules are visited on each request that reaches these nodes, whatever its attributes."""
    return sum(len(node.always) for node in nodes)
