"""A loaded policy set: names resolved, conditions checked, and each item with its span in the file."""

# Annotations are values here: msgspec compiles each that is text when a process first decodes.

from bisect import bisect_right
from collections.abc import Mapping
from typing import Literal

import msgspec

from policyguard.model.expression import Expression
from policyguard.model.facts import Assurance
from policyguard.values import EMPTY_MAP, NO_SPAN, FrozenMap, Instant, Placed, Span

Effect = Literal["allow", "deny", "require"]
EFFECTS: tuple[Effect, ...] = ("allow", "deny", "require")

ANY_DOMAIN = "*"


class ValueType(msgspec.Struct, frozen=True, kw_only=True):
    """The type of an attribute.

    `kind` is one of bool int string timestamp duration list map record. `element` is that of a list's items or a map's
    values; `record` names an entry of `Schema.records`.
    """

    kind: Literal["bool", "int", "string", "timestamp", "duration", "list", "map", "record"]
    element: "ValueType | None" = None
    record: str | None = None

    def __str__(self) -> str:
        if self.kind == "list":
            return f"list({self.element})"
        if self.kind == "map":
            return f"map(string, {self.element})"
        return self.record if self.record is not None else self.kind


class Attribute(Placed, frozen=True, kw_only=True):
    """One attribute of an entity type, of the context or of a record.

    `assurance` is the minimum assurance and `max_age_s` the maximum age of a fact; both apply to top-level attributes
    only (a record is collected as a whole). A `sensitive` value is never shown; one with an `audience` is shown only to
    the roles listed under `trace`. `enum` lists the allowed texts; empty allows any.
    """

    name: str
    type: ValueType
    optional: bool = False
    unit: str | None = None
    enum: tuple[str, ...] = ()
    assurance: Assurance = Assurance.CLAIMED
    max_age_s: int | None = None
    sensitive: bool = False
    audience: Literal["trace"] | None = None
    description: str | None = None
    span: Span = NO_SPAN


class EntityType(Placed, frozen=True, kw_only=True):
    """A type of subject or of resource.

    `id_pattern` (resources) is the pattern every id of the type matches; its `{team}` segment, if any, is the domain
    the resource belongs to. `actions` are full `type:verb` names that may be asked for on this type; none on subjects.
    """

    name: str
    attributes: Mapping[str, Attribute] = msgspec.field(default_factory=dict)
    actions: tuple[str, ...] = ()
    id_pattern: str | None = None
    description: str | None = None
    span: Span = NO_SPAN


class Schema(Placed, frozen=True, kw_only=True):
    """The declared types of subjects and resources, attributes of the context, and records."""

    subjects: Mapping[str, EntityType]
    resources: Mapping[str, EntityType]
    context: Mapping[str, Attribute] = msgspec.field(default_factory=dict)
    records: Mapping[str, Mapping[str, Attribute]] = msgspec.field(default_factory=dict)
    span: Span = NO_SPAN

    @property
    def actions(self) -> frozenset[str]:
        return frozenset(action for resource in self.resources.values() for action in resource.actions)


class Role(Placed, frozen=True, kw_only=True):
    """A role; it includes everything that its inherited roles hold."""

    name: str
    inherits: tuple[str, ...] = ()
    description: str | None = None
    span: Span = NO_SPAN


class Exclusion(Placed, frozen=True, kw_only=True):
    """Static separation of duty: nobody may hold `limit` or more of these roles in one domain."""

    name: str
    roles: tuple[str, ...]
    limit: int = 2
    span: Span = NO_SPAN


class Binding(Placed, frozen=True, kw_only=True):
    """A subject holds a role in a domain (`*` is every domain), from `not_before` until just before `expires`."""

    subject: str
    role: str
    domain: str
    not_before: Instant | None = None
    expires: Instant | None = None
    reason: str | None = None
    span: Span = NO_SPAN


class BindingSource(Placed, frozen=True, kw_only=True):
    """Bindings in a casbin adapter's store; read when a guard opens, not when policies load.

    With the adapter `csv`, `location` is a path relative to the policy folder; with `sqlalchemy` it is a URL.
    """

    adapter: Literal["csv", "sqlalchemy"]
    location: str
    span: Span = NO_SPAN


class Person(Placed, frozen=True, kw_only=True):
    """One human with all accounts and keys that belong to them."""

    id: str
    accounts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    span: Span = NO_SPAN


class Approvers(msgspec.Struct, frozen=True, kw_only=True):
    """At least `count` distinct persons who hold one of `roles` in `domain`, or in the resource's domain if None."""

    count: int
    roles: tuple[str, ...]
    domain: str | None = None


REQUEST = "request"
"""The value of `of` for a quorum that approves the request and nothing else."""


class Quorum(Placed, frozen=True, kw_only=True):
    """The approvals that a rule requires.

    One person fills one seat; contributors and the requester never count.

    `of` is what is approved: `request` is only the request, for requests that carry nobody's work; None is the work
    that the request is for. With `once`, the first allow consumes the approvals. Both default to None, not False, so
    that the digest of policies that do not use them is unchanged.
    """

    id: str
    approvers: tuple[Approvers, ...]
    max_age_s: int | None = None
    assurance: Assurance = Assurance.ATTESTED
    of: str | None = None
    once: bool | None = None
    description: str | None = None
    span: Span = NO_SPAN


class Condition(Placed, frozen=True, kw_only=True):
    """A checked CEL condition: its text, the span of its first character, and its typed tree."""

    text: str
    expression: Expression
    span: Span = NO_SPAN
    positions: tuple[tuple[int, int, int], ...] = ()
    """(offset, line, column) for each segment of `text` that is contiguous in the file, in order."""

    def at(self, offset: int) -> Span:
        """Return the span of the character at this offset of `text`."""
        index = bisect_right(self.positions, offset, key=lambda segment: segment[0]) - 1
        if index < 0:
            return self.span
        start, line, column = self.positions[index]
        return Span(self.span.file, line, column + offset - start)


class Rule(Placed, frozen=True, kw_only=True):
    """One rule with all names resolved.

    `actions` and `resource_types` are never empty: a star is expanded against the schema. `any_action` and `any_type`
    record that the author wrote a star. `id_pattern` None means every id. `roles` empty and `subjects` empty means
    everyone. `scope` limits the rule to resources of one domain. `assurance` has (path, minimum) for facts with a
    higher minimum than in the schema: for this rule, a weaker fact is absent.
    """

    id: str
    effect: Effect
    actions: tuple[str, ...]
    resource_types: tuple[str, ...]
    roles: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    id_pattern: str | None = None
    when: Condition | None = None
    assurance: tuple[tuple[str, Assurance], ...] = ()
    quorum: str | None = None
    scope: str | None = None
    reason: str | None = None
    remedy: str | None = None
    contact: str | None = None
    obligations: tuple[str, ...] = ()
    not_before: Instant | None = None
    expires: Instant | None = None
    any_action: bool = False
    any_type: bool = False
    owner: str | None = None
    description: str | None = None
    span: Span = NO_SPAN


class PolicySet(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a load, in file order. `trace_roles` are the roles that may see a full trace."""

    schema: Schema
    roles: tuple[Role, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    bindings: tuple[Binding, ...] = ()
    persons: tuple[Person, ...] = ()
    rules: tuple[Rule, ...] = ()
    quorums: tuple[Quorum, ...] = ()
    trace_roles: tuple[str, ...] = ()
    binding_sources: tuple[BindingSource, ...] = ()
    epoch: int = 1
    metadata: FrozenMap = EMPTY_MAP
