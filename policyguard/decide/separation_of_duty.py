"""Static separation of duty: nobody may hold roles that exclude each other (NIST RBAC, ANSI INCITS 359-2004, 6.3).

The only check, used by the loader for the bindings in documents and by the engine for those of adapters, too. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from policyguard.errors import PolicyError
from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, Role
from policyguard.text import quoted_list
from policyguard.values import ALWAYS, NEVER, Span

MAX_COMPARISONS = 200_000
"""For one holder and exclusion, the domains times the bindings in every domain; all pairs take about a second."""


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
    by_domain: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_domain.setdefault(binding.domain, []).append(binding)
    everywhere = by_domain.pop(ANY_DOMAIN, [])
    breach = _first_breach(everywhere, brings, exclusion.limit)
    if breach is not None:
        yield _error(f"`{holder}` holds", breach[1], " in every domain", exclusion, breach[0].span)
        return
    if len(by_domain) * len(everywhere) > MAX_COMPARISONS:
        yield PolicyError(
            f"`{holder}` has bindings in {len(by_domain)} domains and {len(everywhere)} in every domain, "
            f"expected at most {MAX_COMPARISONS} pairs of them for `{exclusion.name}`",
            span=everywhere[0].span,
            code="PG010",
            help="bind the roles in fewer domains, or in `*` with fewer periods",
        )
        return
    for domain in sorted(by_domain):
        breach = _first_breach([*by_domain[domain], *everywhere], brings, exclusion.limit)
        if breach is not None:
            yield _error(f"`{holder}` holds", breach[1], f" in domain `{domain}`", exclusion, breach[0].span)


def _first_breach(
    bindings: Sequence[Binding], brings: Mapping[str, frozenset[str]], limit: int
) -> tuple[Binding, frozenset[str]] | None:
    """Return the first moment at which these bindings give too many roles, and the roles held then."""
    # INVARIANT I8: nobody holds roles that exclude each other, at any moment at which the bindings overlap. More
    # roles are held just after some binding begins than at any other time, so only those moments are checked.
    begins: dict[int, list[Binding]] = {}
    ends: dict[int, list[Binding]] = {}
    for binding in bindings:
        since, until = _period(binding)
        if since < until:
            begins.setdefault(since, []).append(binding)
            ends.setdefault(until, []).append(binding)
    held: Counter[str] = Counter()
    for moment in sorted({*begins, *ends}):
        held.subtract(role for binding in ends.get(moment, ()) for role in brings[binding.role])
        held.update(role for binding in begins.get(moment, ()) for role in brings[binding.role])
        roles = frozenset(role for role, count in held.items() if count > 0)
        if len(roles) >= limit and moment in begins:
            return begins[moment][0], roles
    return None


def _period(binding: Binding) -> tuple[int, int]:
    since = ALWAYS if binding.not_before is None else binding.not_before
    return since, NEVER if binding.expires is None else binding.expires


def _error(holds: str, roles: frozenset[str], where: str, exclusion: Exclusion, span: Span) -> PolicyError:
    return PolicyError(
        f"{holds} {quoted_list(sorted(roles))}{where}, "
        f"expected at most {exclusion.limit - 1} of them (`{exclusion.name}`)",
        span=span,
        code="PG506",
        help="remove one of the bindings, or end it before the other begins",
    )
