"""Reads documents of `kind: Roles`, `Bindings`, `Persons` and `Quorums`; `references.py` checks their names.

The arguments of each `bind_...` function are the valid fields of a map, its node, and the `Problems` to add errors to.
"""

from __future__ import annotations

from typing import Any

from policyguard.model.facts import Assurance
from policyguard.model.ids import id_problem, is_type_name
from policyguard.model.policy import (
    REQUEST,
    Approvers,
    Binding,
    BindingSource,
    Exclusion,
    Person,
    Quorum,
    Role,
)
from policyguard.policy.binder import (
    Field,
    Table,
    boolean,
    choice,
    distinct,
    duration,
    instant,
    integer,
    listing,
    name,
    nested,
    prose,
    text,
)
from policyguard.policy.nodes import Mapping, Node
from policyguard.policy.problems import Problems
from policyguard.policy.schema import ASSURANCES
from policyguard.text import quoted

IDENTIFIER = name("a name", r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "team-lead")
domain = name("a domain", r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}|\*", "vision` or `*")
"""Kind: one domain (a team), or `"*"` for every one."""

one_domain = name("one domain", r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "vision")
"""Kind: one domain. A star is refused: a scope of `*` would not limit anything."""

WORK = "work"
"""The default of a quorum's `of`: the approvals are for the work (the source tree and the command)."""


def subject_ref(node: Node, problems: Problems) -> str | None:
    """Kind: `type:id` of a subject, in the grammar of ids that requests use."""
    return _literal_ref(node, problems, "a subject such as `user:alice`")


def resource_ref(node: Node, problems: Problems) -> str | None:
    """Kind: `type:id` of a resource, not a pattern."""
    return _literal_ref(node, problems, "a resource such as `job:team/vision/run-17`")


def _literal_ref(node: Node, problems: Problems, expected: str) -> str | None:
    ref = text(node, problems)
    if ref is None:
        return None
    kind, _, identifier = ref.partition(":")
    if not is_type_name(kind) or not identifier or any(character.isspace() for character in ref):
        problems.add(node, "PG003", f"found {quoted(ref)}, expected {expected}")
        return None
    problem = id_problem(identifier)
    if problem is not None:
        problems.add(node, "PG011", problem, "no request can have this id")
        return None
    return ref


_ROLE = Table(
    "a role",
    Field("name", IDENTIFIER, required=True),
    Field("inherits", listing(IDENTIFIER, minimum=0)),
    Field("description", prose),
)
_EXCLUSION = Table(
    "an exclusion",
    Field("name", IDENTIFIER, required=True),
    Field("roles", listing(IDENTIFIER, minimum=2), required=True),
    Field("limit", integer(2, 1000)),
    Field("description", prose),
)
ROLES_FIELDS = (
    Field("roles", listing(nested(_ROLE)), required=True),
    Field("exclusive", listing(nested(_EXCLUSION), minimum=0)),
    Field("trace", listing(IDENTIFIER, minimum=0)),
)

_BINDING = Table(
    "a binding",
    Field("subject", subject_ref, required=True),
    Field("role", IDENTIFIER, required=True),
    Field("domain", domain, required=True),
    Field("notBefore", instant),
    Field("expires", instant),
    Field("reason", prose),
)
_SOURCE = Table(
    "a binding source",
    Field("adapter", choice("adapter", ("csv", "sqlalchemy")), required=True),
    Field("path", text),
    Field("url", text),
)
BINDINGS_FIELDS = (Field("bindings", listing(nested(_BINDING), minimum=0)), Field("source", nested(_SOURCE)))

_PERSON = Table(
    "a person",
    Field("id", IDENTIFIER, required=True),
    Field("accounts", listing(subject_ref), required=True),
    Field("keys", listing(text, minimum=0)),
    Field("emails", listing(name("an e-mail address", r"[^\s@]+@[^\s@]+", "alice@lab.example"), minimum=0)),
    Field("description", prose),
)
PERSONS_FIELDS = (Field("persons", listing(nested(_PERSON)), required=True),)

_APPROVERS = Table(
    "approvers",
    Field("count", integer(1, 100), required=True),
    Field("roles", listing(IDENTIFIER), required=True),
    Field("domain", domain),
)
_QUORUM = Table(
    "a quorum",
    Field("id", IDENTIFIER, required=True),
    Field("approvers", listing(nested(_APPROVERS)), required=True),
    Field("maxAge", duration),
    Field("assurance", choice("assurance", ASSURANCES)),
    Field("of", choice("what is approved", (WORK, REQUEST))),
    Field("once", boolean),
    Field("description", prose),
)
QUORUMS_FIELDS = (Field("quorums", listing(nested(_QUORUM)), required=True),)


