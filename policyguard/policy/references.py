"""Checks across documents: role inheritance has no cycle, exclusive roles are separate, every reference is declared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Mapping as MappingOf

from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, Role
from policyguard.policy.binder import Problems
from policyguard.policy.documents import Document
from policyguard.policy.nodes import Node
from policyguard.text import quoted_list
from policyguard.values import Instant

MAX_ROLE_DEPTH = 64
"""Longer chains of inheritance are refused; casbin's own role manager silently stops at ten."""


def check_roles(roles: MappingOf[str, Role], problems: Problems) -> dict[str, frozenset[str]]:
    """Return each role's closure, itself included; report cycles and chains that are too long."""
    closed: dict[str, frozenset[str]] = {}
    depth: dict[str, int] = {}
    for name in roles:
        _close(name, roles, closed, depth, problems)
    return closed


def _close(
    start: str,
    roles: MappingOf[str, Role],
    closed: dict[str, frozenset[str]],
    depth: dict[str, int],
    problems: Problems,
) -> None:
    """Close one role over inheritance, depth first with an explicit stack, so that a long chain cannot overflow it."""
    path: list[str] = [start] if start not in closed else []
    on_path = set(path)
    while path:
        here = path[-1]
        parents = [parent for parent in roles[here].inherits if parent in roles]
        waiting = next((parent for parent in parents if parent not in closed and parent not in on_path), None)
        if waiting is not None:
            path.append(waiting)
            on_path.add(waiting)
            continue
        for parent in parents:
            if parent in on_path:
                # INVARIANT I24: a cycle of roles is refused, never silently cut.
                cycle = quoted_list((*path[path.index(parent) :][:8], parent), joiner=" -> ")
                problems.add(roles[here].span, "PG501", f"role `{here}` inherits itself: {cycle}")
        known = [parent for parent in parents if parent in closed]
        depth[here] = 1 + max((depth[parent] for parent in known), default=0)
        if depth[here] == MAX_ROLE_DEPTH + 1:
            problems.add(roles[here].span, "PG502", f"role `{here}` inherits over more than {MAX_ROLE_DEPTH} levels")
        # A chain that is too deep is not closed: the sets of ten thousand levels would exhaust the memory.
        held = (closed[parent] for parent in known if depth[here] <= MAX_ROLE_DEPTH)
        closed[here] = frozenset({here}).union(*held)
        on_path.discard(path.pop())


def check_references(
    documents: Iterable[Document],
    roles: Collection[str],
    quorums: Collection[str],
    subject_types: Collection[str] | None,
    problems: Problems,
) -> None:
    """Report every reference to a role, quorum or subject type that no document declares.

    Args:
        documents: all documents.
        roles: the declared roles.
        quorums: the declared quorums.
        subject_types: the declared subject types; None skips their check.
        problems: where errors are added.
    """
    declared = {"role": ("PG503", roles), "quorum": ("PG503", quorums), "subject type": ("PG102", subject_types)}
    for document in documents:
        for what, name, node in _references(document):
            code, names = declared[what]
            if names is not None and name not in names:
                problems.unknown(node, code, what, name, names)


def _references(document: Document) -> Iterator[tuple[str, str, Node]]:
    """Yield the references in a document as (what, name, node), also from nouns with other errors."""
    for (body, node), _ in (*document.fields.get("rules", ()), *document.fields.get("bindings", ())):
        for field, what in (("role", "role"), ("quorum", "quorum")):
            if field in body:
                yield what, body[field], node.get(field)
        if "subject" in body:
            yield "subject type", body["subject"].partition(":")[0], node.get("subject")
        yield from (("role", name, place) for name, place in body.get("roles", ()))
        yield from (("subject type", ref.partition(":")[0], place) for ref, place in body.get("subjects", ()))
    for (body, _), _ in document.fields.get("persons", ()):
        yield from (("subject type", ref.partition(":")[0], place) for ref, place in body.get("accounts", ()))
    for (body, _), _ in document.fields.get("quorums", ()):
        for (group, _), _ in body.get("approvers", ()):
            yield from (("role", name, place) for name, place in group.get("roles", ()))
    if document.kind == "Roles":
        yield from (("role", name, place) for name, place in document.fields.get("trace", ()))
        for (body, _), _ in (*document.fields.get("roles", ()), *document.fields.get("exclusive", ())):
            yield from (("role", name, place) for field in ("inherits", "roles") for name, place in body.get(field, ()))


