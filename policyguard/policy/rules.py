"""Reads `kind: Policy` documents: expands stars and checks patterns; conditions are checked later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policyguard.model.policy import EFFECTS, Rule, Schema
from policyguard.patterns.id_pattern import DOMAIN, domain_index, is_aligned
from policyguard.patterns.overlap import overlap
from policyguard.policy.binder import (
    Field,
    Table,
    choice,
    distinct,
    instant,
    listing,
    name,
    nested,
    prose,
    raw,
    table_of,
    text,
    values,
)
from policyguard.policy.nodes import Mapping, Node, Scalar, Sequence
from policyguard.policy.people import IDENTIFIER, one_domain, subject_ref, window
from policyguard.policy.problems import Problems
from policyguard.policy.schema import ASSURANCES, id_pattern
from policyguard.text import quoted, quoted_list

STAR = "*"


def one_or_more(node: Node, problems: Problems) -> list[tuple[str, Node]] | None:
    """Kind: one text, or a list of texts."""
    if isinstance(node, Sequence):
        pairs: list[tuple[str, Node]] | None = _TEXTS(node, problems)
        return pairs
    value = text(node, problems)
    return None if value is None else [(value, node)]


_TEXTS = listing(text)
_RESOURCES = Table("`resources`", Field("type", one_or_more), Field("id", id_pattern))
_REASON = name("a reason code", r"[a-z][a-z0-9_]{0,62}(?:\.[a-z0-9_]{1,63}){0,7}", "quota.role_ceiling")
_OBLIGATION = name("an obligation", r"[a-z][a-z0-9_.-]{0,126}", "notify.owner")
_FACT = name("a fact", r"(?:subject|resource|context)\.[a-z][a-z0-9_]*", "resource.owner")
_RULE = Table(
    "a rule",
    Field("id", IDENTIFIER, required=True),
    Field("effect", choice("effect", EFFECTS), required=True),
    Field("roles", listing(IDENTIFIER)),
    Field("subjects", listing(subject_ref)),
    Field("actions", listing(text), required=True),
    Field("resources", nested(_RESOURCES)),
    Field("when", raw),
    Field("assurance", table_of(_FACT, choice("assurance", ASSURANCES), "a map from facts to a minimum assurance")),
    Field("quorum", IDENTIFIER),
    Field("reason", _REASON),
    Field("remedy", prose),
    Field("contact", prose),
    Field("obligations", listing(_OBLIGATION)),
    Field("notBefore", instant),
    Field("expires", instant),
    Field("description", prose),
)
POLICY_FIELDS = (Field("scope", one_domain), Field("rules", listing(nested(_RULE)), required=True))


@dataclass(frozen=True, slots=True)
class Draft:
    """A rule with its node, whose condition is not checked yet."""

    rule: Rule
    node: Mapping
    when: Scalar | None


def bind_rule(
    body: dict[str, Any], node: Mapping, scope: str | None, owner: str | None, schema: Schema | None, problems: Problems
) -> Draft | None:
    """Build the draft of a rule; None if a required field is wrong.

    Args:
        body, node: its valid fields, and its node.
        scope, owner: those of the document, if any.
        schema, problems: resolves actions and types, which stay empty without one; where errors are added.
    """
    sound = _together(body, node, problems) and window(body, node, problems)
    resources, _ = body.get("resources", ({}, node))
    types = resources.get("type", [(STAR, node)])
    resolved = _resolve(body.get("actions", []), types, resources.get("id"), scope, node, schema, problems)
    if not sound or resolved is None or not {"id", "effect", "actions"} <= body.keys():
        return None
    rule = Rule(
        id=body["id"],
        effect=body["effect"],
        actions=resolved[0],
        resource_types=resolved[1],
        roles=distinct(body.get("roles"), "role", problems),
        subjects=distinct(body.get("subjects"), "subject", problems),
        id_pattern=resources.get("id"),
        assurance=tuple(sorted((path, ASSURANCES[word]) for path, _, word in body.get("assurance", ()))),
        quorum=body.get("quorum"),
        scope=scope,
        reason=body.get("reason"),
        remedy=body.get("remedy"),
        contact=body.get("contact"),
        obligations=values(body.get("obligations")),
        not_before=body.get("notBefore"),
        expires=body.get("expires"),
        any_action=STAR in values(body["actions"]),
        any_type=STAR in values(types),
        owner=owner,
        description=body.get("description"),
        span=node.span,
    )
    return Draft(rule, node, _condition(node, problems))


def _together(body: dict[str, Any], node: Mapping, problems: Problems) -> bool:
    """Return True if the fields of a rule are compatible; report each pair that is not."""
    before = len(problems.errors)
    effect = body.get("effect")
    if effect == "require" and node.get("quorum") is None:
        problems.add(node, "PG003", "`quorum` is missing, expected in a rule with effect `require`")
    if effect in ("allow", "deny") and (key := node.key("quorum")) is not None:
        problems.add(key, "PG003", f"found `quorum` in a rule with effect `{effect}`, expected only with `require`")
    if (key := node.key("subjects")) is not None and node.get("roles") is not None:
        problems.add(key, "PG003", "found `roles` and `subjects` in one rule, expected one of them", "write two rules")
    if (reason := body.get("reason")) is not None and reason.split(".")[0] in ("engine", "rule", "needs_approval"):
        problems.add(
            node.get("reason") or node,
            "PG003",
            f"reason `{reason}` starts with a word that the engine reserves, expected another first word",
        )
    return len(problems.errors) == before


def _condition(node: Mapping, problems: Problems) -> Scalar | None:
    when = node.get("when")
    if when is None or text(when, problems) is None:
        return None
    return when if isinstance(when, Scalar) else None


def _resolve(
    actions: list[tuple[str, Node]],
    types: list[tuple[str, Node]],
    pattern: str | None,
    scope: str | None,
    node: Mapping,
    schema: Schema | None,
    problems: Problems,
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Expand a rule's actions and resource types, sorted; None if a name is not declared."""
    if schema is None:
        return (), ()
    before = len(problems.errors)
    for name_, at in types:
        if name_ != STAR and name_ not in schema.resources:
            problems.unknown(at, "PG102", "resource type", name_, schema.resources)
    everywhere = schema.actions
    for name_, at in actions:
        if name_ != STAR and name_ not in everywhere:
            problems.unknown(at, "PG101", "action", name_, everywhere)
    if len(problems.errors) > before:
        return None
    any_type, any_action = STAR in values(types), STAR in values(actions)
    chosen = tuple(sorted(schema.resources if any_type else set(values(types))))
    offered = {action for name_ in chosen for action in schema.resources[name_].actions}
    wanted = offered if any_action else set(values(actions))
    _applicable(actions, types, offered, wanted, schema, problems)
    if any_type:
        chosen = tuple(name_ for name_ in chosen if wanted.intersection(schema.resources[name_].actions))
    _pattern_fits(pattern, scope, chosen, any_type, node, schema, problems)
    if any_type:
        fitting = tuple(name_ for name_ in chosen if _fits(schema.resources[name_].id_pattern, pattern, scope))
        wanted = _narrowed(actions, wanted, chosen, fitting, schema, problems)
        chosen = fitting
    return (tuple(sorted(wanted)), chosen) if len(problems.errors) == before else None


