"""Translates a casbin model and its rows to policy documents that decide the same, or refuses with a position.

    sub  alice          ->  user:alice         a name on the right of a `g` row is a role, no longer a user (H12)
    obj  data1          ->  object:data1       with domains object:domain1/data1
    obj  /data/1        ->  object:data/1      where every object begins with a slash
    act  read           ->  object:read        the actions are those that the rows and the matcher name
    r.sub.Age, r.obj.Owner  ->  subject.age, resource.owner

INVARIANT I6: a rule that cannot be translated to one with the same decisions is refused; nothing is dropped or guessed.
Pure: texts in, text out. Does not import casbin. `docs/casbin.md` lists what is translated and refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policyguard.casbin_compat.conf import read_conf
from policyguard.casbin_compat.definitions import read_definitions
from policyguard.casbin_compat.documents import as_yaml, documents, rule
from policyguard.casbin_compat.draft import Drafting
from policyguard.casbin_compat.source import Source, role_like
from policyguard.errors import PolicyError, PolicyErrors
from policyguard.values import Span


@dataclass(frozen=True, slots=True)
class Names:
    """Translates the names in a casbin request. `rooted`: every object begins with `/`, which is dropped."""

    actions: frozenset[str]
    domains: bool
    rooted: bool = False

    def request(self, subject: str, action: str, resource: str, domain: str | None = None) -> tuple[str, str, str]:
        """Translate a casbin request to (subject, action, resource), as `Request.of` takes them.

        Args:
            subject: the casbin name of the subject.
            action: the casbin name of the action.
            resource: the casbin name of the object.
            domain: the casbin name of the domain, if the model has domains.

        Raises:
            ValueError: a name that no row could match, and that would be mistaken for one that a row does.
        """
        if action not in self.actions:
            raise ValueError(f"found the action `{action}`, which no row names")
        if self.domains and (not domain or "/" in domain):
            raise ValueError(f"found the domain `{domain}`, expected a name without `/`")
        if resource.startswith("/") != self.rooted:
            raise ValueError(f"found the object `{resource}`, which no row could match by its first character")
        own = resource.removeprefix("/")
        path = f"{domain}/{own}" if self.domains else own
        return f"user:{subject}", f"object:{action.lower()}", f"object:{path}"


@dataclass(frozen=True, slots=True)
class Imported:
    """The YAML documents, and the translation of names."""

    documents: str
    names: Names


def import_casbin(
    model: str,
    policy: str,
    *,
    model_file: str = "model.conf",
    policy_file: str = "policy.csv",
    actions: Sequence[str] = (),
) -> Imported:
    """Translate a casbin model and its rows to documents that make the same decisions.

    Args:
        actions: actions that no row names by itself, where the model matches them by pattern or not at all.

    Raises:
        PolicyErrors: each thing that is not translated, with file, line and column and what to do about it.
    """
    try:
        source = Source(read_definitions(read_conf(model, model_file)), policy, policy_file, actions)
        return Imported(_documents(source), Names(frozenset(source.universe), source.domains, source.rooted))
    except PolicyError as error:
        raise PolicyErrors([error]) from None


def _documents(source: Source) -> str:
    """Format all documents as one YAML text."""
    drafting = Drafting(source)
    errors: list[PolicyError] = []
    rules: list[dict[str, Any]] = []
    for number, alternative in enumerate(source.alternatives):
        for row in source.rows_for(alternative):
            try:
                draft = drafting.draft(alternative, row)
                if draft is not None:
                    rules += [rule(source, draft, row, number, effect) for effect in source.effects_of(row)]
            except PolicyError as error:
                errors.append(error)
    errors += _link_errors(source)
    if len({action.lower() for action in source.universe}) < len(source.universe):
        errors.append(
            PolicyError(
                "found actions that differ in case only, expected one name for each",
                span=source.matcher,
                code="PG006",
            )
        )
    if not rules and not errors:
        errors.append(
            PolicyError("found no row that could ever match, expected at least one", span=source.matcher, code="PG003")
        )
    if errors:
        raise PolicyErrors(_distinct(errors))
    written = (as_yaml(document) for document in documents(source, drafting.attributes, rules))
    return _HEADER + "---\n".join(written)


def _link_errors(source: Source) -> Iterator[PolicyError]:
    for row in source.links.get("g", []):
        try:
            source.role_name(row.values[1], row.span)
            if source.groups["g"] == 3:
                role_like(row.values[2], "a domain", row.span)
            source.members("g", row.values[1])
        except PolicyError as error:
            yield error


def _distinct(errors: Sequence[PolicyError]) -> list[PolicyError]:
    distinct = {(error.span, error.message): error for error in errors}
    return sorted(distinct.values(), key=lambda error: (error.span or Span("", 0, 0), error.message))


_HEADER = """\
# Translated from a casbin model. A subject `alice` is `user:alice`, an object `data1` is `object:data1` (with domains
# `object:domain1/data1`), an action `read` is `object:read`. A subject named like a role no longer holds it.
"""