def check_persons(persons: Iterable[Person], problems: Problems) -> dict[str, str]:
    """Return the person of each account; report each account, key or address that two persons share."""
    owner: dict[tuple[str, str], str] = {}
    for person in persons:
        marks = (("account", person.accounts), ("key", person.keys), ("e-mail address", person.emails))
        for what, things in marks:
            for thing in things:
                other = owner.setdefault((what, thing), person.id)
                if other != person.id:
                    problems.add(
                        person.span,
                        "PG510",
                        f"{what} `{thing}` belongs to `{other}` and to `{person.id}`, expected one person",
                    )
    return {thing: person for (what, thing), person in owner.items() if what == "account"}


def check_separation(
    exclusions: Iterable[Exclusion],
    bindings: Iterable[Binding],
    closed: MappingOf[str, frozenset[str]],
    person_of: MappingOf[str, str],
    roles: MappingOf[str, Role],
    problems: Problems,
) -> None:
    """Report each role and person that may hold exclusive roles at the same time in the same domain.

    This is static separation of duty (NIST RBAC). The accounts of one person count together, and a binding to every
    domain counts in each domain.

    Args:
        exclusions: the sets of exclusive roles.
        bindings: who holds which role where and when.
        closed: the closure of each role, from `check_roles`.
        person_of: the person of each account, from `check_persons`.
        roles: the declared roles, for their spans.
        problems: where errors are added.
    """
    # INVARIANT I29: nobody holds exclusive roles at the same time, through any account or inheritance.
    bindings = tuple(bindings)
    for exclusion in exclusions:
        excluded = frozenset(exclusion.roles)
        brings = {name: held & excluded for name, held in closed.items() if held & excluded}
        for name, held in brings.items():
            if len(held) >= exclusion.limit:
                words = f"role `{name}` holds {quoted_list(sorted(held))}, which `{exclusion.name}` keeps apart"
                problems.add(roles[name].span, "PG506", words)
        holders: dict[str, list[Binding]] = defaultdict(list)
        for binding in bindings:
            if binding.role in brings:
                holders[person_of.get(binding.subject, binding.subject)].append(binding)
        for holder, held_by in holders.items():
            _separate(holder, held_by, exclusion, brings, problems)


def _separate(
    holder: str,
    bindings: list[Binding],
    exclusion: Exclusion,
    brings: MappingOf[str, frozenset[str]],
    problems: Problems,
) -> None:
    """Report the first binding that completes an exclusive set; the set of held roles grows only when one begins."""
    if len(bindings) < 2:
        return
    domains = {binding.domain for binding in bindings if binding.domain != ANY_DOMAIN} or {ANY_DOMAIN}
    for domain in sorted(domains):
        here = [binding for binding in bindings if binding.domain in (domain, ANY_DOMAIN)]
        for binding in here:
            at = binding.not_before
            held = frozenset[str]().union(*(brings[other.role] for other in here if _in_force(other, at)))
            if len(held) >= exclusion.limit and not any(len(brings[b.role]) >= exclusion.limit for b in here):
                where = "every domain" if domain == ANY_DOMAIN else f"domain `{domain}`"
                problems.add(
                    binding.span,
                    "PG506",
                    f"`{holder}` would hold {quoted_list(sorted(held))} in {where}, "
                    f"which `{exclusion.name}` keeps apart",
                )
                return


def _in_force(binding: Binding, at: Instant | None) -> bool:
    """Return True if the binding is in force at an instant; None is the beginning of time."""
    if at is None:
        return binding.not_before is None
    return (binding.not_before is None or binding.not_before <= at) and (
        binding.expires is None or at < binding.expires
    )
