"""What requests are made from: the constants, texts, domains, subjects and instants of a policy set. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from policyguard.model.expression import Call, Constant, Expression, Has, ListOf, MapOf, Quantifier, Select
from policyguard.model.policy import Binding, PolicySet, Rule
from policyguard.values import NANOSECONDS_PER_S, Instant

START: Instant = 1_750_000_000 * NANOSECONDS_PER_S
"""The time around which requests happen if the policies name none. Any fixed instant would do."""

_REPEATED = re.compile(r"\[[^\]]*\]\{(\d{1,3})\}")
"""`[0-9a-f]{40}` in a regular expression."""


def constants_of(expressions: Sequence[Expression]) -> dict[str, tuple[Any, ...]]:
    """List the constants of each type, sorted."""
    constants: dict[str, set[Any]] = {}
    for expression in expressions:
        for constant in _walk(expression):
            constants.setdefault(constant.type, set()).add(constant.value)
    return {kind: tuple(sorted(values)) for kind, values in constants.items()}


def compared_with(expressions: Sequence[Expression]) -> dict[str, tuple[tuple[str, Any], ...]]:
    """Map each attribute name to the (type, value) of every constant in the same call."""
    constants: dict[str, set[tuple[str, Any]]] = {}
    for expression in expressions:
        for call in _calls(expression):
            names = [node.name for node in call.arguments if isinstance(node, Select)]
            together = {(constant.type, constant.value) for node in call.arguments for constant in _walk(node)}
            for name in names:
                constants.setdefault(name, set()).update(together)
    return {name: tuple(sorted(pairs)) for name, pairs in constants.items()}


def _calls(node: Expression) -> Iterator[Call]:
    if isinstance(node, Call):
        yield node
        for argument in node.arguments:
            yield from _calls(argument)
    elif isinstance(node, Quantifier):
        yield from _calls(node.body)


def _walk(node: Expression) -> Iterator[Constant]:
    match node:
        case Constant():
            yield node
        case Select() | Has():
            yield from _walk(node.operand)
        case Call():
            for argument in node.arguments:
                yield from _walk(argument)
        case ListOf():
            for element in node.elements:
                yield from _walk(element)
        case MapOf():
            for key, value in node.entries:
                yield from _walk(key)
                yield from _walk(value)
        case Quantifier():
            yield from _walk(node.range)
            yield from _walk(node.body)
            if node.condition is not None:
                yield from _walk(node.condition)


def near_texts(text: str) -> list[str]:
    """List texts close to this one that a comparison, prefix, pattern or network test may tell apart from it."""
    digest = _REPEATED.sub(lambda match: "0" * min(int(match[1]), 128), text).strip("^$")
    return [
        digest,
        text + "x",
        text + "/x",
        text.rstrip("/"),
        text.partition("/")[0],
        text.rpartition("/")[0],
        "/".join("x" if part == "**" else part.replace("*", "x") for part in text.split("/")),
    ]


def domains_of(policies: PolicySet) -> list[str]:
    """List the domains that bindings, scopes and patterns name, and one that none does."""
    domains = {binding.domain for binding in policies.bindings} | {rule.scope for rule in policies.rules if rule.scope}
    for rule in policies.rules:
        domains |= {segment for segment in (rule.id_pattern or "").split("/") if segment and "*" not in segment}
    return sorted({domain for domain in domains if "{" not in domain} | {"unknown-domain", "*"})


def subjects_of(policies: PolicySet) -> list[str]:
    """List the subjects that the policies name, strangers, and subjects named like a role."""
    bound = {binding.subject for binding in policies.bindings}
    named = {subject for rule in policies.rules for subject in rule.subjects}
    accounts = {account for person in policies.persons for account in person.accounts}
    strangers = {f"{type_}:nobody-knows-me" for type_ in policies.schema.subjects} | {"unknown_type:x", "role:x"}
    like_roles = {f"{type_}:{role.name}" for role in policies.roles for type_ in policies.schema.subjects}
    return sorted(bound | named | accounts | strangers | like_roles)


def instants_of(policies: PolicySet, constants: Sequence[int]) -> list[Instant]:
    """List the first and last instants of bindings and rules, these constants, and their neighbours."""
    windows: list[Binding | Rule] = [*policies.bindings, *policies.rules]
    edges = {edge for one in windows for edge in (one.not_before, one.expires) if edge is not None} | set(constants)
    return sorted({START} | {edge + step for edge in edges for step in (-1, 0, 1)})
