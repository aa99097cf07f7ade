"""The input of a lint rule: the loaded policies, their syntax, the time, and shared queries."""

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
    """One policy set under inspection; rules only read it."""

    def __init__(self, analysis: Analysis, now: Instant) -> None:
        self.analysis = analysis
        self.now = now

    @cached_property
    def policy_set(self) -> PolicySet:
        """The loaded policy set; rules that need it do not run if the load failed.

        Raises:
            ValueError: the load failed.
        """
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
        """The allow rules, except those that allow everything, which only PG204 reports."""
        return tuple(rule for rule in self.rules if rule.effect == "allow" and not allows_everything(rule))

    def conditions(self, *effects: str) -> Iterator[tuple[Rule, Condition]]:
        """Yield (rule, condition) for the rules with a condition and one of these effects, or any."""
        for rule in self.rules:
            if rule.when is not None and (not effects or rule.effect in effects):
                yield rule, rule.when

    def guards(self, allow: Rule, action: str, *effects: str) -> Iterator[Rule]:
        """Yield the deny and require rules that apply to every request for an action that an allow covers.

        Such a rule covers all types of the allow that have the action, and is not narrower in subject, scope or id.

        Args:
            allow: the allow.
            action: one of its actions.
            effects: `deny`, `require` or both.
        """
        types = [entity_type for entity_type in self.types(allow) if action in entity_type.actions]
        names = {entity_type.name for entity_type in types}
        for scope in {None, ANY_DOMAIN, allow.scope}:
            for pattern in {None, "**", allow.id_pattern, *(entity_type.id_pattern for entity_type in types)}:
                for rule in self._guards.get((action, scope, pattern), ()):
                    if rule.effect in effects and names.issubset(rule.resource_types):
                        yield rule

    @cached_property
    def _guards(self) -> dict[tuple[str, str | None, str | None], list[Rule]]:
        """The deny and require rules for everyone, by action, scope and id pattern."""
        guards: dict[tuple[str, str | None, str | None], list[Rule]] = {}
        for rule in self.rules:
            if rule.effect != "allow" and not rule.roles and not rule.subjects:
                for action in rule.actions:
                    guards.setdefault((action, rule.scope, rule.id_pattern), []).append(rule)
        return guards

    # Roles.

    @cached_property
    def closed_roles(self) -> dict[str, frozenset[str]]:
        """Each role with itself and all roles it inherits."""
        closed, _ = close_roles(self.policy_set.roles)
        return closed

    def bindings_to(self, role: str) -> Sequence[Binding]:
        """Return the bindings that grant a role, directly or through inheritance."""
        return self._bindings_by_role.get(role, ())

    @cached_property
    def _bindings_by_role(self) -> dict[str, list[Binding]]:
        bindings: dict[str, list[Binding]] = {}
        for binding in self.policy_set.bindings:
            for role in self.closed_roles.get(binding.role, ()):
                bindings.setdefault(role, []).append(binding)
        return bindings

    @cached_property
    def person_of(self) -> dict[str, str]:
        """The person of each account that `Persons` lists."""
        return {account: person.id for person in self.policy_set.persons for account in person.accounts}

    # Places.

    @cached_property
    def _mappings(self) -> dict[Span, Mapping]:
        return {node.span: node for node in self.nodes() if isinstance(node, Mapping)}

    def is_text(self, span: Span) -> bool:
        """Return True if a span is inside a scalar, so that an apparent comment there is text."""
        return any(start <= span < end for start, end in self._texts_that_name_us)

    @cached_property
    def _texts_that_name_us(self) -> list[tuple[Span, Span]]:
        return [
            (scalar.source.span(scalar.index), scalar.source.span(scalar.end))
            for scalar in self.scalars()
            if "policyguard" in scalar.source.text[scalar.index : scalar.end].lower()
        ]

    def last_line_of_item(self, first: Span) -> int | None:
        """Return the last line of the list item that begins on the line of a span; None if there is none."""
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
        """Return the span of a field's value in the map at a span; the map's own span if the field is absent."""
        mapping = self._mappings.get(span)
        node = mapping.get(name) if mapping is not None else None
        return node.span if node is not None else span

    def item(self, span: Span, name: str, text: str) -> Span:
        """Return the span of an item of a list field.

        Args:
            span: the span of the map.
            name: the name of the field.
            text: the item.

        Returns:
            The span of the item; if it is absent, that of the field or of the map.
        """
        mapping = self._mappings.get(span)
        node = mapping.get(name) if mapping is not None else None
        for part in node.items if isinstance(node, nodes.Sequence) else ():
            if isinstance(part, Scalar) and part.text == text:
                return part.span
        return self.field(span, name)

    def pattern_span(self, rule: Rule) -> Span:
        """Return the span of the rule's `resources.id`, or of the nearest enclosing field."""
        return self.field(self.field(rule.span, "resources"), "id")

    # Types.

    def types(self, rule: Rule) -> Iterator[EntityType]:
        """Yield the resource types that a rule applies to."""
        for name in rule.resource_types:
            if name in self.schema.resources:
                yield self.schema.resources[name]

    def attributes(self, rule: Rule, path: tuple[str, ...]) -> tuple[Attribute, ...]:
        """Return the schema's declarations of a path, one per type that has it; none for built-in names."""
        if len(path) < 2:
            return ()
        owners: Iterable[EntityType]
        if path[0] == "context":
            declared = [self.schema.context.get(path[1])]
        else:
            owners = self.schema.subjects.values() if path[0] == "subject" else self.types(rule)
            has_types = path[0] in ("subject", "resource")
            declared = [owner.attributes.get(path[1]) for owner in owners] if has_types else []
        return tuple(attribute for attribute in (self.below(item, path[2:]) for item in declared) if attribute)

    def below(
        self, attribute: Attribute | None, rest: tuple[str, ...], *, inside_list: bool = False
    ) -> Attribute | None:
        """Follow names through records, starting at an attribute.

        Args:
            attribute: where to start.
            rest: the names of nested fields.
            inside_list: start at the elements of the attribute, a list.
        """
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
