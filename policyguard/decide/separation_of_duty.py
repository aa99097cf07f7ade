"""Static separation of duty: nobody may hold roles that exclude each other (NIST RBAC, ANSI INCITS 359-2004, 6.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policyguard.decide.role_grants import Row
from policyguard.errors import PolicyError
from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, Role
from policyguard.text import quoted_list
from policyguard.values import Span


def exclusion_errors(
    closed: Mapping[str, tuple[str, ...]],
    rows: Sequence[Row],
    bindings: Sequence[Binding],
    roles: Sequence[Role],
    exclusions: Sequence[Exclusion],
    persons: Sequence[Person],
) -> Iterator[PolicyError]:
    """Yield a PG506 for each role that breaks an exclusion by itself and each holder who does, once per domain."""
    owner = {account: person.id for person in persons for account in person.accounts}
    for exclusion in exclusions:
        apart = {role: frozenset(exclusion.roles).intersection(own) for role, own in closed.items()}
        broken = {role for role, found in apart.items() if len(found) >= exclusion.limit}
        for role in roles:
            if role.name in broken:
                yield _separation(f"role `{role.name}` contains", sorted(apart[role.name]), exclusion, role.span)
        held: dict[str, list[tuple[Row, Span]]] = {}
        for row, binding in zip(rows, bindings, strict=True):
            if apart[row[1]] and row[1] not in broken:
                held.setdefault(owner.get(row[0], row[0]), []).append((row, binding.span))
        for holder in sorted(held):
            yield from _holder_errors(holder, held[holder], apart, exclusion)


def _holder_errors(
    holder: str, held: Sequence[tuple[Row, Span]], apart: Mapping[str, frozenset[str]], exclusion: Exclusion
) -> Iterator[PolicyError]:
    # INVARIANT I65: nobody holds roles that exclude each other, at any moment at which the bindings overlap. More
    # roles are held just after some binding begins than at any other time, so only those moments are looked at.
    reported: set[str] = set()
    for (_, _, domain, since, until), span in held:
        now = [
            row
            for row, _ in held
            if (row[2] in (domain, ANY_DOMAIN) or domain == ANY_DOMAIN) and row[3] <= since < row[4] and since < until
        ]
        for place in sorted({row[2] for row in now} | {domain}):
            found = frozenset[str]().union(*(apart[row[1]] for row in now if row[2] in (place, ANY_DOMAIN)))
            if len(found) >= exclusion.limit and place not in reported and ANY_DOMAIN not in reported:
                reported.add(place)
                where = "every domain" if place == ANY_DOMAIN else f"domain `{place}`"
                yield _separation(f"`{holder}` holds in {where}", sorted(found), exclusion, span)


def _separation(who: str, roles: Sequence[str], exclusion: Exclusion, span: Span) -> PolicyError:
    names = quoted_list(roles)
    allowed = exclusion.limit - 1
    return PolicyError(
        f"{who} {names}, expected at most {allowed} of them (`{exclusion.name}`)",
        span=span,
        code="PG506",
        help="remove one of the bindings, or end it before the other begins",
    )
