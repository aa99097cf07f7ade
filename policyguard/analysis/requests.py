"""Generates requests from a policy set: values that conditions compare, their neighbours, limits, unknown names.

Half of the requests aim at one rule, so that every rule is reached; the others are random. The same seed gives the same
requests.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from policyguard.analysis.boundaries import (
    compared_with,
    constants_of,
    domains_of,
    instants_of,
    near_texts,
    subjects_of,
)
from policyguard.model.facts import Approval, Assurance, Fact, Facts
from policyguard.model.policy import Attribute, EntityType, PolicySet, Rule, ValueType
from policyguard.model.request import Entity, Request
from policyguard.values import NANOSECONDS_PER_S, FrozenMap, Instant, Value, format_instant

DRAWS = 12

STRANGER = "user:nobody-knows-me"


class Requests:
    """A stream of (facts, now), derived from the policies and a seed."""

    def __init__(self, policy_set: PolicySet, seed: int = 0) -> None:
        self._policies = policy_set
        self._random = random.Random(seed)
        conditions = [rule.when.expression for rule in policy_set.rules if rule.when is not None]
        self._constants = constants_of(conditions)
        self._compared = compared_with(conditions)
        self._wanted: dict[str, list[Assurance]] = {}
        """Facts for which a rule has a higher minimum than the schema; supplied at that level and one below."""
        for path, minimum in (pair for rule in policy_set.rules for pair in rule.assurance):
            self._wanted.setdefault(path, []).extend((minimum, Assurance(minimum - 1)))
        self._domains = domains_of(policy_set)
        self._subjects = subjects_of(policy_set)
        self._instants = instants_of(policy_set, self._constants.get("timestamp", ()))
        self._close = False
        """True while the current request uses only constants that conditions compare with."""
        self._asker = STRANGER
        self.reached: set[str] = set()
        """Rules that took part in a decision so far; the caller adds to it. Other rules are aimed at more often."""
        self._accounts = sorted({account for person in policy_set.persons for account in person.accounts})

    def take(self, count: int, rare: Callable[[Facts, Instant], bool] | None = None) -> Iterator[tuple[Facts, Instant]]:
        """Yield this many pairs of facts and the instant to decide at.

        One request in two is drawn again, up to twelve times, until `rare` says yes, for most random requests are
        denied. One in four then is a rare one with a single thing changed: where a rule ends, such neighbours differ.
        """
        by_answer: dict[str, list[tuple[Facts, Instant]]] = {}
        for number in range(count):
            if number % 4 == 3 and by_answer:
                yield self._neighbour(*self._pick(by_answer[self._pick(sorted(by_answer))]))
                continue
            facts, now = self._one()
            for _ in range(DRAWS if rare is not None and number % 4 else 0):
                if rare is not None and rare(facts, now):
                    by_answer.setdefault(facts.request.action, []).append((facts, now))
                    break
                facts, now = self._one()
            yield facts, now

    def _neighbour(self, facts: Facts, now: Instant) -> tuple[Facts, Instant]:
        """Copy the facts and change one thing: a value, its assurance, the subject, the id, an approval, the time."""
        request = facts.request
        self._asker = request.subject.ref
        fresh = dict(self._entries(request, now))
        if fresh and self._chance(0.7):
            path = self._pick(sorted(fresh))
            entries = {**facts.entries, path: fresh[path]}
            if self._chance(0.15):
                del entries[path]
            return replace(facts, entries=entries), now
        resource = Entity(request.resource.type, str(self._pick(near_texts(request.resource.id))) or "x")
        changed = [
            replace(facts, request=replace(request, subject=self._subject(None))),
            replace(facts, request=replace(request, resource=resource)),
            replace(facts, request=replace(request, action=self._action(None, request.resource))),
            replace(facts, approvals=facts.approvals[1:]),
            replace(facts, contributors=self._contributors()),
        ]
        return (self._pick(changed), now) if self._chance(0.8) else (facts, self._pick(self._instants))

    def _one(self) -> tuple[Facts, Instant]:
        aim = self._aim()
        now = self._now(aim)
        self._close = self._chance(0.5)
        resource = self._resource(aim)
        subject = self._subject(aim)
        action = self._action(aim, resource)
        self._asker = subject.ref
        request = Request(subject, action, resource)
        entries = dict(self._entries(request, now))
        facts = Facts(
            request=request, entries=entries, approvals=tuple(self._approvals(now)), contributors=self._contributors()
        )
        return facts, now

    def _aim(self) -> Rule | None:
        if not self._policies.rules or self._chance(0.3):
            return None
        neglected = [rule for rule in self._policies.rules if rule.id not in self.reached]
        return self._pick(neglected if neglected and self._chance(0.5) else self._policies.rules)  # type: ignore[no-any-return]

    def _now(self, aim: Rule | None) -> Instant:
        inside = [
            instant
            for instant in self._instants
            if aim is not None and (aim.not_before or instant) <= instant < (aim.expires or instant + 1)
        ]
        return int(self._pick(inside if inside and self._chance(0.7) else self._instants))

    def _pick(self, choices: Sequence[Any]) -> Any:
        return choices[self._random.randrange(len(choices))]

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _subject(self, aim: Rule | None) -> Entity:
        wanted = self._subjects
        if aim is not None and aim.subjects and self._chance(0.8):
            wanted = list(aim.subjects)
        if aim is not None and aim.roles and self._chance(0.8):
            wanted = [b.subject for b in self._policies.bindings if b.role in aim.roles] or wanted
        type_, _, identifier = str(self._pick(wanted)).partition(":")
        return Entity(type_, identifier)

    def _action(self, aim: Rule | None, resource: Entity) -> str:
        if aim is not None and self._chance(0.95):
            return str(self._pick(aim.actions))
        known = self._policies.schema.resources.get(resource.type)
        actions = sorted(self._policies.schema.actions)
        return str(self._pick([*(known.actions if known else ()), *actions, "nothing:known"]))

    def _resource(self, aim: Rule | None) -> Entity:
        types = list(aim.resource_types) if aim is not None else [*self._policies.schema.resources, "unknown_type"]
        type_ = str(self._pick(types))
        known = self._policies.schema.resources.get(type_)
        patterns = [known.id_pattern if known else None, aim.id_pattern if aim is not None else None]
        pattern = str(self._pick([p for p in patterns if p] or ["**"]))
        domain = aim.scope if aim is not None and aim.scope is not None and self._chance(0.8) else None
        return Entity(type_, self._identifier(pattern, domain or str(self._pick(self._domains))))

    def _identifier(self, pattern: str, domain: str) -> str:
        """Choose an id that matches the pattern, or one that misses it by a segment, a letter or a slash."""
        segments: list[str] = []
        for segment in pattern.split("/"):
            if segment == "**":
                segments += self._pick([[], ["run-1"], ["a", "b"], ["run-1"]])
            elif segment == "{team}":
                segments.append(domain)
            else:
                segments.append(segment.replace("*", str(self._pick(["", "x", "run-1"]))))
        text = "/".join(segments) or "x"
        if self._chance(0.9):
            return text
        near = [
            text + "/",
            "/" + text,
            text + "x",
            text.upper(),
            text.rpartition("/")[0] or "y",
            text + "/..",
            text.replace("/", "//", 1),
            "*",
            text + "_secret",
        ]
        return str(self._pick(near))

    def _entries(self, request: Request, now: Instant) -> Iterator[tuple[str, Fact]]:
        schema = self._policies.schema
        nothing = EntityType(name="none")
        groups: tuple[tuple[str, Mapping[str, Attribute]], ...] = (
            ("subject", schema.subjects.get(request.subject.type, nothing).attributes),
            ("resource", schema.resources.get(request.resource.type, nothing).attributes),
            ("context", schema.context),
        )
        sloppy = self._chance(0.1 if self._close else 0.4)
        for entity, attributes in groups:
            for name, attribute in attributes.items():
                if sloppy and self._chance(0.2):
                    continue
                value = self._value(attribute, attribute.type)
                if sloppy and self._chance(0.03):
                    value = self._pick([True, 0, "text", ()])
                path = f"{entity}.{name}"
                assurance = attribute.assurance if not sloppy or self._chance(0.8) else self._pick(list(Assurance))
                if path in self._wanted and self._chance(0.5):
                    assurance = self._pick(self._wanted[path])
                yield path, Fact(value, assurance, "generated", now - self._age_ns(attribute, sloppy))
        if self._chance(0.02):
            yield "resource.nobody_declared_this", Fact(1, self._pick(list(Assurance)), "generated", now)

    def _age_ns(self, attribute: Attribute, sloppy: bool) -> int:
        if attribute.max_age_s is None or not sloppy:
            return 0
        bound = attribute.max_age_s * NANOSECONDS_PER_S
        return int(self._pick([0, -1, bound - 1, bound, bound + 1]))

    def _value(self, attribute: Attribute, kind: ValueType, depth: int = 0) -> Value:
        """Choose a value of this kind for an attribute or a part of it."""
        if attribute.enum and kind.kind == "string" and self._chance(0.98):
            return str(self._pick(attribute.enum))
        if kind.kind == "list" and kind.element is not None:
            count = self._random.randrange(3 if depth < 2 else 1)
            return tuple(self._value(attribute, kind.element, depth + 1) for _ in range(count))
        if kind.kind == "map" and kind.element is not None:
            keys = self._pick([(), ("a",), tuple(self._constants.get("string", ("a",))[:2])])
            return FrozenMap({key: self._value(attribute, kind.element, depth + 1) for key in keys})
        if kind.kind == "record":
            fields = self._policies.schema.records.get(kind.record or "", {})
            members = {n: a for n, a in fields.items() if not self._chance(0.1)} if depth < 4 else {}
            return FrozenMap({n: self._value(a, a.type, depth + 1) for n, a in members.items()})
        return self._scalar(kind.kind, attribute.name)

    def _scalar(self, kind: str, name: str) -> Value:
        near = [value for type_, value in self._compared.get(name, ()) if type_ == kind]
        everywhere = self._constants.get(kind, ())
        if kind == "bool":
            return self._chance(0.5)
        if kind == "int":
            return int(self._pick(near or everywhere or (0, 1))) + int(self._pick([-1, 0, 0, 1]))
        if kind == "timestamp":
            return format_instant(int(self._pick(self._instants)))
        if kind == "duration":
            return str(self._pick(["0s", "1s", "15m", "72h"]))
        if self._chance(0.2):
            return self._asker
        others = [*everywhere, "x", "", self._pick(self._subjects), self._pick(self._domains)]
        text = str(self._pick(near if near and (self._close or self._chance(0.7)) else others))
        exact = "[" not in text and self._chance(0.9 if self._close else 0.4)
        return text if exact else str(self._pick(near_texts(text)))

    def _approvals(self, now: Instant) -> Iterator[Approval]:
        for account in [*self._accounts, STRANGER]:
            if self._chance(0.4):
                early, late = self._pick([(-1, 1), (-1, 1), (-1, 1), (0, 0), (0, 1), (1, 2), (-(10**15), 1)])
                strength = Assurance.ATTESTED if self._chance(0.85) else self._pick(list(Assurance))
                yield Approval(account, strength, "generated", now + early, now + late, "0" * 64)

    def _contributors(self) -> tuple[str, ...] | None:
        if self._chance(0.15):
            return None
        count = self._random.randrange(3)
        people = self._accounts if self._accounts and self._chance(0.9) else [STRANGER]
        return tuple(str(self._pick(people)) for _ in range(count))
