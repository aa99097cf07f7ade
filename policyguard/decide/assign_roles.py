"""Builds role assignments from roles and bindings; checks inheritance, names and separation of duty. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from policyguard.decide.role_closure import close_roles
from policyguard.decide.role_grants import ROLE_PREFIX, RoleAssignments, Row
from policyguard.decide.separation_of_duty import separation_errors
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.model.ids import is_segment, ref_problem
from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, Role
from policyguard.text import quoted
from policyguard.values import ALWAYS, NEVER, NO_SPAN


def assign_roles(
    roles: Sequence[Role],
    bindings: Sequence[Binding],
    exclusions: Sequence[Exclusion] = (),
    persons: Sequence[Person] = (),
) -> RoleAssignments:
    """Compute who holds which role in which domain and when, inherited roles included.

    Args:
        roles: the declared roles.
        bindings: from documents and from adapters, every one of them.
        exclusions: the sets of roles that nobody may hold together.
        persons: the accounts of one person count together for separation of duty.

    Raises:
        PolicyErrors: PG006 a role twice, PG010 too many, PG501 a circle, PG502 a chain that is too long, PG503 an
            unknown role, PG506 separation of duty, PG510 a subject that is a role or no `type:id`.
    """
    # INVARIANT I6: a pure function; what it raises leaves assignments that were built before as they are.
    _raise_any([*_role_errors(roles), *_binding_errors(roles, bindings)])
    closed, errors = close_roles(roles)
    _raise_any(errors)
    _raise_any(separation_errors(closed, bindings, roles, exclusions, persons))
    return RoleAssignments.of({name: tuple(sorted(closed[name])) for name in sorted(closed)}, map(_row, bindings))


def _row(binding: Binding) -> Row:
    since = ALWAYS if binding.not_before is None else binding.not_before
    until = NEVER if binding.expires is None else binding.expires
    return binding.subject, binding.role, binding.domain, since, until


def _raise_any(errors: Iterable[PolicyError]) -> None:
    collected = sorted(errors, key=lambda error: error.span or NO_SPAN)
    if collected:
        raise PolicyErrors(collected)


def _role_errors(roles: Sequence[Role]) -> Iterator[PolicyError]:
    known: set[str] = set()
    for role in roles:
        if not is_segment(role.name):
            yield PolicyError(
                f"found the role name {role.name!r}, expected one segment of an id",
                span=role.span,
                code="PG011",
            )
        if role.name in known:
            yield PolicyError(f"role `{role.name}` is defined twice", span=role.span, code="PG006")
        known.add(role.name)
    for role in roles:
        for parent in role.inherits:
            if parent not in known:
                yield PolicyError(
                    f"role `{role.name}` inherits the unknown role `{parent}`", span=role.span, code="PG503"
                )


def _binding_errors(roles: Sequence[Role], bindings: Sequence[Binding]) -> Iterator[PolicyError]:
    known = {role.name for role in roles}
    for binding in bindings:
        if binding.role not in known:
            # Imported here, so that only an unknown role pays for it.
            from difflib import get_close_matches

            near = get_close_matches(binding.role[:200], sorted(known), n=1)
            yield PolicyError(
                f"found the unknown role `{binding.role}`, expected one that `Roles` defines",
                span=binding.span,
                code="PG503",
                help=f"did you mean `{near[0]}`?" if near else None,
            )
        # INVARIANT I6: subjects and roles live in namespaces of their own; nobody is named like a role.
        if ref_problem(binding.subject) is not None or binding.subject.startswith(ROLE_PREFIX):
            yield PolicyError(
                f"found the subject {quoted(binding.subject)}, expected `type:id` such as `user:alice`",
                span=binding.span,
                code="PG510",
            )
        if binding.domain != ANY_DOMAIN and not is_segment(binding.domain):
            yield PolicyError(
                f"found the domain {quoted(binding.domain)}, expected a name or `*`", span=binding.span, code="PG011"
            )
