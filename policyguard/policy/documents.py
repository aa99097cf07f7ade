"""The common fields of every document (`apiVersion`, `kind`, `metadata`), and the fields that each kind adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from policyguard.policy import people, rules, schema, tests
from policyguard.policy.binder import Field, Table, bind, integer, nested, prose, raw, text
from policyguard.policy.nodes import Mapping, Node, Scalar
from policyguard.policy.problems import Problems
from policyguard.text import quoted, quoted_list
from policyguard.values import Span

API_VERSION = "policyguard/v1"

Kind = Literal["Schema", "Roles", "Bindings", "Persons", "Policy", "Quorums", "Tests", "Invariants"]

_METADATA = Table(
    "the metadata",
    Field("name", people.IDENTIFIER, required=True),
    Field("owner", prose),
    Field("description", prose),
    Field("epoch", integer(1)),
)
_EXTRA: dict[Kind, tuple[Field, ...]] = {
    "Schema": schema.FIELDS,
    "Roles": people.ROLES_FIELDS,
    "Bindings": people.BINDINGS_FIELDS,
    "Persons": people.PERSONS_FIELDS,
    "Policy": rules.POLICY_FIELDS,
    "Quorums": people.QUORUMS_FIELDS,
    "Tests": tests.TESTS_FIELDS,
    "Invariants": tests.INVARIANTS_FIELDS,
}
TABLES: dict[Kind, Table] = {
    kind: Table(
        f"kind `{kind}`",
        Field("apiVersion", raw),
        Field("kind", raw),
        Field("metadata", nested(_METADATA)),
        *extra,
    )
    for kind, extra in _EXTRA.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML document of a known kind: its syntax tree and its valid fields."""

    kind: Kind
    file: str
    node: Mapping
    name: str | None = None
    owner: str | None = None
    description: str | None = None
    epoch: int | None = None
    fields: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def span(self) -> Span:
        return self.node.span


def bind_document(node: Node, problems: Problems) -> Document | None:
    """Read one document; None if it is not a map or its kind is unknown."""
    if not isinstance(node, Mapping):
        what = "an empty document" if isinstance(node, Scalar) and not node.text else "no map"
        problems.add(node, "PG003", f"found {what}, expected a map with `apiVersion` and `kind`")
        return None
    _version(node, problems)
    kind = _kind(node, problems)
    if kind is None:
        return None
    fields = bind(node, TABLES[kind], problems) or {}
    metadata, metadata_node = fields.get("metadata", ({}, node))
    if "epoch" in metadata and kind != "Schema":
        problems.add(
            metadata_node.key("epoch"), "PG003", "found `epoch`, expected it only in the metadata of the `Schema`"
        )
    return Document(
        kind=kind,
        file=node.source.file,
        node=node,
        name=metadata.get("name"),
        owner=metadata.get("owner"),
        description=metadata.get("description"),
        epoch=metadata.get("epoch"),
        fields=fields,
    )


def _version(node: Mapping, problems: Problems) -> None:
    version = node.get("apiVersion")
    if version is None:
        problems.add(node, "PG007", f"`apiVersion` is missing, expected `apiVersion: {API_VERSION}`")
    elif not isinstance(version, Scalar):
        problems.add(version, "PG007", f"found no text as `apiVersion`, expected `{API_VERSION}`")
    elif version.text != API_VERSION:
        problems.add(version, "PG007", f"unknown version {quoted(version.text)}, expected `{API_VERSION}`")


def _kind(node: Mapping, problems: Problems) -> Kind | None:
    kind_node = node.get("kind")
    if kind_node is None:
        problems.add(node, "PG003", "`kind` is missing, expected one of " + quoted_list(TABLES))
        return None
    word = text(kind_node, problems)
    kind = next((kind for kind in TABLES if kind == word), None)
    if kind is None and word is not None and isinstance(kind_node, Scalar):
        problems.unknown(kind_node, "PG004", "kind", word, TABLES)
    return kind
