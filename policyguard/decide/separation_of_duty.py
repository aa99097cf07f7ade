"""Static separation of duty: nobody may hold roles that exclude each other (NIST RBAC, ANSI INCITS 359-2004, 6.3).

The one check for the loader, which sees the bindings of the documents, and for the engine, which sees those of
adapters too. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policyguard.errors import PolicyError
from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, Role
from policyguard.text import quoted_list
from policyguard.values import ALWAYS, NEVER, Span


def separation_errors(
    closed: Mapping[str, frozenset[str]],
    bindings: Sequence[Binding],
    roles: Sequence[Role],
    exclusions: Sequence[Exclusion],
    persons: Sequence[Person],
) -> Iterator[PolicyError]:
    """Yield a PG506 for each role that violates an exclusion by itself, and for each holder who does, per domain.

    Args:
        closed: each role and everything it inherits; bindings to roles that are not in it are skipped.
        bindings: who holds which role where and when.
        roles: the declared roles, for their spans.
        exclusions: the sets of roles that exclude each other.
        persons: the accounts of one person count together.
    """
    owner: dict[str, str] = {}
    for person in persons:
        for account in person.accounts:
            owner.setdefault(account, person.id)
    for exclusion in exclusions:
        excluded = frozenset(exclusion.roles)
        brings = {role: excluded & inherited for role, inherited in closed.items()}
        broken = {role for role, brought in brings.items() if len(brought) >= exclusion.limit}
        for role in roles:
            if role.name in broken:
                yield _error(f"role `{role.name}` contains", brings[role.name], "", exclusion, role.span)
        by_holder: dict[str, list[Binding]] = {}
        for binding in bindings:
            if brings.get(binding.role) and binding.role not in broken:
                by_holder.setdefault(owner.get(binding.subject, binding.subject), []).append(binding)
        for holder in sorted(by_holder):
            yield from _holder_errors(holder, by_holder[holder], brings, exclusion)


def _holder_errors(
    holder: str, bindings: Sequence[Binding], brings: Mapping[str, frozenset[str]], exclusion: Exclusion
) -> Iterator[PolicyError]:
    # INVARIANT I8: nobody holds roles that exclude each other, at any moment at which the bindings overlap. More
    # roles are held just after some binding begins than at any other time, so only those moments are checked.
    by_domain: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_domain.setdefault(binding.domain, []).append(binding)
    everywhere = by_domain.get(ANY_DOMAIN, [])
    reported: set[str] = set()
    checked: set[tuple[str, int]] = set()
    for binding in bindings:
        domain, (since, until) = binding.domain, _period(binding)
        # Many bindings begin together, most of them without a time: each moment is checked once.
        if since >= until or (domain, since) in checked:
            continue
        checked.add((domain, since))
        for checked_domain in sorted(by_domain) if domain == ANY_DOMAIN else (domain,):
            here = everywhere if checked_domain == ANY_DOMAIN else [*by_domain[checked_domain], *everywhere]
            held = frozenset[str]().union(*(brings[other.role] for other in here if _is_in_force(other, since)))
            if len(held) >= exclusion.limit and checked_domain not in reported and ANY_DOMAIN not in reported:
                reported.add(checked_domain)
                where = " in every domain" if checked_domain == ANY_DOMAIN else f" in domain `{checked_domain}`"
                yield _error(f"`{holder}` holds", held, where, exclusion, binding.span)


def _period(binding: Binding) -> tuple[int, int]:
    since = ALWAYS if binding.not_before is None else binding.not_before
    return since, NEVER if binding.expires is None else binding.expires


def _is_in_force(binding: Binding, at: int) -> bool:
    since, until = _period(binding)
    return since <= at < until


def _error(holds: str, roles: frozenset[str], where: str, exclusion: Exclusion, span: Span) -> PolicyError:
    return PolicyError(
        f"{holds} {quoted_list(sorted(roles))}{where}, "
        f"expected at most {exclusion.limit - 1} of them (`{exclusion.name}`)",
        span=span,
        code="PG506",
        help="remove one of the bindings, or end it before the other begins",
    )
