"""Checks across documents: references are declared, and no account, key or address has two owners."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from policyguard.model.policy import Person
from policyguard.policy.documents import Document
from policyguard.policy.nodes import Node
from policyguard.policy.problems import Problems


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
    """Yield the references in a document as (what, name, node), including those of items with other errors."""
    for (body, node), _ in (*document.fields.get("rules", ()), *document.fields.get("bindings", ())):
        for field, what in (("role", "role"), ("quorum", "quorum")):
            if field in body:
                yield what, body[field], node.get(field)
        if "subject" in body:
            yield "subject type", body["subject"].partition(":")[0], node.get("subject")
        yield from (("role", name, at) for name, at in body.get("roles", ()))
        yield from (("subject type", ref.partition(":")[0], at) for ref, at in body.get("subjects", ()))
    for (body, _), _ in document.fields.get("persons", ()):
        yield from (("subject type", ref.partition(":")[0], at) for ref, at in body.get("accounts", ()))
    for (body, _), _ in document.fields.get("quorums", ()):
        for (group, _), _ in body.get("approvers", ()):
            yield from (("role", name, at) for name, at in group.get("roles", ()))
    if document.kind == "Roles":
        yield from (("role", name, at) for name, at in document.fields.get("trace", ()))
        for (body, _), _ in (*document.fields.get("roles", ()), *document.fields.get("exclusive", ())):
            yield from (("role", name, at) for field in ("inherits", "roles") for name, at in body.get(field, ()))


def check_persons(persons: Iterable[Person], problems: Problems) -> None:
    """Report each account, key or address that two persons share."""
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