def _fits(declared: str | None, pattern: str | None, scope: str | None) -> bool:
    """Return True if a rule about every type covers this one: its pattern can match and its scope can hold."""
    return is_aligned(pattern, declared) and (scope is None or domain_index(declared) is not None)


def _narrowed(
    actions: list[tuple[str, Node]],
    wanted: set[str],
    types: tuple[str, ...],
    fitting: tuple[str, ...],
    schema: Schema,
    problems: Problems,
) -> set[str]:
    """Reduce the actions to those of the types that fit; an action that the author named must be among them."""
    remaining = wanted & {action for name_ in fitting for action in schema.resources[name_].actions}
    dropped = quoted_list([name_ for name_ in types if name_ not in fitting])
    for action, at in actions:
        if action != STAR and action in wanted and action not in remaining:
            problems.add(
                at, "PG108", f"action `{action}` is one of {dropped}, of which no id has the rule's pattern or scope"
            )
        elif action == STAR and wanted and not remaining:
            problems.add(at, "PG108", f"no id of {dropped} has the rule's pattern or scope")
    return remaining


def _applicable(
    actions: list[tuple[str, Node]],
    types: list[tuple[str, Node]],
    offered: set[str],
    wanted: set[str],
    schema: Schema,
    problems: Problems,
) -> None:
    """Report actions that none of the types has, and types with none of the actions."""
    for action, at in actions:
        if action != STAR and action not in offered:
            problems.add(at, "PG108", f"action `{action}` cannot be done to {quoted_list(values(types))}")
    for name_, at in types:
        if name_ != STAR and not wanted.intersection(schema.resources[name_].actions):
            problems.add(at, "PG108", f"none of the rule's actions can be done to `{name_}`")


def _pattern_fits(
    pattern: str | None,
    scope: str | None,
    types: tuple[str, ...],
    any_type: bool,
    node: Mapping,
    schema: Schema,
    problems: Problems,
) -> None:
    """Report a pattern that no id of a type can match, and a scope on a type without domains."""
    resources = node.get("resources")
    at = resources.get("id") if isinstance(resources, Mapping) else None
    fitting = 0
    for name_ in types:
        declared = schema.resources[name_].id_pattern
        where = domain_index(declared)
        problem = _misfit(pattern, declared, where, name_)
        fitting += problem is None
        if problem is not None and at is not None and not any_type:
            problems.add(at, "PG102", problem)
        if scope is not None and where is None and not any_type:
            problems.add(
                node,
                "PG508",
                f"resource type `{name_}` belongs to no domain, expected no rule about it in a "
                f"document with scope `{scope}`",
            )
        if problem is None and pattern is not None and where is not None and scope is not None:
            _own_domain(pattern.split("/"), where, scope, at, problems)
    if any_type and not fitting and at is not None:
        problems.add(at, "PG102", f"pattern {quoted(pattern or '')} matches no id of any resource type")


def _misfit(pattern: str | None, declared: str | None, where: int | None, type_: str) -> str | None:
    """Say why no id of the type can match the pattern as meant; None if one can."""
    if pattern is None:
        return None
    domain_at = domain_index(pattern)
    if domain_at is not None and domain_at != where:
        expected = f"{quoted(declared)}" if where is not None and declared else f"no `{DOMAIN}`"
        return f"pattern {quoted(pattern)} has `{DOMAIN}` where ids of `{type_}` do not, expected {expected}"
    if declared is not None and not overlap(pattern, declared):
        return f"pattern {quoted(pattern)} matches no id of `{type_}`, expected within {quoted(declared)}"
    return None


def _own_domain(segments: list[str], where: int, scope: str, at: Node | None, problems: Problems) -> None:
    if "**" in segments[: where + 1] or len(segments) <= where or at is None:
        return
    domain = segments[where]
    if domain != DOMAIN and "*" not in domain and domain != scope:
        problems.add(at, "PG208", f"pattern names the domain `{domain}`, expected `{scope}`, the document's scope")
