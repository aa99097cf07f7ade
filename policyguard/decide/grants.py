"""Who holds which role where and when, as data: closed into sets, ready to be asked millions of times.

Nothing here imports casbin; `roles.py` builds a `Grants` from bindings, `from_data` from a compiled snapshot. Asking
changes nothing: an unknown subject leaves no trace (engines.md H14).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from policyguard.model.policy import ANY_DOMAIN
from policyguard.values import Instant

Row: TypeAlias = tuple[str, str, str, Instant, Instant]
"""subject, role, domain, not before, expires: the subject holds the role from the first instant until just before the
second."""

Held: TypeAlias = Mapping[str | None, tuple[str, ...]]
"""For each domain the sorted closed roles held there; `*` is every domain that has no entry of its own."""

ALWAYS: Instant = -(2**63)
NEVER: Instant = 2**63 - 1
"""The bounds of a binding without a time: before and after every instant we can spell."""

_CHARACTERS = r"[^\x00-\x20\x7f-\xa0\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]{1,512}"
NAME = re.compile(_CHARACTERS)
REF = re.compile(r"[a-z][a-z0-9_]{0,62}:" + _CHARACTERS)

ROLE_PREFIX = "role:"
"""Roles are written `role:name` beside `user:alice`, so nobody can be named like a role (engines.md H12)."""

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Grants:
    """Every binding of one snapshot with role inheritance already followed. Build with `of`, never by hand."""

    closed: Mapping[str, tuple[str, ...]]
    rows_by_role: Mapping[str, tuple[Row, ...]]
    _steady: Mapping[str, Held]
    _timed: Mapping[str, tuple[Held, tuple[Row, ...]]]

    @classmethod
    def of(cls, closed: Mapping[str, tuple[str, ...]], rows: Iterable[Row]) -> Grants:
        """Return the grants of these rows; `closed` maps every role to itself and all it inherits, sorted.

        Equal sets of roles, and subjects that hold the same roles in the same domains, share one object.
        """
        by_subject: dict[str, list[Row]] = {}
        by_role: dict[str, list[Row]] = {}
        for row in rows:
            by_subject.setdefault(row[0], []).append(row)
            by_role.setdefault(row[1], []).append(row)
        sharing = _Sharing(closed)
        steady: dict[str, Held] = {}
        timed: dict[str, tuple[Held, tuple[Row, ...]]] = {}
        for subject, own in by_subject.items():
            boxed = tuple(row for row in own if row[3] != ALWAYS or row[4] != NEVER)
            held = sharing.held(row for row in own if row[3] == ALWAYS and row[4] == NEVER)
            if boxed:
                timed[subject] = (held, boxed)
            else:
                steady[subject] = held
        return cls(closed, {role: tuple(sorted(own)) for role, own in by_role.items()}, steady, timed)

    def roles_at(self, subject_ref: str, domain: str | None, now: Instant) -> tuple[str, ...]:
        """Return the sorted roles, inherited ones included, that the subject holds in the domain or in `*` at `now`.

        Without a domain only roles held in every domain count. Someone unknown holds nothing.
        """
        held = self._steady.get(subject_ref)
        if held is None:
            return self._roles_of_timed(subject_ref, domain, now) if subject_ref in self._timed else ()
        roles = held.get(domain)
        return held[ANY_DOMAIN] if roles is None else roles

    def _roles_of_timed(self, subject_ref: str, domain: str | None, now: Instant) -> tuple[str, ...]:
        held, boxed = self._timed[subject_ref]
        roles = set(held.get(domain, held[ANY_DOMAIN]))
        for row in boxed:
            if _counts(row, domain, now):
                roles.update(self.closed[row[1]])
        return tuple(sorted(roles))

    def holders(self, role: str, domain: str | None, now: Instant) -> tuple[str, ...]:
        """Return the sorted subjects who hold the role, also by inheritance, in the domain or in `*` at `now`."""
        sources = (rows for bound, rows in self.rows_by_role.items() if role in self.closed[bound])
        return tuple(sorted({row[0] for rows in sources for row in rows if _counts(row, domain, now)}))

    @property
    def subjects(self) -> frozenset[str]:
        """Every subject with a binding, also one whose time is over."""
        return frozenset(self._steady) | frozenset(self._timed)

    def rows(self) -> Iterator[Row]:
        """Yield every binding, ordered by role and then by subject."""
        for role in sorted(self.rows_by_role):
            yield from self.rows_by_role[role]

    def to_data(self) -> dict[str, Any]:
        """Return lists and maps of text and integers that `from_data` turns into equal grants; the same every time."""
        names = sorted(self.closed)
        number = {name: n for n, name in enumerate(names)}
        domains = sorted({row[2] for row in self.rows()})
        place = {domain: n for n, domain in enumerate(domains)}
        return {
            "format": FORMAT,
            "roles": names,
            "closed": [[number[role] for role in self.closed[name]] for name in names],
            "domains": domains,
            "bindings": [
                [subject, number[role], place[domain], *(() if (since, until) == (ALWAYS, NEVER) else (since, until))]
                for subject, role, domain, since, until in self.rows()
            ],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Grants:
        """Return the grants that `to_data` wrote. The data is trusted: a snapshot's digest is checked before.

        Raises:
            ValueError: another format number, or an index that names nothing.
        """
        if data.get("format") != FORMAT:
            raise ValueError(f"grants have format `{data.get('format')}`, expected `{FORMAT}`")
        names, domains = data["roles"], data["domains"]
        try:
            closed = {name: tuple(names[n] for n in own) for name, own in zip(names, data["closed"], strict=True)}
            rows = [(row[0], names[row[1]], domains[row[2]], *(row[3:] or (ALWAYS, NEVER))) for row in data["bindings"]]
        except IndexError:
            raise ValueError("grants name a role or a domain that is not listed") from None
        return cls.of(closed, rows)


def _counts(row: Row, domain: str | None, now: Instant) -> bool:
    return (row[2] == domain or row[2] == ANY_DOMAIN) and row[3] <= now < row[4]


class _Sharing:
    """Makes one object of equal ones while grants are built: 100,000 subjects hold few distinct sets of roles."""

    def __init__(self, closed: Mapping[str, tuple[str, ...]]) -> None:
        self._closed = closed
        self._held: dict[tuple[tuple[str, str], ...], Held] = {}
        self._roles: dict[tuple[str, ...], tuple[str, ...]] = {own: own for own in closed.values()}

    def held(self, rows: Iterable[Row]) -> Held:
        signature = tuple(sorted({(row[2], row[1]) for row in rows}))
        held = self._held.get(signature)
        if held is None:
            held = self._held[signature] = self._close(signature)
        return held

    def _close(self, signature: tuple[tuple[str, str], ...]) -> Held:
        direct: dict[str | None, set[str]] = {ANY_DOMAIN: set()}
        for domain, role in signature:
            direct.setdefault(domain, set()).update(self._closed[role])
        everywhere = direct[ANY_DOMAIN]
        return {domain: self._share(tuple(sorted(roles | everywhere))) for domain, roles in direct.items()}

    def _share(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        return self._roles.setdefault(roles, roles)


def shown(text: str) -> str:
    """Return the text as an error may show it: escaped, at most 80 characters."""
    return text.encode("unicode_escape").decode()[:80]