def bind_role(body: dict[str, Any], node: Node, problems: Problems) -> Role | None:
    """Build a role; None if it has no name.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    if "name" not in body:
        return None
    inherits = distinct(body.get("inherits"), "role", problems)
    return Role(name=body["name"], inherits=inherits, description=body.get("description"), span=node.span)


def bind_exclusion(body: dict[str, Any], node: Node, problems: Problems) -> Exclusion | None:
    """Build an exclusion; None if a required field is wrong.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    if not {"name", "roles"} <= body.keys():
        return None
    roles, limit = distinct(body["roles"], "role", problems), body.get("limit", 2)
    if limit > len(roles):
        problems.add(node, "PG003", f"`limit` is {limit} of {len(roles)} roles, which nobody can break")
    return Exclusion(name=body["name"], roles=roles, limit=limit, span=node.span)


def bind_binding(body: dict[str, Any], node: Node, problems: Problems) -> Binding | None:
    """Build a binding; None if a required field is wrong.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    if not {"subject", "role", "domain"} <= body.keys() or not window(body, node, problems):
        return None
    return Binding(
        subject=body["subject"],
        role=body["role"],
        domain=body["domain"],
        not_before=body.get("notBefore"),
        expires=body.get("expires"),
        reason=body.get("reason"),
        span=node.span,
    )


def window(body: dict[str, Any], node: Node, problems: Problems) -> bool:
    """Return True if `notBefore` is before `expires` or one is absent; otherwise report it.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    start, end = body.get("notBefore"), body.get("expires")
    if start is None or end is None or start < end:
        return True
    expires_node = node.key("expires") if isinstance(node, Mapping) else None
    problems.add(expires_node or node, "PG601", "`expires` is not after `notBefore`, so this is never in force")
    return False


def bind_source(body: dict[str, Any], node: Node, problems: Problems) -> BindingSource | None:
    """Build a binding source; None if a field is wrong.

    `csv` requires a relative `path`, `sqlalchemy` a `url`.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    if "adapter" not in body:
        return None
    needed, other = ("path", "url") if body["adapter"] == "csv" else ("url", "path")
    if other in body or needed not in body:
        problems.add(node, "PG003", f"adapter `{body['adapter']}` takes `{needed}`, and nothing else")
        return None
    location = body[needed]
    if needed == "path" and (location.startswith(("/", "\\")) or ".." in location.replace("\\", "/").split("/")):
        problems.add(node, "PG003", f"found the path {quoted(location)}, expected one inside the policy folder")
        return None
    return BindingSource(adapter=body["adapter"], location=location, span=node.span)


def bind_person(body: dict[str, Any], node: Node, problems: Problems) -> Person | None:
    """Build a person; None if a required field is wrong.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    if not {"id", "accounts"} <= body.keys():
        return None
    return Person(
        id=body["id"],
        accounts=distinct(body["accounts"], "account", problems),
        keys=distinct(body.get("keys"), "key", problems),
        emails=distinct(body.get("emails"), "e-mail address", problems),
        span=node.span,
    )


def bind_quorum(body: dict[str, Any], node: Node, problems: Problems) -> Quorum | None:
    """Build a quorum; None if a required field is wrong.

    Args:
        body: its valid fields.
        node: the node in the policy file.
        problems: where errors are added.
    """
    if not {"id", "approvers"} <= body.keys():
        return None
    groups = [_approvers(group, problems) for (group, _), _ in body["approvers"]]
    return Quorum(
        id=body["id"],
        approvers=tuple(group for group in groups if group is not None),
        max_age_s=body.get("maxAge"),
        assurance=ASSURANCES[body.get("assurance", Assurance.ATTESTED.word)],
        of=REQUEST if body.get("of") == REQUEST else None,
        once=True if body.get("once") else None,
        description=body.get("description"),
        span=node.span,
    )


def _approvers(body: dict[str, Any], problems: Problems) -> Approvers | None:
    if not {"count", "roles"} <= body.keys():
        return None
    return Approvers(count=body["count"], roles=distinct(body["roles"], "role", problems), domain=body.get("domain"))
