"""What a rule may look at: the loaded policy set, its syntax, the time, and the questions several rules ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from policyguard.decide.role_closure import close_roles
from policyguard.lint.stars import allows_everything
from policyguard.model.policy import ANY_DOMAIN, Attribute, Binding, Condition, EntityType, PolicySet, Rule, Schema
from policyguard.policy import nodes
from policyguard.policy.loader import Analysis
from policyguard.policy.nodes import Mapping, Node, Scalar, walk
from policyguard.values import Instant, Span


class Context:
    """One policy set under inspection. Rules read it and change nothing."""

    def __init__(self, analysis: Analysis, now: Instant) -> None:
        self.analysis = analysis
        self.now = now

    @cached_property
    def policy_set(self) -> PolicySet:
        """The loaded set. Rules that need it are not run when the load failed."""
        if self.analysis.policy_set is None:
            raise ValueError("the load failed, there is no policy set")
        return self.analysis.policy_set

    @property
    def schema(self) -> Schema:
        """The schema of the loaded set."""
        return self.policy_set.schema

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the loaded set, in file order."""
        return self.policy_set.rules

    @cached_property
    def allows(self) -> tuple[Rule, ...]:
        """The allows, less those of everything: PG204 is the one finding about them."""
        return tuple(rule for rule in self.rules if rule.effect == "allow" and not allows_everything(rule))

    def conditions(self, *effects: str) -> Iterator[tuple[Rule, Condition]]:
        """Yield the rules with these effects (all, if none is named) that have a condition, with it."""
        for rule in self.rules:
            if rule.when is not None and (not effects or rule.effect in effects):
                yield rule, rule.when

    def guards(self, allow: Rule, action: str, *effects: str) -> Iterator[Rule]:
        """Yield the deny or require rules that meet every request for this action that the allow could meet: on all
        its types that have the action, for everyone, in every team, and whatever the id."""
        types = [entity_type for entity_type in self.types(allow) if action in entity_type.actions]
        names = {entity_type.name for entity_type in types}
        for scope in {None, ANY_DOMAIN, allow.scope}:
            for pattern in {None, "**", allow.id_pattern, *(entity_type.id_pattern for entity_type in types)}:
                for rule in self._guards.get((action, scope, pattern), ()):
                    if rule.effect in effects and names.issubset(rule.resource_types):
                        yield rule

    @cached_property
    def _guards(self) -> dict[tuple[str, str | None, str | None], list[Rule]]:
        """The deny and require rules that are for everyone, by action, scope and id pattern."""
        found: dict[tuple[str, str | None, str | None], list[Rule]] = {}
        for rule in self.rules:
            if rule.effect != "allow" and not rule.roles and not rule.subjects:
                for action in rule.actions:
                    found.setdefault((action, rule.scope, rule.id_pattern), []).append(rule)
        return found

    # Roles.

    @cached_property
    def closed_roles(self) -> dict[str, frozenset[str]]:
        """Each role with itself and all that it inherits."""
        closed, _ = close_roles(self.policy_set.roles)
        return closed

    def bindings_to(self, role: str) -> Sequence[Binding]:
        """Return the bindings that give a role, directly or because the bound role inherits it."""
        return self._bindings_by_role.get(role, ())

    @cached_property
    def _bindings_by_role(self) -> dict[str, list[Binding]]:
        found: dict[str, list[Binding]] = {}
        for binding in self.policy_set.bindings:
            for role in self.closed_roles.get(binding.role, ()):
                found.setdefault(role, []).append(binding)
        return found

    @cached_property
    def person_of(self) -> dict[str, str]:
        """Return the person of each account that `Persons` knows."""
        return {account: person.id for person in self.policy_set.persons for account in person.accounts}

    # Places.

    @cached_property
    def _mappings(self) -> dict[Span, Mapping]:
        return {node.span: node for node in self.nodes() if isinstance(node, Mapping)}

    def is_text(self, place: Span) -> bool:
        """True if this place lies inside a scalar: what looks like a comment there is none, whatever the scan says."""
        return any(start <= place < end for start, end in self._texts_that_name_us)

    @cached_property
    def _texts_that_name_us(self) -> list[tuple[Span, Span]]:
        return [
            (scalar.source.span(scalar.index), scalar.source.span(scalar.end))
            for scalar in self.scalars()
            if "policyguard" in scalar.source.text[scalar.index : scalar.end].lower()
        ]

    def last_line_of_item(self, first: Span) -> int | None:
        """Return the last line of the map, itself an item of a list, that begins on this line of this file."""
        items = self._items.get((first.file, first.line))
        return max(_last_line(node) for node in walk(items)) if items is not None else None

    @cached_property
    def _items(self) -> dict[tuple[str, int], Mapping]:
        lists = (node for node in self.nodes() if isinstance(node, nodes.Sequence))
        items = (item for node in lists for item in node.items if isinstance(item, Mapping))
        return {(item.source.file, item.line): item for item in reversed(list(items))}

    def nodes(self) -> Iterator[Node]:
        """Yield every node of every document, in file order."""
        for document in self.analysis.documents:
            yield from walk(document.node)

    def scalars(self) -> Iterator[Scalar]:
        """Yield every scalar of every document, keys included."""
        return (node for node in self.nodes() if isinstance(node, Scalar))

    def field(self, span: Span, name: str) -> Span:
        """Return where the value of a field stands, given the place of the map it is in; without it, the map's."""
        mapping = self._mappings.get(span)
        node = mapping.get(name) if mapping is not None else None
        return node.span if node is not None else span

    def item(self, span: Span, name: str, text: str) -> Span:
        """Return where one item of a list field stands; without it, the field's place."""
        mapping = self._mappings.get(span)
        node = mapping.get(name) if mapping is not None else None
        for part in node.items if isinstance(node, nodes.Sequence) else ():
            if isinstance(part, Scalar) and part.text == text:
                return part.span
        return self.field(span, name)

    def pattern_place(self, rule: Rule) -> Span:
        """Return where the rule's `resources.id` stands, or the next best place."""
        return self.field(self.field(rule.span, "resources"), "id")

    # Types.

    def types(self, rule: Rule) -> Iterator[EntityType]:
        """Yield the resource types a rule is about."""
        for name in rule.resource_types:
            if name in self.schema.resources:
                yield self.schema.resources[name]

    def attributes(self, rule: Rule, path: tuple[str, ...]) -> tuple[Attribute, ...]:
        """Return what the schema says about a path, once for each type that has it; nothing for built-in names."""
        if len(path) < 2:
            return ()
        owners: Iterable[EntityType]
        if path[0] == "context":
            found = [self.schema.context.get(path[1])]
        else:
            owners = self.schema.subjects.values() if path[0] == "subject" else self.types(rule)
            found = [owner.attributes.get(path[1]) for owner in owners] if path[0] in ("subject", "resource") else []
        return tuple(attribute for attribute in (self.below(item, path[2:]) for item in found) if attribute)

    def below(
        self, attribute: Attribute | None, rest: tuple[str, ...], *, inside_list: bool = False
    ) -> Attribute | None:
        """Return the attribute that the names lead to through records; at first through a list's, if inside one."""
        for name in rest:
            record = attribute.type.record if attribute is not None else None
            if attribute is not None and attribute.type.element is not None and inside_list:
                record = attribute.type.element.record
            inside_list = False
            attribute = self.schema.records.get(record, {}).get(name) if record is not None else None
        return attribute


def _last_line(node: Node) -> int:
    if not isinstance(node, Scalar):
        return node.line
    written = node.source.text[node.index : node.end].rstrip()
    return node.line + written.count("\n")
