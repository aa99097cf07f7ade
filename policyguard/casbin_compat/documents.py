"""Writes translated casbin rules as policy documents, with their names and domains.

Pure. A test that a pattern can express goes into `resources.id`; the rest becomes a condition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from policyguard.casbin_compat.conf import Row
from policyguard.casbin_compat.draft import Draft
from policyguard.casbin_compat.source import Source, role_like
from policyguard.conditions.rendering import quoted_in_cel
from policyguard.errors import PolicyError
from policyguard.values import Span

_ACTION = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_SEGMENTS = re.compile(r"[^\s/{}\[\]?\\*]+(?:/[^\s/{}\[\]?\\*]+)*")


def rule(source: Source, draft: Draft, row: Row | None, number: int, effect: str) -> dict[str, Any]:
    """Write a draft as a rule; `number` tells apart the rules made from one row.

    Args:
        source: the names of the model and its rows.
        draft: the rule in progress.
        row: the row; None if the alternative reads none.
        number: distinguishes the alternatives of one row.
        effect: `allow` or `deny`.
    """
    span = row.span if row is not None else source.matcher
    several = f"-{number + 1}" if len(source.alternatives) > 1 else ""
    name = f"line-{span.line}" if row is not None else f"matcher-{effect}"
    rule: dict[str, Any] = {"id": name + several, "effect": effect}
    if draft.role is not None:
        rule["roles"] = [source.role_name(draft.role, span)]
    elif draft.subjects is not None:
        rule["subjects"] = [f"user:{name}" for name in sorted(draft.subjects)]
    rule["actions"] = [f"object:{_verb(action, span)}" for action in sorted(draft.actions)]
    rule["resources"] = {"type": "object"}
    conditions = _placed(source, draft, rule["resources"], span)
    if conditions:
        rule["when"] = " && ".join(conditions)
    if row is not None:
        rule["description"] = ", ".join((row.kind, *row.values))
    return rule


def _placed(source: Source, draft: Draft, resources: dict[str, Any], span: Span) -> list[str]:
    """Return the conditions on the id; set the id pattern in `resources` where one is equivalent."""
    domains = None if draft.domains is None else sorted(draft.domains)
    if domains is not None and len(domains) != 1:
        raise PolicyError("several domains in one alternative", span=span, code="PG109")
    where = "" if not source.domains else "{team}" if domains is None else role_like(domains[0], "a domain", span)
    objects = None if draft.objects is None else sorted(draft.objects)
    simple = objects is not None and len(objects) == 1 and _SEGMENTS.fullmatch(objects[0])
    conditions = []
    if objects is None and where not in ("", "{team}"):
        resources["id"] = f"{where}/**"
    elif objects is not None and simple:
        resources["id"] = f"{where}/{objects[0]}" if where else objects[0]
    elif objects is not None:
        listed = ", ".join(quoted_in_cel(_located(one, where, span)) for one in objects)
        conditions.append(f"resource.id in [{listed}]")
    for text, value in draft.tests:
        if "{regex}" in text:
            head = f"{re.escape(_located('', where, span))}" if where else ""
            text = text.replace("{regex}", quoted_in_cel(f"^{head}{value}$"))
        elif "{id}" in text:
            text = text.replace("{id}", quoted_in_cel(_located(value, where, span)))
        conditions.append(text)
    return conditions


def _located(name: str, where: str, span: Span) -> str:
    if where == "{team}":
        raise PolicyError("a pattern over resources of every domain has no exact counterpart", span=span, code="PG206")
    return f"{where}/{name}" if where else name


def documents(
    source: Source, attributes: Mapping[str, Mapping[str, str]], rules: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the policy documents; roles in domains are bound directly, since ours inherit alike in all domains.

    Args:
        source, attributes, rules: the model and its rows; types of attributes; rules of the policy document.
    """
    resource: dict[str, Any] = {"actions": sorted({_verb(a, source.matcher) for a in source.universe})}
    if source.domains:
        resource = {"id": "{team}/**", **resource}
    subject: dict[str, Any] = {}
    for body, entity in ((subject, "subject"), (resource, "resource")):
        if attributes[entity]:
            body["attributes"] = {n: {"type": t, "optional": True} for n, t in attributes[entity].items()}
    yield _document("Schema", subjects={"user": subject}, resources={"object": resource})
    if links := source.links.get("g", []):
        has_domains = source.groups["g"] == 3
        new_names = {name: source.role_name(name, source.matcher) for name in source.role_names}
        parents = {one: sorted({new_names[r.values[1]] for r in links if r.values[0] == one}) for one in new_names}
        yield _document(
            "Roles",
            roles=[
                {"name": new_names[one], **({"inherits": parents[one]} if parents[one] and not has_domains else {})}
                for one in sorted(new_names)
            ],
        )
        bound = _flat_bindings(source, links) if has_domains else _plain_bindings(source, links)
        yield _document(
            "Bindings",
            bindings=[
                {"subject": f"user:{user}", "role": new_names[role], "domain": domain}
                for user, role, domain in sorted(set(bound))
            ],
        )
    yield _document("Policy", rules=rules)


def _plain_bindings(source: Source, links: Iterable[Row]) -> Iterator[tuple[str, str, str]]:
    yield from ((row.values[0], row.values[1], "*") for row in links if row.values[0] not in source.role_names)


def _flat_bindings(source: Source, links: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    for domain in {row.values[2] for row in links}:
        inside = [row for row in links if row.values[2] == domain]
        for row in inside:
            if row.values[0] not in source.role_names:
                held = {row.values[1]}
                for _ in inside:
                    held |= {other.values[1] for other in inside if other.values[0] in held}
                yield from ((row.values[0], role, domain) for role in held)


def _verb(action: str, span: Span) -> str:
    verb = action.lower()
    if not _ACTION.fullmatch(verb):
        raise PolicyError(
            f"found the action `{action}`, expected letters, digits, `_` and `-`", span=span, code="PG011"
        )
    return verb


def _document(kind: str, **body: Any) -> dict[str, Any]:
    return {"apiVersion": "policyguard/v1", "kind": kind, "metadata": {"name": "imported"}, **body}


def as_yaml(document: dict[str, Any]) -> str:
    """Format a document as YAML, with JSON scalars and one line for each member and item."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"  - {json.dumps(item, ensure_ascii=False)}" for item in value)]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
