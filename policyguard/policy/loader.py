"""Loads YAML texts as a policy set and reports every error at once; shared by the engine and lint.

Pure: texts in, values out. `files.py` reads folders.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Any

from policyguard.decide.role_closure import close_roles
from policyguard.decide.separation_of_duty import separation_errors
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.model.policy import BindingSource, PolicySet, Role, Schema
from policyguard.policy import people
from policyguard.policy.conditions import check_conditions
from policyguard.policy.documents import Document, Kind, bind_document
from policyguard.policy.nodes import Node
from policyguard.policy.problems import FirstUses, Problems, register_id
from policyguard.policy.reader import MAX_DOCUMENTS, parse
from policyguard.policy.references import check_persons, check_references
from policyguard.policy.rules import Draft, bind_rule
from policyguard.policy.schema import bind_schema
from policyguard.values import FrozenMap, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The result of reading a policy folder: what is valid, and every error.

    `policy_set` is None if there is any error; `draft` then still has every noun that is valid, for lint. `documents`
    are in file order, `errors` are ordered by span, `sources` is the input.
    """

    policy_set: PolicySet | None
    draft: PolicySet | None
    errors: tuple[PolicyError, ...]
    documents: tuple[Document, ...]
    sources: MappingOf[str, bytes]


def load(sources: MappingOf[str, bytes]) -> PolicySet:
    """Load the policy set from files (name to bytes).

    Raises:
        PolicyErrors: the policies have errors; all of them are included.
    """
    analysis = analyse(sources)
    if analysis.policy_set is None:
        raise PolicyErrors(analysis.errors)
    return analysis.policy_set


def analyse(sources: MappingOf[str, bytes]) -> Analysis:
    """Read files (name to bytes) as far as possible and collect every error; never raises on bad data."""
    errors: list[PolicyError] = []
    trees = _trees(sources, errors)
    problems = Problems()
    documents = [document for node in trees if (document := bind_document(node, problems)) is not None]
    # The missing part of a file with syntax errors may declare a name, so unknown references are then not reported.
    complete = not errors and len(documents) == len(trees)
    draft = _Load(documents, problems, complete, {error.span.file for error in errors if error.span}).policy_set()
    if not sources:
        problems.add(Span("policies", 1, 1), "PG003", "found no files, expected at least a `Schema` and a `Policy`")
    ordered = _ordered([*errors, *problems.errors])
    return Analysis(
        policy_set=draft if not ordered else None,
        draft=draft,
        errors=ordered,
        documents=tuple(documents),
        sources=sources,
    )


def _trees(sources: MappingOf[str, bytes], errors: list[PolicyError]) -> list[Node]:
    trees: list[Node] = []
    for file in sorted(sources):
        trees += parse(sources[file], file, errors)
        # INVARIANT I6: before the documents of further files are read.
        if len(trees) > MAX_DOCUMENTS:
            message = f"found more than {MAX_DOCUMENTS} documents in all files up to this one"
            help = "one document may hold many roles, bindings or rules"
            errors.append(PolicyError(message, span=Span(file, 1, 1), code="PG010", help=help))
            break
    return trees


def _ordered(errors: list[PolicyError]) -> tuple[PolicyError, ...]:
    distinct = {(error.span, error.code, error.message): error for error in errors}
    return tuple(sorted(distinct.values(), key=lambda error: (error.span or Span("", 0, 0), error.code, error.message)))


