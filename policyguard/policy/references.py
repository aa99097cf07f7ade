"""What names mean across documents: roles form a finite graph, duties stay apart, every reference is declared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from collections.abc import Mapping as MappingOf

from policyguard.model.policy import ANY_DOMAIN, Binding, Exclusion, Person, PolicySet, Role
from policyguard.policy.binder import Problems
from policyguard.policy.nodes import Mapping, Node, Scalar, Sequence, walk
from policyguard.values import Instant, Span

MAX_ROLE_DEPTH = 64
"""Longer chains of inheritance are refused; casbin's own role manager silently stops at ten."""


def check_roles(roles: MappingOf[str, Role], places: Places) -> dict[str, frozenset[str]]:
    """Return each role with everything it holds, itself included; report unknown, cyclic and endless inheritance."""
    for role in roles.values():
        for parent in role.inherits:
            if parent not in roles:
                places.unknown(role.span, "inherits", "PG503", "role", parent, roles)
    closed: dict[str, frozenset[str]] = {}
    depth: dict[str, int] = {}
    for name in roles:
        _close(name, roles, closed, depth, places.problems)
    return closed


def _close(
    start: str, roles: MappingOf[str, Role], closed: dict[str, frozenset[str]], depth: dict[str, int],
    problems: Problems,
) -> None:  # fmt: skip
    """Close one role over inheritance, depth first with an explicit path, so that no chain is too long to judge."""
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
                # INVARIANT I24: a cycle of roles is refused, never cut somewhere in silence.
                cycle = " -> ".join(f"`{name}`" for name in (*path[path.index(parent) :][:8], parent))
                problems.add(roles[here].span, "PG501", f"role `{here}` inherits itself: {cycle}")
        known = [parent for parent in parents if parent in closed]
        closed[here] = frozenset({here}).union(*(closed[parent] for parent in known))
        depth[here] = 1 + max((depth[parent] for parent in known), default=0)
        if depth[here] == MAX_ROLE_DEPTH + 1:
            problems.add(roles[here].span, "PG502", f"role `{here}` inherits over more than {MAX_ROLE_DEPTH} levels")
        on_path.discard(path.pop())


def check_references(draft: PolicySet, roles: Collection[str], quorums: Collection[str], places: Places) -> None:
    """Report every reference to a role or quorum that no document declares."""
    named = [(rule.span, "roles", rule.roles) for rule in draft.rules if rule.roles]
    named += [(binding.span, "role", (binding.role,)) for binding in draft.bindings if binding.role not in roles]
    named += [(quorum.span, "roles", group.roles) for quorum in draft.quorums for group in quorum.approvers]
    named += [(exclusion.span, "roles", exclusion.roles) for exclusion in draft.exclusions]
    for span, field, names in named:
        for name in names:
            if name not in roles:
                places.unknown(span, field, "PG503", "role", name, roles)
    for rule in draft.rules:
        if rule.quorum is not None and rule.quorum not in quorums:
            places.unknown(rule.span, "quorum", "PG503", "quorum", rule.quorum, quorums)


def check_subject_types(draft: PolicySet, places: Places) -> None:
    """Report every account whose type the schema does not declare."""
    accounts = [(rule.span, "subjects", ref) for rule in draft.rules for ref in rule.subjects]
    accounts += [(binding.span, "subject", binding.subject) for binding in draft.bindings]
    accounts += [(person.span, "accounts", ref) for person in draft.persons for ref in person.accounts]
    types = draft.schema.subjects
    for span, field, ref in accounts:
        if ref[: ref.index(":")] not in types:
            places.unknown(span, field, "PG102", "subject type", ref.partition(":")[0], types, starts=ref)


class Places:
    """Where inside a noun a name stands; the index is built when the first error asks."""

    def __init__(self, documents: Iterable[Node], problems: Problems) -> None:
        self.documents = documents
        self.problems = problems
        self._by_span: dict[Span, Mapping] | None = None

    def node(self, span: Span) -> Mapping | None:
        """Return the map that begins here."""
        if self._by_span is None:
            every = [node for document in self.documents for node in walk(document) if isinstance(node, Mapping)]
            # A map in braces and the first map in it never begin at one place; a block map's first key is no map.
            self._by_span = {node.span: node for node in every}
        return self._by_span.get(span)

    def find(self, span: Span, field: str, name: str) -> Span:
        """Return the place of this text below this field of the noun, or of the noun itself."""
        noun = self.node(span)
        below = [noun] if noun is not None else []
        for node in (item for mapping in below for item in walk(mapping) if isinstance(item, Mapping)):
            under = node.get(field)
            scalars = under.items if isinstance(under, Sequence) else [under]
            for scalar in scalars:
                if isinstance(scalar, Scalar) and scalar.text == name:
                    return scalar.span
        return span

    def unknown(
        self, span: Span, field: str, code: str, what: str, name: str, known: Collection[str], *, starts: str = ""
    ) -> None:
        """Report an unknown name where it stands; `starts` is the whole text that holds it."""
        self.problems.unknown(self.find(span, field, starts or name), code, what, name, known)


def check_persons(persons: Iterable[Person], problems: Problems) -> dict[str, str]:
    """Return the person of each account; report an account, key or address that two persons share."""
    owner: dict[tuple[str, str], str] = {}
    for person in persons:
        marks = (("account", person.accounts), ("key", person.keys), ("e-mail address", person.emails))
        for what, things in marks:
            for thing in things:
                other = owner.setdefault((what, thing), person.id)
                if other != person.id:
                    problems.add(person.span, "PG510", f"{what} `{thing}` belongs to `{other}` and to `{person.id}`, "
                                 "expected one person")  # fmt: skip
    return {thing: person for (what, thing), person in owner.items() if what == "account"}


def check_separation(
    exclusions: Iterable[Exclusion], bindings: Iterable[Binding], closed: MappingOf[str, frozenset[str]],
    person_of: MappingOf[str, str], roles: MappingOf[str, Role], problems: Problems,
) -> None:  # fmt: skip
    """Report whoever may hold, at one time and in one domain, roles that exclude each other.

    This is static separation of duty (NIST RBAC). Accounts of one person count together, and a binding to every domain
    counts in each.
    """
    bindings = tuple(bindings)
    for exclusion in exclusions:
        excluded = frozenset(exclusion.roles)
        brings = {name: held & excluded for name, held in closed.items() if held & excluded}
        for name, held in brings.items():
            if len(held) >= exclusion.limit:
                words = f"role `{name}` holds {_listed(held)}, which `{exclusion.name}` keeps apart"
                problems.add(roles[name].span, "PG506", words)
        holders: dict[str, list[Binding]] = defaultdict(list)
        for binding in bindings:
            if binding.role in brings:
                holders[person_of.get(binding.subject, binding.subject)].append(binding)
        for holder, held_by in holders.items():
            _separate(holder, held_by, exclusion, brings, problems)


def _separate(
    holder: str, bindings: list[Binding], exclusion: Exclusion, brings: MappingOf[str, frozenset[str]],
    problems: Problems,
) -> None:  # fmt: skip
    """Report the first binding that completes a forbidden set: sets only grow where a window opens."""
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
                problems.add(binding.span, "PG506", f"`{holder}` would hold {_listed(held)} in {where}, which "
                             f"`{exclusion.name}` keeps apart")  # fmt: skip
                return


def _in_force(binding: Binding, at: Instant | None) -> bool:
    """Return whether the binding is in force at this instant; None is the beginning of time."""
    if at is None:
        return binding.not_before is None
    return (binding.not_before is None or binding.not_before <= at) and (
        binding.expires is None or at < binding.expires
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
