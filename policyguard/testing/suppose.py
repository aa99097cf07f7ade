"""A request with what somebody supposes about it: facts, roles, approvals. For `explain`; nothing is measured. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import structs

from policyguard.errors import PolicyErrors, RequestError
from policyguard.model.facts import Approval, Assurance, Fact, Facts, claims
from policyguard.model.policy import Binding, PolicySet, Schema, ValueType
from policyguard.model.request import Request
from policyguard.policy.nodes import Mapping as MapNode
from policyguard.policy.problems import Problems, nearest, one_of
from policyguard.policy.reader import read
from policyguard.policy.schema import ASSURANCES
from policyguard.testing.facts import FactReader, supposed_approval
from policyguard.text import printable, quoted
from policyguard.values import FrozenMap, Instant, Span, Value

SOURCE = "supposed"
"""What an explanation names as the source of a supposed fact."""

_ENTITIES = ("resource", "subject", "context")
_FACT = re.compile(r"(?P<path>[a-z_]+\.[a-z0-9_]+)(?P<member>(?:\.[a-z0-9_]+)*)=(?P<value>.+)")


class Supposition(msgspec.Struct, frozen=True, kw_only=True):
    """What is supposed, as somebody wrote it.

    `facts` are `PATH=VALUE` or `PATH=VALUE@ASSURANCE`, where a path may go on to a member of a record; `documents` map
    names of files to YAML maps of facts; `roles` are `ROLE@DOMAIN`, in place of the subject's own; `approvers` and
    `contributors` are accounts.
    """

    facts: tuple[str, ...] = ()
    documents: Mapping[str, bytes] = {}
    roles: tuple[str, ...] = ()
    approvers: tuple[str, ...] = ()
    contributors: tuple[str, ...] = ()

    def signed(self, now: Instant) -> tuple[Approval, ...]:
        """Return the approvals as if they had just been signed."""
        return tuple(supposed_approval(account, now, SOURCE) for account in self.approvers)


def supposed_facts(request: Request, schema: Schema, supposed: Supposition, now: Instant) -> Facts:
    """Build the facts of a request as they are supposed; contributors are the subject alone unless given.

    Args:
        request: what is asked; its own properties stay claims.
        schema: declares which facts there are.
        supposed, now: what is supposed, and the time of it.

    Raises:
        PolicyErrors, RequestError: as `supposed_entries`.
    """
    return Facts(
        request,
        supposed_entries(request, schema, supposed, now)[0],
        approvals=supposed.signed(now),
        contributors=supposed.contributors or (request.subject.ref,),
    )


def supposed_entries(
    request: Request, schema: Schema, supposed: Supposition, now: Instant
) -> tuple[dict[str, Fact], frozenset[tuple[str, ...]]]:
    """Read what is supposed; a fact without an assurance gets the lowest that the schema accepts.

    Args:
        request: what is asked; its own properties are claims.
        schema: declares which facts there are.
        supposed, now: what is supposed, and the time of it.

    Returns:
        The facts by path; and the paths that are known by them, where only some members of a record may be.

    Raises:
        PolicyErrors: a fact is not of the schema, or malformed; all of them are included.
        RequestError: a fact has another form.
    """
    problems = Problems()
    entries = claims(request, now)
    members: set[tuple[str, ...]] = set()
    if supposed.facts or supposed.documents:
        _check_types(request, schema, problems)
        reader = FactReader(schema, problems, SOURCE)
        for name, data in supposed.documents.items():
            _add_document(reader, entries, request, name, data, now)
        members = {_add_text(reader, entries, request, schema, text, now) for text in supposed.facts}
    if problems.errors:
        raise PolicyErrors(problems.errors)
    partial = {path[:2] for path in members if len(path) > 2}
    return entries, frozenset(members | ({tuple(path.split(".")) for path in entries} - partial))


def with_roles(policies: PolicySet, subject: str, roles: Sequence[str]) -> PolicySet:
    """Replace the bindings of a subject.

    Args:
        policies: the policy set; the bindings of others stay.
        subject: whose bindings are replaced, `type:id`.
        roles: its roles, `ROLE@DOMAIN` each.

    Raises:
        RequestError: a role has another form.
    """
    supposed = []
    for text in roles:
        role, at, domain = text.rpartition("@")
        if not (role and at and domain):
            raise RequestError(
                f"found {quoted(text)}, expected ROLE@DOMAIN such as `intern@vision`, or `ROLE@*`", path="--role"
            )
        supposed.append(
            Binding(subject=subject, role=role, domain=domain, span=Span(f"--role {printable(text)}", 1, 1))
        )
    others = (binding for binding in policies.bindings if binding.subject != subject)
    return structs.replace(policies, bindings=(*others, *supposed))


def _check_types(request: Request, schema: Schema, problems: Problems) -> None:
    """Check that the schema has the types that the facts are about."""
    at = Span("request", 1, 1)
    for what, type_, known in (
        ("subject type", request.subject.type, schema.subjects),
        ("resource type", request.resource.type, schema.resources),
    ):
        if type_ not in known:
            problems.unknown(at, "PG102", what, type_, known)
    if problems.errors:
        raise PolicyErrors(problems.errors)


def _add_document(
    reader: FactReader, entries: dict[str, Fact], request: Request, name: str, data: bytes, now: Instant
) -> None:
    documents = read(data, name)
    if len(documents) != 1 or not isinstance(documents[0], MapNode):
        raise RequestError("found no map, expected one YAML map such as `resource.gpus: 8`", path=name)
    for key, node in documents[0].entries:
        reader.add(entries, request, key.text, key, node, now)


def _add_text(
    reader: FactReader, entries: dict[str, Fact], request: Request, schema: Schema, text: str, now: Instant
) -> tuple[str, ...]:
    """Add a fact, and return the path that is known by it."""
    match = _FACT.fullmatch(text)
    if match is None:
        raise RequestError(
            f"found {quoted(text)}, expected PATH=VALUE or PATH=VALUE@ASSURANCE, such as `resource.gpus=8@measured`",
            path="--fact",
        )
    value, assurance = _with_assurance(match["value"])
    path, members = match["path"], match["member"].split(".")[1:]
    for member in reversed(members):
        value = f"{{{member}: {value}}}"
    added: dict[str, Fact] = {}
    _check_owner(reader, request, path)
    _add_document(reader, added, request, f"--fact {path}{match['member']}", f"{path}: {value}".encode(), now)
    for name, fact in added.items():
        known = reader.attributes(request, name.partition(".")[0])[name.partition(".")[2]].type
        _check_members(members, known, schema, text)
        earlier = entries.get(name) if members else None
        if earlier is not None and earlier.source == SOURCE:
            fact = structs.replace(fact, value=_merge(earlier.value, fact.value), assurance=earlier.assurance)
        entries[name] = fact if assurance is None else structs.replace(fact, assurance=assurance)
    return (*path.split("."), *members)


def _check_owner(reader: FactReader, request: Request, path: str) -> None:
    """Refuse a path that lacks `resource.`, `subject.` or `context.` before it."""
    owner, _, name = path.partition(".")
    near = next((entity for entity in _ENTITIES if owner in reader.attributes(request, entity)), None)
    if owner not in _ENTITIES and near is not None:
        raise RequestError(
            f"found {quoted(path)}, expected `{near}.{owner}.{name}`",
            path="--fact",
            help="a path begins with `resource.`, `subject.` or `context.`",
        )


def _with_assurance(text: str) -> tuple[str, Assurance | None]:
    """Take the assurance off a value; what follows an `@` and is none belongs to the value."""
    value, at, word = text.rpartition("@")
    if not at:
        return text, None
    near = nearest(word, ASSURANCES) if word.isalpha() else None
    if word not in ASSURANCES and near is not None:
        raise RequestError(
            f"found the assurance {quoted(word)}, expected {one_of(list(ASSURANCES), near)}",
            path="--fact",
            help=f'did you mean `@{near}`? A value with an `@` is text in quotes: `"{printable(text)}"`',
        )
    return (value, ASSURANCES[word]) if word in ASSURANCES else (text, None)


def _check_members(members: Sequence[str], type_: ValueType, schema: Schema, text: str) -> None:
    """Check that each member is one of the record before it."""
    for member in members:
        known = schema.records.get(type_.record or "", {})
        if member not in known:
            near = nearest(member, known)
            expected = one_of(sorted(known), near) if known else "a path that ends before it"
            raise RequestError(f"unknown member `{member}`, expected {expected}", path=f"--fact {text}")
        type_ = known[member].type


def _merge(first: Value, second: Value) -> Value:
    """Add the members of the second record to the first, and those of records in them."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    common = {name: _merge(first[name], second[name]) for name in second if name in first}
    return FrozenMap({**first, **second, **common})
