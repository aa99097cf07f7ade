"""The door to casbin: bindings from anywhere become rows of a `casbin.Model`, and its rows become `Grants`.

casbin carries the relation `g = _, _, _` and the seam to every adapter its users have. Its role manager is never asked:
it looks ten links deep, grows with each unknown name and races with reloads (hazards H11, H14 and H21, see
`docs/casbin.md`). The closure is computed here, once per snapshot, over the rows that the model holds. Nothing here
keeps state: a failed build raises, and whoever holds the last good grants still has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from casbin import Model

from policyguard.casbin_compat.adapters import adapter_for, bindings_from_adapter
from policyguard.decide.role_grants import ALWAYS, NAME, NEVER, REF, ROLE_PREFIX, Grants, Row
from policyguard.decide.separation_of_duty import exclusion_errors
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, Role
from policyguard.text import quoted, quoted_list
from policyguard.values import NO_SPAN, Span

__all__ = ["adapter_for", "bindings_from_adapter", "build_grants"]

ROLE_DEFINITION = "_, _, _"
"""subject, role, domain: casbin's RBAC with domains."""

MAX_INHERITANCE = 64
"""How many links a chain of roles may have. casbin stops after nine without a word; we stop the load."""

MAX_CLOSED_ROLES = 500_000
"""The sum over all roles of what they inherit: a graph that would fill memory stops the load."""


def build_grants(
    roles: Sequence[Role],
    bindings: Sequence[Binding],
    exclusions: Sequence[Exclusion] = (),
    persons: Sequence[Person] = (),
) -> Grants:
    """Return who holds what, inheritance followed; every row went into a `casbin.Model` and came out again.

    `persons` makes the accounts of one human count as one for separation of duty.

    Raises:
        PolicyErrors: PG006 a role twice, PG010 too many, PG501 a cycle, PG502 too deep, PG503 an unknown role,
            PG506 separation of duty, PG510 a subject that is a role or no `type:id`.
    """
    # INVARIANT I69: a pure function; what it raises leaves the grants that were built before as they are.
    _raise_any([*_role_errors(roles), *_binding_errors(roles, bindings)])
    model = _filled(roles, bindings)
    closed = _closed(model, roles)
    rows = list(_timed_rows(model, bindings))
    _raise_any(exclusion_errors(closed, rows, bindings, roles, exclusions, persons))
    return Grants.of(closed, rows)


def _raise_any(errors: Iterable[PolicyError]) -> None:
    found = sorted(errors, key=lambda error: error.span or NO_SPAN)
    if found:
        raise PolicyErrors(found)


