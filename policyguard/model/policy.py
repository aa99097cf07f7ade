"""A policy set after loading: every name resolved, every condition checked, every noun with its place in a file."""

from __future__ import annotations

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
    element: ValueType | None = None
    record: str | None = None

    def __str__(self) -> str:
        if self.kind == "list":
            return f"list({self.element})"
        if self.kind == "map":
            return f"map(string, {self.element})"
        return self.record if self.record is not None else self.kind


class Attribute(Placed, frozen=True, kw_only=True):
    """One attribute of an entity type, of the context or of a record.

    `assurance` is the least that counts and `max_age_s` the greatest age; both hold for top-level attributes only
    (a record is seen as a whole). `enum` lists the only texts allowed, empty for any.
    """

    name: str
    type: ValueType
    optional: bool = False
    unit: str | None = None
    enum: tuple[str, ...] = ()
    assurance: Assurance = Assurance.CLAIMED
    max_age_s: int | None = None
    sensitive: bool = False
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
    """What exists: types of subjects and resources, attributes of the context, and named records."""

    subjects: Mapping[str, EntityType]
    resources: Mapping[str, EntityType]
    context: Mapping[str, Attribute] = msgspec.field(default_factory=dict)
    records: Mapping[str, Mapping[str, Attribute]] = msgspec.field(default_factory=dict)
    span: Span = NO_SPAN

    @property
    def actions(self) -> frozenset[str]:
        return frozenset(action for resource in self.resources.values() for action in resource.actions)


class Role(Placed, frozen=True, kw_only=True):
    """A role; it holds everything the roles it inherits hold."""

    name: str
    inherits: tuple[str, ...] = ()
    description: str | None = None
    span: Span = NO_SPAN


class Exclusion(Placed, frozen=True, kw_only=True):
    """Static separation of duty: nobody may hold more than `limit` - 1 of these roles in one domain."""

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
    """Bindings that stand in a casbin adapter's store instead of in YAML; read when a guard opens, not here.

    `adapter` is `csv`, then `location` is a path relative to the policy folder, or `sqlalchemy`, then it is a URL.
    """

    adapter: Literal["csv", "sqlalchemy"]
    location: str
    span: Span = NO_SPAN


class Person(Placed, frozen=True, kw_only=True):
    """One human and every account and key that is theirs."""

    id: str
    accounts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    span: Span = NO_SPAN


class Approvers(msgspec.Struct, frozen=True, kw_only=True):
    """So many distinct persons who hold one of these roles in the resource's domain, or in `domain` if it is given."""

    count: int
    roles: tuple[str, ...]
    domain: str | None = None


REQUEST = "request"
"""What a quorum is `of` that approves the request and nothing else."""


class Quorum(Placed, frozen=True, kw_only=True):
    """Approvals that must be there; one person fills one place. Contributors and the requester never count.

    `of` says what is approved: `request` is the request and nothing else, for what carries nobody's work; None is the
    work that the request is for. `once`: the first allow uses the approvals up. None, not False, so that the digest
    of policies which say nothing about either stays what it was.
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
    """A checked CEL condition: its text, where its first character stands in the file, and its typed tree."""

    text: str
    expression: Expression
    span: Span = NO_SPAN
    positions: tuple[tuple[int, int, int], ...] = ()
    """(offset, line, column) for each stretch of `text` that stands unbroken in the file, ordered."""

    def at(self, offset: int) -> Span:
        """Return the place in the file of the character at this offset of `text`."""
        place = bisect_right(self.positions, offset, key=lambda stretch: stretch[0]) - 1
        if place < 0:
            return self.span
        start, line, column = self.positions[place]
        return Span(self.span.file, line, column + offset - start)


class Rule(Placed, frozen=True, kw_only=True):
    """One rule, names resolved.

    `actions` and `resource_types` are never empty: a star is expanded against the schema. `any_action` and `any_type`
    remember that the author wrote a star. `id_pattern` None means every id. `roles` empty and `subjects` empty means
    everyone. `scope` confines the rule to resources of one domain. `assurance` holds (path, least) for facts that must
    be known better here than the schema asks: a weaker one is absent for this rule.
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
    """Everything one load produced, in file order. `trace_roles` are the roles that may see a full trace."""

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
