"""Turns facts into what a condition may read: typed, strong enough and fresh enough, or absent with the reason.

A fact below the schema's minimum assurance, or too old, is treated as absent, which can only deny access. Pure; `now`
is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from policyguard.decide.conversion import Malformed, article, converter, never, plain_test
from policyguard.decide.redaction import redactor, traced_names
from policyguard.model.facts import Assurance, Facts
from policyguard.model.former_names import FORMER_FACTS, former_values
from policyguard.model.policy import Attribute, EntityType, Schema
from policyguard.patterns.id_pattern import DOMAIN, compiled, domain_index
from policyguard.text import quoted_list
from policyguard.values import NANOSECONDS_PER_S, Instant, name_of

_HIDDEN = "found a value that is hidden"


class AttributeRule:
    """The type, minimum assurance and maximum age of one attribute."""

    __slots__ = (
        "assurance",
        "convert",
        "entity",
        "enum",
        "former_values",
        "guarded",
        "kind",
        "max_age_ns",
        "name",
        "plain",
        "redact",
        "sensitive",
        "strict",
        "traced",
        "type_name",
        "withheld",
    )

    def __init__(self, entity: int, attribute: Attribute, schema: Schema) -> None:
        self.entity = entity
        self.name = attribute.name
        self.kind, self.convert = converter(attribute.type, schema)
        self.plain = None if self.convert is None else plain_test(attribute.type, schema) or never
        self.enum = frozenset(attribute.enum) if attribute.enum else None
        self.former_values: Mapping[str, str] = {}
        self.assurance = int(attribute.assurance)
        self.max_age_ns = None if attribute.max_age_s is None else attribute.max_age_s * NANOSECONDS_PER_S
        self.strict = self.assurance > 1 or self.max_age_ns is not None or self.enum is not None
        self.sensitive = _is_sensitive(attribute, schema)
        self.redact = redactor(attribute.type, schema)
        self.traced = traced_names(attribute.type, schema)
        self.withheld = attribute.audience is not None
        self.guarded = self.sensitive or self.withheld or self.redact is not None
        """True if messages must not quote the attribute's value."""
        self.type_name = str(attribute.type)


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """The facts that conditions can read, as plain maps. `weak` says why a supplied fact was left out.

    `segments` are those of the resource's id.
    """

    subject: dict[str, Any]
    resource: dict[str, Any]
    context: dict[str, Any]
    domain: str | None
    segments: list[str]
    facts: Facts
    now: Instant
    weak: dict[str, str] | None


class FactAdmission:
    """Admits the facts of requests with one combination of subject type and resource type."""

    __slots__ = ("declares_name", "domain_at", "fits", "id_pattern", "known", "redactions", "rules", "sensitive")

    def __init__(self, schema: Schema, subject: EntityType, resource: EntityType) -> None:
        self.rules: dict[str, AttributeRule] = {}
        groups = (("subject", subject.attributes), ("resource", resource.attributes), ("context", schema.context))
        for entity, (prefix, attributes) in enumerate(groups):
            for name, attribute in attributes.items():
                rule = self.rules[f"{prefix}.{name}"] = AttributeRule(entity, attribute, schema)
                rule.former_values = former_values(name, attributes)
        self.known = {path: (rule.entity, rule.name, rule.kind, rule.plain, rule) for path, rule in self.rules.items()}
        self.declares_name = "subject.name" in self.rules
        # A former name is redacted like the present one.
        named = {**self.rules, **{old: self.rules[new] for old, new in FORMER_FACTS.items() if new in self.rules}}
        self.sensitive = frozenset(path for path, rule in named.items() if rule.sensitive or rule.withheld)
        self.redactions = {path: rule.redact for path, rule in named.items() if rule.redact is not None}
        self.id_pattern = resource.id_pattern
        self.domain_at = domain_index(resource.id_pattern)
        wild = (resource.id_pattern or "**").replace(DOMAIN, "*")
        self.fits = None if wild == "**" else compiled(wild)

    def admit(self, facts: Facts, now: Instant) -> Admitted:
        """Return the facts that conditions can read; the others are absent.

        Raises:
            Malformed: the request, or a value, does not fit the schema.
        """
        request = facts.request
        subject, resource = request.subject, request.resource
        identifier = resource.id
        of_resource: dict[str, Any] = {"id": identifier, "type": resource.type}
        segments = identifier.split("/")
        domain = None
        if self.fits is not None and not self.fits(identifier):
            raise Malformed("$.resource.id", f"found `{identifier}`, expected an id that fits `{self.id_pattern}`")
        at = self.domain_at
        if at is not None:
            of_resource["domain"] = domain = segments[at]
        of_subject: dict[str, Any] = {"id": f"{subject.type}:{subject.id}", "type": subject.type}
        if not self.declares_name:
            of_subject["name"] = subject.id
        of_context: dict[str, Any] = {}
        admitted = (of_subject, of_resource, of_context)
        weak: dict[str, str] | None = None
        known = self.known
        for path, fact in facts.entries.items():
            entry = known.get(path)
            if entry is None and (present := FORMER_FACTS.get(path)) is not None and not _is_supplied(present, facts):
                entry = known.get(present)
            if entry is None:
                if fact.assurance == 1:
                    raise Malformed(*_unknown(path, self.rules))
                continue
            entity, name, kind, plain, rule = entry
            value = fact.value
            if type(value) is not kind or (plain is not None and not plain(value)):
                value = _fit(rule, value, path)
            # A fact from the future goes the strict way too, whatever its attribute asks.
            if rule.strict or fact.observed_at > now:
                if rule.enum is not None and value not in rule.enum:
                    value = rule.former_values.get(str(value), value)
                if rule.enum is not None and value not in rule.enum:
                    detail = _HIDDEN if rule.guarded else f"found `{value}`"
                    raise Malformed(_json_path(path), f"{detail}, expected one of {quoted_list(sorted(rule.enum))}")
                # INVARIANT I1: a claim is not a fact; what is weaker or older than the schema asks is absent.
                reason = _weakness(rule, fact.assurance, fact.observed_at, now)
                if reason is not None:
                    weak = {} if weak is None else weak
                    weak[path] = reason
                    continue
            admitted[entity][name] = value
        return Admitted(of_subject, of_resource, of_context, domain, segments, facts, now, weak)


