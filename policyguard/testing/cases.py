"""Documents of `kind: Tests` as cases: a request, its facts, and what is expected of the decision. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from policyguard.errors import PolicyError
from policyguard.model.facts import Fact, Facts
from policyguard.model.policy import Schema
from policyguard.model.request import Entity, Request
from policyguard.policy.documents import Document
from policyguard.policy.loader import Analysis
from policyguard.policy.nodes import Mapping as MapNode
from policyguard.policy.nodes import Node
from policyguard.policy.problems import Problems
from policyguard.testing.facts import FactReader, supposed_approval
from policyguard.values import Instant, Span, parse_instant

DEFAULT_NOW = parse_instant("2030-01-01T00:00:00Z")
"""The time of a case that names none; tests never depend on today's date."""

NOT_ALLOWED = "not allow"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `expect` is allow, deny or needs-approval, or "not allow" for an action that a matrix does not list.

    `skip` says why it is not run, None if it is.
    """

    name: str
    span: Span
    facts: Facts
    now: Instant
    expect: str
    reason: str | None = None
    obligations: tuple[str, ...] = ()
    skip: str | None = None


def read_cases(analysis: Analysis) -> tuple[list[Case], list[PolicyError]]:
    """Read the cases of all test documents, and every error in them: an unknown fact, action, subject or type.

    Args:
        analysis: policies without errors, and their documents.
    """
    if analysis.policy_set is None:
        return [], list(analysis.errors)
    problems = Problems()
    cases: list[Case] = []
    for document in analysis.documents:
        if document.kind == "Tests":
            cases += _Tests(document, analysis.policy_set.schema, problems).cases()
    return cases, problems.errors


class _Tests:
    """One document."""

    def __init__(self, document: Document, schema: Schema, problems: Problems) -> None:
        self._document, self._schema, self._problems = document, schema, problems
        self._reader = FactReader(schema, problems)
        self._now: Instant = document.fields.get("now", DEFAULT_NOW)
        self._named = {name: entries for name, _, entries in document.fields.get("facts", ())}

    def cases(self) -> Iterator[Case]:
        fields = self._document.fields
        if not fields.get("cases") and not fields.get("matrix"):
            self._problems.add(self._document.node, "PG003", "found no tests, expected `cases` or a `matrix`")
        for (body, node), _ in fields.get("cases", ()):
            case = self._case(body, node)
            if case is not None:
                yield case
        for (body, node), _ in fields.get("matrix", ()):
            yield from self._row(body, node)

    def _case(self, body: dict[str, Any], node: Node) -> Case | None:
        if "request" not in body or "expect" not in body:
            return None
        fields, at = body["request"]
        request = self._request(fields.get("subject", ""), fields.get("action", ""), fields.get("resource", ""), at)
        if request is None:
            return None
        now = body.get("now", self._now)
        facts = self._facts(request, body, now)
        return Case(
            name=body.get("name", request.resource.ref),
            span=node.span,
            facts=facts,
            now=now,
            expect=body["expect"],
            reason=body.get("reason"),
            obligations=tuple(sorted(value for value, _ in body.get("obligations", ()))),
            skip=body.get("skip"),
        )

    def _row(self, body: dict[str, Any], node: Node) -> Iterator[Case]:
        """Yield a case for each action of the row's resource type; those not listed must be denied."""
        subject, resource = body.get("subject", ""), body.get("resource", "")
        allowed = dict(body.get("allow", ()))
        kind = self._schema.resources.get(resource.partition(":")[0])
        if kind is None:
            self._request(subject, "", resource, node)
            return
        for action, at in allowed.items():
            if action not in kind.actions:
                self._problems.unknown(at, "PG101", "action", action, kind.actions)
        for action in kind.actions:
            request = self._request(subject, action, resource, node)
            if request is not None:
                yield Case(
                    name=f"{subject} {action} {resource}",
                    span=node.span,
                    facts=self._facts(request, body, self._now),
                    now=self._now,
                    expect="allow" if action in allowed else NOT_ALLOWED,
                    skip=body.get("skip"),
                )

    def _request(self, subject: str, action: str, resource: str, at: Node) -> Request | None:
        """Build a request whose types and action the schema has."""
        subjects, resources = self._schema.subjects, self._schema.resources
        subject_type, _, subject_id = subject.partition(":")
        resource_type, _, resource_id = resource.partition(":")
        before = len(self._problems.errors)
        if subject_type not in subjects:
            self._problems.unknown(_part(at, "subject"), "PG102", "subject type", subject_type, subjects)
        if resource_type not in resources:
            self._problems.unknown(_part(at, "resource"), "PG102", "resource type", resource_type, resources)
        elif action and action not in resources[resource_type].actions:
            known = resources[resource_type].actions
            self._problems.unknown(_part(at, "action"), "PG101", "action", action, known)
        if len(self._problems.errors) > before or not action:
            return None
        return Request(Entity(subject_type, subject_id), action, Entity(resource_type, resource_id))

    def _facts(self, request: Request, body: dict[str, Any], now: Instant) -> Facts:
        entries: dict[str, Fact] = {}
        for name, at in body.get("use", ()):
            if name not in self._named:
                self._problems.unknown(at, "PG003", "name of facts", name, self._named)
            # What several documents of facts share may be about other types of resources, so only paths that this
            # request can have are taken.
            for path, key, value in self._named.get(name, ()):
                self._reader.add(entries, request, path, key, value, now, shared=True)
        for path, key, value in body.get("facts", ()):
            self._reader.add(entries, request, path, key, value, now)
        contributors = body.get("contributors")
        return Facts(
            request,
            entries,
            approvals=tuple(supposed_approval(account, now) for account, _ in body.get("approvals", ())),
            contributors=None if contributors is None else tuple(sorted(account for account, _ in contributors)),
            unusable=tuple(line for line, _ in body.get("unusable", ())),
        )


def _part(node: Node, name: str) -> Node:
    return (node.get(name) or node) if isinstance(node, MapNode) else node
