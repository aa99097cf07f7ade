"""The one front end: YAML texts to a policy set, with every error at once. Load, lint and the engine all come this way.

Pure: texts in, nouns out. `files.py` reads folders.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Any, TypeVar

from policyguard.errors import PolicyError, PolicyErrors
from policyguard.model.policy import BindingSource, PolicySet, Role, Schema
from policyguard.policy import people
from policyguard.policy.binder import Problems, claim
from policyguard.policy.conditions import check_conditions
from policyguard.policy.documents import Document, Kind, bind_document
from policyguard.policy.nodes import Mapping, walk
from policyguard.policy.reader import parse
from policyguard.policy.references import check_persons, check_references, check_roles, check_separation
from policyguard.policy.rules import Draft, bind_rule
from policyguard.policy.schema import bind_schema
from policyguard.values import FrozenMap, Span

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What one pass over the sources found.

    `policy_set` is None if there is any error; `draft` then still holds every noun that could be read, for lint.
    `documents` are in file order, `sources` as given, `errors` ordered by place.
    """

    policy_set: PolicySet | None
    draft: PolicySet | None
    errors: tuple[PolicyError, ...]
    documents: tuple[Document, ...]
    sources: MappingOf[str, bytes]

    def node_at(self, span: Span) -> Mapping | None:
        """Return the map that begins here: the node of a rule, binding, role or quorum, from its span."""
        nodes = (node for document in self.documents if document.file == span.file for node in walk(document.node))
        return next((node for node in nodes if isinstance(node, Mapping) and node.span == span), None)


def load(sources: MappingOf[str, bytes]) -> PolicySet:
    """Return the policy set that these files (name to bytes) spell, or raise `PolicyErrors` with every error."""
    analysis = analyse(sources)
    if analysis.policy_set is None:
        raise PolicyErrors(analysis.errors)
    return analysis.policy_set


def analyse(sources: MappingOf[str, bytes]) -> Analysis:
    """Return everything that can be said about these files; never raises on data."""
    errors: list[PolicyError] = []
    trees = [node for file in sorted(sources) for node in parse(sources[file], file, errors)]
    problems = Problems()
    documents = [document for node in trees if (document := bind_document(node, problems)) is not None]
    # A file that could not be read to its end may declare what looks undeclared: then references are not judged.
    complete = not errors and len(documents) == len(trees)
    draft = _Load(documents, problems, complete, {error.span.file for error in errors if error.span}).policy_set()
    if not sources:
        problems.add(Span("policies", 1, 1), "PG003", "found no files, expected at least a `Schema` and a `Policy`")
    found = _ordered([*errors, *problems.errors])
    return Analysis(
        policy_set=draft if not found else None,
        draft=draft,
        errors=found,
        documents=tuple(documents),
        sources=sources,
    )


def _ordered(errors: list[PolicyError]) -> tuple[PolicyError, ...]:
    unique = {(error.span, error.code, error.message): error for error in errors}
    return tuple(sorted(unique.values(), key=lambda error: (error.span or Span("", 0, 0), error.code, error.message)))