def _is_supplied(path: str, facts: Facts) -> bool:
    """Return True if a collector supplied the fact or tried to; a claim under its former name is then ignored."""
    return path in facts.entries or path in facts.missing


def supplied_as(path: str, facts: Facts) -> str:
    """Return the name under which a fact was supplied: the former one if only a claim under it exists."""
    if not _is_supplied(path, facts):
        for former, present in FORMER_FACTS.items():
            if present == path and former in facts.entries:
                return former
    return path


def under_supplied_names(paths: frozenset[str], facts: Facts) -> frozenset[str]:
    """Rename facts to the names under which they were supplied, as a record must show them."""
    if FORMER_FACTS.keys().isdisjoint(facts.entries):
        return paths
    return frozenset([supplied_as(path, facts) for path in paths])


def apply_minimum_assurance(admitted: Admitted, floors: Iterable[tuple[str, int]]) -> Admitted:
    """Return the admitted facts without those below the rule's minimum assurance."""
    facts, entries = admitted.facts, admitted.facts.entries
    # INVARIANT I1: a fact that a rule wants known better is absent for it, and absence only takes access away.
    named = [(path, supplied_as(path, facts), minimum) for path, minimum in floors]
    weak = {
        path: (name, minimum) for path, name, minimum in named if name in entries and entries[name].assurance < minimum
    }
    if not weak:
        return admitted
    known = {"subject": dict(admitted.subject), "resource": dict(admitted.resource), "context": dict(admitted.context)}
    reasons = dict(admitted.weak or {})
    for path, (supplied, minimum) in weak.items():
        entity, _, name = path.partition(".")
        known[entity].pop(name, None)
        reasons.setdefault(path, weakness(entries[supplied].assurance, minimum))
    return msgspec.structs.replace(admitted, **known, weak=reasons)


def admissions_by_type(schema: Schema) -> dict[tuple[str, str], FactAdmission]:
    """Build the admission for each combination of subject type and resource type."""
    return {
        (subject.name, resource.name): FactAdmission(schema, subject, resource)
        for subject in schema.subjects.values()
        for resource in schema.resources.values()
    }


def _weakness(rule: AttributeRule, assurance: int, observed_at: Instant, now: Instant) -> str | None:
    if assurance < rule.assurance:
        return weakness(assurance, rule.assurance)
    age_ns = now - observed_at
    if age_ns < 0:
        return f"observed {-(age_ns // NANOSECONDS_PER_S)} s in the future"
    if rule.max_age_ns is not None and age_ns > rule.max_age_ns:
        return f"{age_ns // NANOSECONDS_PER_S} s old, at most {rule.max_age_ns // NANOSECONDS_PER_S} s counts"
    return None


def weakness(assurance: int, minimum: int) -> str:
    """Say why a fact of this assurance does not count."""
    return f"present but only {Assurance(assurance).word}, {Assurance(minimum).word} counts"


def _fit(rule: AttributeRule, value: Any, path: str) -> Any:
    if type(value) is not rule.kind:
        raise Malformed(_json_path(path), f"found {name_of(value)}, expected {article(rule.type_name)}")
    if rule.convert is None:
        return value
    try:
        return rule.convert(value)
    except Malformed as problem:
        if rule.guarded:
            raise Malformed(_json_path(path), f"{_HIDDEN}, expected {article(rule.type_name)}") from None
        raise Malformed(_json_path(path) + problem.path, problem.message) from None


def _is_sensitive(attribute: Attribute, schema: Schema) -> bool:
    """Return True if the attribute, or any field inside it, is sensitive; a record is shown whole or not at all."""
    kind = attribute.type
    while kind.element is not None:
        kind = kind.element
    # INVARIANT I14: what holds a sensitive field is sensitive.
    return attribute.sensitive or any(
        _is_sensitive(field, schema) for field in (schema.records[kind.record] if kind.record else {}).values()
    )


_LONGEST_NAME = 63
"""The longest attribute name; a longer name gets no suggestion."""


def _unknown(path: str, rules: Mapping[str, AttributeRule]) -> tuple[str, str]:
    entity, _, name = path.partition(".")
    known = sorted(rule.removeprefix(f"{entity}.") for rule in rules if rule.startswith(f"{entity}."))
    # Imported here, so that only an unknown name pays for it and not the start of every hook.
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1) if len(name) <= _LONGEST_NAME else []
    expected = f"expected one of {quoted_list(sorted(known))}" if known else "expected none"
    return _json_path(path), f"unknown attribute `{name}`, {f'did you mean `{near[0]}`' if near else expected}"


def _json_path(path: str) -> str:
    entity, _, name = path.partition(".")
    return f"$.context.{name}" if entity == "context" else f"$.{entity}.properties.{name}"