def _role_errors(roles: Sequence[Role]) -> Iterator[PolicyError]:
    known: set[str] = set()
    for role in roles:
        if not NAME.fullmatch(role.name):
            yield PolicyError(
                f"found the role name {role.name!r}, expected no spaces or control characters",
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
            yield PolicyError(
                f"found the unknown role `{binding.role}`, expected one that `Roles` defines",
                span=binding.span,
                code="PG503",
            )
        # INVARIANT I63: subjects and roles live in namespaces of their own; nobody is named like a role.
        if not REF.fullmatch(binding.subject) or binding.subject.startswith(ROLE_PREFIX):
            yield PolicyError(
                f"found the subject {quoted(binding.subject)}, expected `type:id` such as `user:alice`",
                span=binding.span,
                code="PG510",
            )
        if not NAME.fullmatch(binding.domain):
            yield PolicyError(
                f"found the domain {quoted(binding.domain)}, expected a name or `*`", span=binding.span, code="PG011"
            )


def _filled(roles: Sequence[Role], bindings: Sequence[Binding]) -> Model:
    """Return a casbin model that holds inheritance (in domain `*`) and bindings, one row each, in order."""
    model = Model()
    model.add_def("g", "g", ROLE_DEFINITION)
    rows = [[ROLE_PREFIX + role.name, ROLE_PREFIX + parent, ANY_DOMAIN] for role in roles for parent in role.inherits]
    rows += [[binding.subject, ROLE_PREFIX + binding.role, binding.domain] for binding in bindings]
    # Rows are appended as lists: `Policy.add_policy` drops repetitions in silence and compares with every row before.
    model["g"]["g"].policy.extend(rows)
    if len(_rows(model)) != len(rows):
        raise AssertionError("casbin lost a row")  # INVARIANT I61: as many rows come out as went in.
    return model


def _rows(model: Model) -> list[list[str]]:
    rows: list[list[str]] = model["g"]["g"].policy
    return rows


def _timed_rows(model: Model, bindings: Sequence[Binding]) -> Iterator[Row]:
    held = (row for row in _rows(model) if not row[0].startswith(ROLE_PREFIX))
    for (subject, role, domain), binding in zip(held, bindings, strict=True):
        since = ALWAYS if binding.not_before is None else binding.not_before
        until = NEVER if binding.expires is None else binding.expires
        yield subject, role.removeprefix(ROLE_PREFIX), domain, since, until


def _closed(model: Model, roles: Sequence[Role]) -> dict[str, tuple[str, ...]]:
    """Return for each role itself and everything it inherits, sorted. No recursion: the depth is the author's."""
    parents: dict[str, list[str]] = {role.name: [] for role in roles}
    for child, parent, _ in _rows(model):
        if child.startswith(ROLE_PREFIX):
            parents[child.removeprefix(ROLE_PREFIX)].append(parent.removeprefix(ROLE_PREFIX))
    spans = {role.name: role.span for role in roles}
    closed: dict[str, frozenset[str]] = {}
    depth: dict[str, int] = {}
    total = 0
    for name in _parents_first(parents, spans):
        depth[name] = 1 + max((depth[parent] for parent in parents[name]), default=-1)
        # INVARIANT I60: inheritance is followed to its end, or the load stops.
        if depth[name] > MAX_INHERITANCE:
            raise PolicyErrors(
                [
                    PolicyError(
                        f"role `{name}` inherits over {depth[name]} links, expected at most {MAX_INHERITANCE}",
                        span=spans[name],
                        code="PG502",
                    )
                ]
            )
        closed[name] = frozenset((name,)).union(*(closed[parent] for parent in parents[name]))
        total += len(closed[name])
        if total > MAX_CLOSED_ROLES:
            raise PolicyErrors(
                [
                    PolicyError(
                        f"roles inherit each other more than {MAX_CLOSED_ROLES} times in all",
                        span=spans[name],
                        code="PG010",
                    )
                ]
            )
    return {name: tuple(sorted(closed[name])) for name in sorted(closed)}


def _parents_first(parents: Mapping[str, Sequence[str]], spans: Mapping[str, Span]) -> list[str]:
    waiting = {name: len(set(own)) for name, own in parents.items()}
    children: dict[str, list[str]] = {name: [] for name in parents}
    for name, own in parents.items():
        for parent in set(own):
            children[parent].append(name)
    order = [name for name, count in waiting.items() if not count]
    for name in order:
        for child in children[name]:
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    if len(order) != len(parents):
        left = {name for name, count in waiting.items() if count}
        cycle = _cycle(parents, left)
        # INVARIANT I64: a cycle of roles stops the load.
        raise PolicyErrors(
            [
                PolicyError(
                    f"roles inherit each other in a circle: {quoted_list(cycle, joiner=' > ')}",
                    span=spans[cycle[0]],
                    code="PG501",
                )
            ]
        )
    return order


def _cycle(parents: Mapping[str, Sequence[str]], left: set[str]) -> list[str]:
    """Return one circle among the roles that could not be ordered, starting and ending with its smallest name."""
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(parent for parent in parents[path[-1]] if parent in left))
    circle = path[path.index(path[-1]) : -1]
    first = circle.index(min(circle))
    return [*circle[first:], *circle[:first], circle[first]]
