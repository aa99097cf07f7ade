"""Who holds which role, where and when, stored for fast queries. Pure.

`assign_roles.py` builds a `RoleAssignments` from bindings, `from_data` from a compiled snapshot. Queries change
nothing, not even for an unknown subject (hazard H14).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from policyguard.model.policy import ANY_DOMAIN
from policyguard.values import ALWAYS, NEVER, Instant, format_instant, parse_instant

Row: TypeAlias = tuple[str, str, str, Instant, Instant]
"""subject, role, domain, not before, expires: the subject holds the role from the first instant until just before the
second."""

Shape: TypeAlias = tuple[tuple[str, str], ...]

RolesByDomain: TypeAlias = Mapping[str | None, tuple[str, ...]]
"""The sorted closed roles in each domain; `*` applies to every domain without its own entry."""

ROLE_PREFIX = "role:"
"""Roles are written `role:name` beside `user:alice`, so nobody can be named like a role (hazard H12)."""

FORMAT = 1


class RoleAssignments(msgspec.Struct, frozen=True):
    """Every binding of a snapshot, with role inheritance applied. Build it with `of`.

    A *shape* is what one subject is bound to without a time: sorted pairs of domain and role. Few shapes serve many
    subjects, and each has one `RolesByDomain`.
    """

    closed: Mapping[str, tuple[str, ...]]
    _shapes: tuple[Shape, ...]
    _held: tuple[RolesByDomain, ...]
    _permanent: Mapping[str, RolesByDomain]
    _time_boxed: Mapping[str, tuple[RolesByDomain, tuple[Row, ...]]]

    @classmethod
    def of(cls, closed: Mapping[str, tuple[str, ...]], rows: Iterable[Row]) -> RoleAssignments:
        """Build the assignments from rows; `closed` maps every role to itself and all it inherits, sorted."""
        pairs: dict[str, set[tuple[str, str]]] = {}
        timed: dict[str, set[Row]] = {}
        for row in rows:
            subject, role, domain, since, until = row
            own = pairs.setdefault(subject, set())
            if since == ALWAYS and until == NEVER:
                own.add((domain, role))
            else:
                timed.setdefault(subject, set()).add(row)
        shape_of = {subject: tuple(sorted(own)) for subject, own in pairs.items()}
        return cls._assembled(closed, sorted(set(shape_of.values())), shape_of, timed)

    @classmethod
    def _assembled(
        cls,
        closed: Mapping[str, tuple[str, ...]],
        shapes: Iterable[Shape],
        shape_of: Mapping[str, Shape],
        timed: Mapping[str, Iterable[Row]],
    ) -> RoleAssignments:
        shared: dict[tuple[str, ...], tuple[str, ...]] = {own: own for own in closed.values()}
        held = {shape: _close(shape, closed, shared) for shape in shapes}
        permanent = {subject: held[shape] for subject, shape in shape_of.items() if subject not in timed}
        time_boxed = {subject: (held[shape_of[subject]], tuple(sorted(timed[subject]))) for subject in sorted(timed)}
        return cls(closed, tuple(held), tuple(held.values()), permanent, time_boxed)

    def roles_at(self, subject_ref: str, domain: str | None, now: Instant) -> tuple[str, ...]:
        """List the roles that the subject holds in the domain or in `*` at `now`, sorted.

        Without a domain only roles held in every domain count. Someone unknown holds nothing.

        Args:
            subject_ref: the subject, `type:id`.
            domain: the domain; None where the resource type has none.
            now: the current time.
        """
        # INVARIANT I6: asking about someone unknown changes nothing.
        held = self._permanent.get(subject_ref)
        if held is None:
            return self._roles_of_timed(subject_ref, domain, now) if subject_ref in self._time_boxed else ()
        roles = held.get(domain)
        return held[ANY_DOMAIN] if roles is None else roles

    def _roles_of_timed(self, subject_ref: str, domain: str | None, now: Instant) -> tuple[str, ...]:
        held, time_boxed = self._time_boxed[subject_ref]
        roles = set(held.get(domain, held[ANY_DOMAIN]))
        for row in time_boxed:
            if _counts(row, domain, now):
                roles.update(self.closed[row[1]])
        return tuple(sorted(roles))

    def holders(self, role: str, domain: str | None, now: Instant) -> tuple[str, ...]:
        """List the subjects who hold the role in the domain or in `*` at `now`, sorted.

        Args:
            role: the name of the role.
            domain: the domain; None where the resource type has none.
            now: the current time.
        """
        fitting = {id(held) for held in self._held if role in held.get(domain, held[ANY_DOMAIN])}
        permanent = (subject for subject, held in self._permanent.items() if id(held) in fitting)
        timed = (subject for subject in self._time_boxed if role in self._roles_of_timed(subject, domain, now))
        return tuple(sorted((*permanent, *timed)))

    @property
    def subjects(self) -> frozenset[str]:
        """Every subject with a binding, including expired ones."""
        return frozenset(self._permanent) | frozenset(self._time_boxed)

    def rows(self) -> Iterator[Row]:
        """Yield every binding once, ordered by subject."""
        shape_of = self._shape_of()
        for subject in sorted(shape_of):
            yield from ((subject, role, domain, ALWAYS, NEVER) for domain, role in shape_of[subject])
            yield from self._time_boxed[subject][1] if subject in self._time_boxed else ()

    def _shape_of(self) -> dict[str, Shape]:
        shapes = {id(held): shape for held, shape in zip(self._held, self._shapes, strict=True)}
        return {
            **{subject: shapes[id(held)] for subject, held in self._permanent.items()},
            **{subject: shapes[id(held)] for subject, (held, _) in self._time_boxed.items()},
        }

    def to_data(self) -> dict[str, Any]:
        """Convert to lists and maps of text and integers; `from_data` is the inverse."""
        names = sorted(self.closed)
        number = {name: n for n, name in enumerate(names)}
        numbers = {shape: n for n, shape in enumerate(self._shapes)}
        shape_of = self._shape_of()
        return {
            "format": FORMAT,
            "roles": names,
            "closed": [[number[role] for role in self.closed[name]] for name in names],
            "shapes": [[[domain, number[role]] for domain, role in shape] for shape in self._shapes],
            "subjects": {subject: numbers[shape_of[subject]] for subject in sorted(shape_of)},
            "timed": [
                [subject, number[role], domain, _written(since), _written(until)]
                for subject, (_, time_boxed) in self._time_boxed.items()
                for _, role, domain, since, until in time_boxed
            ],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> RoleAssignments:
        """Read what `to_data` wrote, without checks: the snapshot's digest has been verified.

        Raises:
            ValueError: another format number, or an index that names nothing.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"grants have format `{data.get('format')}`, expected `{FORMAT}`")
        names = data["roles"]
        try:
            closed = {name: tuple([names[n] for n in own]) for name, own in zip(names, data["closed"], strict=True)}
            shapes = [tuple([(domain, names[n]) for domain, n in shape]) for shape in data["shapes"]]
            shape_of = {subject: shapes[n] for subject, n in data["subjects"].items()}
            timed: dict[str, list[Row]] = {}
            for subject, n, domain, since, until in data["timed"]:
                row = (subject, names[n], domain, _read(since, ALWAYS), _read(until, NEVER))
                timed.setdefault(subject, []).append(row)
        except IndexError:
            raise ValueError("grants name a role or a shape that is not listed") from None
        return cls._assembled(closed, shapes, shape_of, timed)


def _close(
    shape: Shape, closed: Mapping[str, tuple[str, ...]], shared: dict[tuple[str, ...], tuple[str, ...]]
) -> RolesByDomain:
    """List the roles that this set of bindings gives in each domain; equal sets become one object."""
    if len(shape) == 1:
        domain, role = shape[0]
        return {ANY_DOMAIN: () if domain != ANY_DOMAIN else closed[role], domain: closed[role]}
    direct: dict[str, set[str]] = {ANY_DOMAIN: set()}
    for domain, role in shape:
        direct.setdefault(domain, set()).update(closed[role])
    everywhere = direct[ANY_DOMAIN]
    full = {domain: tuple(sorted(roles | everywhere)) for domain, roles in direct.items()}
    return {domain: shared.setdefault(roles, roles) for domain, roles in full.items()}


def _counts(row: Row, domain: str | None, now: Instant) -> bool:
    return (row[2] == domain or row[2] == ANY_DOMAIN) and row[3] <= now < row[4]


def _written(instant: Instant) -> str:
    return "" if instant in (ALWAYS, NEVER) else format_instant(instant)


def _read(text: str, otherwise: Instant) -> Instant:
    return parse_instant(text) if text else otherwise