class _Load:
    """Reads the documents of one load, kind by kind; later kinds use the declarations of earlier ones."""

    def __init__(self, documents: list[Document], problems: Problems, complete: bool, unread: set[str]) -> None:
        self.documents = documents
        self.problems = problems
        self.complete = complete
        self.unread = unread
        """The files in which the reader reported an error."""

    def policy_set(self) -> PolicySet | None:
        """Build the policy set from everything valid; None without a schema, since no name has a meaning then."""
        schema, schema_is_sound = self.schema()
        roles = {role.name: role for role in self.read_unique("Roles", "roles", people.bind_role, "name", "role")}
        quorums = self.read_unique("Quorums", "quorums", people.bind_quorum, "id", "quorum")
        persons = self.read_unique("Persons", "persons", people.bind_person, "id", "person")
        exclusions = self.read_unique("Roles", "exclusive", people.bind_exclusion, "name", "exclusion")
        bindings = self.read_all("Bindings", "bindings", people.bind_binding)
        drafts = self.drafts(schema if schema_is_sound else None)
        if schema is None:
            return None
        rules = [draft.rule for draft in drafts]
        if schema_is_sound:
            rules = check_conditions(drafts, schema, self.problems)
        draft = PolicySet(
            schema=schema,
            roles=tuple(roles.values()),
            exclusions=tuple(exclusions),
            bindings=tuple(bindings),
            persons=tuple(persons),
            rules=tuple(rules),
            quorums=tuple(quorums),
            trace_roles=tuple(
                sorted(
                    {name for document in self.documents_of("Roles") for name, _ in document.fields.get("trace", ())}
                )
            ),
            binding_sources=tuple(self.sources()),
            **self.metadata(),
        )
        self.check_cross_references(draft, roles)
        return draft

    def documents_of(self, kind: Kind) -> list[Document]:
        return [document for document in self.documents if document.kind == kind]

    def schema(self) -> tuple[Schema | None, bool]:
        """Build the schema; return it and True if it has no errors."""
        schemas = self.documents_of("Schema")
        first_error = len(self.problems.errors)
        for other in schemas[1:]:
            self.problems.add(
                other.node, "PG006", f"found a second `Schema`, expected one; the first is at {schemas[0].span}"
            )
        if not schemas:
            if self.complete:
                at = Span(self.documents[0].file, 1, 1) if self.documents else Span("policies", 1, 1)
                self.problems.add(at, "PG003", "found no `Schema`, expected one: nothing can be checked without it")
            return None, False
        schema = bind_schema(schemas[0].fields, schemas[0].node, self.problems)
        sound = len(self.problems.errors) == first_error and not self.errors_in(schemas[0])
        return schema, sound and schemas[0].file not in self.unread

    def errors_in(self, document: Document) -> bool:
        """Return True if an error was reported inside this document."""
        after = [other.span for other in self.documents if other.file == document.file and other.span > document.span]
        end = min(after, default=Span(document.file, 2**31, 1))
        return any(error.span is not None and document.span <= error.span < end for error in self.problems.errors)

    def read_all(self, kind: Kind, field: str, build: Any) -> list[Any]:
        """Build the items in one field of all documents of a kind."""
        nouns = []
        for document in self.documents_of(kind):
            for (body, node), _ in document.fields.get(field, ()):
                noun = build(body, node, self.problems)
                if noun is not None:
                    nouns.append(noun)
        return nouns

    def read_unique(self, kind: Kind, field: str, build: Any, key: str, what: str) -> list[Any]:
        """Build the items in one field; report and drop those with a duplicate id."""
        first_uses: FirstUses = {}
        return [
            noun
            for noun in self.read_all(kind, field, build)
            if register_id(getattr(noun, key), noun.span, first_uses, what, self.problems)
        ]

    def drafts(self, schema: Schema | None) -> list[Draft]:
        """Build the rules of all documents; their conditions are not checked yet."""
        # INVARIANT I6: one id is one rule, so that no decision can name the wrong one.
        first_uses: FirstUses = {}
        drafts = []
        for document in self.documents_of("Policy"):
            scope = document.fields.get("scope")
            for (body, node), _ in document.fields.get("rules", ()):
                draft = bind_rule(body, node, scope, document.owner, schema, self.problems)
                is_new = register_id(body["id"], node, first_uses, "rule", self.problems) if "id" in body else False
                if draft is not None and is_new:
                    drafts.append(draft)
        if not self.documents_of("Policy") and self.complete and self.documents:
            self.problems.add(self.documents[0].node, "PG003", "found no rules in any document, expected at least one")
        return drafts

    def sources(self) -> list[BindingSource]:
        sources = []
        for document in self.documents_of("Bindings"):
            if "source" in document.fields:
                body, node = document.fields["source"]
                source = people.bind_source(body, node, self.problems)
                sources += [source] if source is not None else []
            elif "bindings" not in document.fields and not self.errors_in(document):
                self.problems.add(document.node, "PG003", "found neither `bindings` nor `source`, expected one")
        return sources

    def metadata(self) -> dict[str, Any]:
        first = self.documents_of("Schema")[0]
        fields = {"name": first.name, "owner": first.owner, "description": first.description}
        metadata = FrozenMap({key: value for key, value in fields.items() if value is not None})
        return {"epoch": first.epoch or 1, "metadata": metadata}

    def check_cross_references(self, draft: PolicySet, roles: MappingOf[str, Role]) -> None:
        """Check across documents: persons, role inheritance, references, separation of duty."""
        check_persons(draft.persons, self.problems)
        if not self.complete:
            return
        closed, errors = close_roles(tuple(roles.values()))
        self.problems.errors += errors
        quorums = {quorum.id for quorum in draft.quorums}
        check_references(self.documents, roles, quorums, draft.schema.subjects, self.problems)
        self.problems.errors += separation_errors(
            closed, draft.bindings, tuple(roles.values()), draft.exclusions, draft.persons
        )