class _Load:
    """One load: documents of each kind in turn, later kinds seeing what earlier ones declared."""

    def __init__(self, documents: list[Document], problems: Problems, complete: bool, unread: set[str]) -> None:
        self.documents = documents
        self.problems = problems
        self.complete = complete
        self.unread = unread
        """The files in which the reader found an error."""

    def policy_set(self) -> PolicySet | None:
        """Return the nouns that could be read; None without a schema, for nothing has a meaning then."""
        schema, schema_is_sound = self.schema()
        roles = {role.name: role for role in self.unique("Roles", "roles", people.bind_role, "name", "role")}
        quorums = self.unique("Quorums", "quorums", people.bind_quorum, "id", "quorum")
        persons = self.unique("Persons", "persons", people.bind_person, "id", "person")
        exclusions = self.unique("Roles", "exclusive", people.bind_exclusion, "name", "exclusion")
        bindings = self.every("Bindings", "bindings", people.bind_binding)
        drafts = self.drafts(schema if schema_is_sound else None)
        if schema is None:
            return None
        rules = [draft.rule for draft in drafts]
        if schema_is_sound:
            rules = check_conditions(drafts, schema, self.problems)
        found = PolicySet(
            schema=schema,
            roles=tuple(roles.values()),
            exclusions=tuple(exclusions),
            bindings=tuple(bindings),
            persons=tuple(persons),
            rules=tuple(rules),
            quorums=tuple(quorums),
            trace_roles=tuple(
                sorted({name for document in self.of("Roles") for name, _ in document.fields.get("trace", ())})
            ),
            binding_sources=tuple(self.sources()),
            **self.about(),
        )
        self.across(found, roles)
        return found

    def of(self, kind: Kind) -> list[Document]:
        return [document for document in self.documents if document.kind == kind]

    def schema(self) -> tuple[Schema | None, bool]:
        """Return the schema and whether it is free of errors."""
        schemas = self.of("Schema")
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
        """Return whether an error has been found between this document's start and the next one's."""
        after = [other.span for other in self.documents if other.file == document.file and other.span > document.span]
        end = min(after, default=Span(document.file, 2**31, 1))
        return any(error.span is not None and document.span <= error.span < end for error in self.problems.errors)

    def every(self, kind: Kind, field: str, build: Any) -> list[Any]:
        """Return the nouns under one field of all documents of a kind."""
        found = []
        for document in self.of(kind):
            for (body, node), _ in document.fields.get(field, ()):
                noun = build(body, node, self.problems)
                if noun is not None:
                    found.append(noun)
        return found

    def unique(self, kind: Kind, field: str, build: Any, key: str, what: str) -> list[Any]:
        """Return the nouns under one field, each id once."""
        taken: dict[str, tuple[str, Span]] = {}
        found = []
        for noun in self.every(kind, field, build):
            if claim(getattr(noun, key), noun.span, taken, what, self.problems):
                found.append(noun)
        return found

    def drafts(self, schema: Schema | None) -> list[Draft]:
        """Return the rules of all documents, conditions not yet checked."""
        # INVARIANT I25: one id is one rule, so that no decision can name the wrong one.
        taken: dict[str, tuple[str, Span]] = {}
        found = []
        for document in self.of("Policy"):
            scope = document.fields.get("scope")
            for (body, node), _ in document.fields.get("rules", ()):
                draft = bind_rule(body, node, scope, document.owner, schema, self.problems)
                fresh = claim(body["id"], node, taken, "rule", self.problems) if "id" in body else False
                if draft is not None and fresh:
                    found.append(draft)
        if not self.of("Policy") and self.complete and self.documents:
            self.problems.add(self.documents[0].node, "PG003", "found no rules in any document, expected at least one")
        return found

    def sources(self) -> list[BindingSource]:
        found = []
        for document in self.of("Bindings"):
            if "source" in document.fields:
                body, node = document.fields["source"]
                source = people.bind_source(body, node, self.problems)
                found += [source] if source is not None else []
            elif "bindings" not in document.fields and not self.errors_in(document):
                self.problems.add(document.node, "PG003", "found neither `bindings` nor `source`, expected one")
        return found

    def about(self) -> dict[str, Any]:
        first = self.of("Schema")[0]
        known = {"name": first.name, "owner": first.owner, "description": first.description}
        metadata = FrozenMap({key: value for key, value in known.items() if value is not None})
        return {"epoch": first.epoch or 1, "metadata": metadata}

    def across(self, draft: PolicySet, roles: MappingOf[str, Role]) -> None:
        """Judge what only all documents together can tell."""
        person_of = check_persons(draft.persons, self.problems)
        if not self.complete:
            return
        closed = check_roles(roles, self.problems)
        quorums = {quorum.id for quorum in draft.quorums}
        check_references(self.documents, roles, quorums, draft.schema.subjects, self.problems)
        check_separation(draft.exclusions, draft.bindings, closed, person_of, roles, self.problems)
