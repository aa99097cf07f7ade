"""Converts policies and facts to the plain dicts and lists that the oracle reads. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyguard.model.expression import Call, Constant, Expression, Has, ListOf, MapOf, Quantifier, Select, Variable
from policyguard.model.facts import Facts
from policyguard.model.policy import Attribute, EntityType, PolicySet, Quorum, Rule, ValueType
from policyguard.values import NANOSECONDS_PER_S

Plain = dict[str, Any]


def plain_policy(policy_set: PolicySet) -> Plain:
    """Convert a policy set to dicts and lists."""
    schema = policy_set.schema
    return {
        "subjects": {name: _entity(one) for name, one in schema.subjects.items()},
        "resources": {name: _entity(one) for name, one in schema.resources.items()},
        "context": _attributes(schema.context),
        "records": {name: _attributes(fields) for name, fields in schema.records.items()},
        "roles": {role.name: list(role.inherits) for role in policy_set.roles},
        "bindings": [
            {"subject": b.subject, "role": b.role, "domain": b.domain, "since": b.not_before, "until": b.expires}
            for b in policy_set.bindings
        ],
        "persons": {account: person.id for person in policy_set.persons for account in person.accounts},
        "quorums": {quorum.id: _quorum(quorum) for quorum in policy_set.quorums},
        "rules": [_rule(rule) for rule in policy_set.rules],
    }


def plain_facts(facts: Facts) -> Plain:
    """Convert the facts of one request to dicts and lists."""
    request = facts.request
    return {
        "subject": request.subject.ref,
        "action": request.action,
        "resource": request.resource.ref,
        "entries": {
            path: {"value": fact.value, "assurance": int(fact.assurance), "observed_at": fact.observed_at}
            for path, fact in facts.entries.items()
        },
        "approvals": [
            {"account": a.account, "assurance": int(a.assurance), "approved_at": a.approved_at, "expires": a.expires}
            for a in facts.approvals
        ],
        "contributors": None if facts.contributors is None else list(facts.contributors),
    }


def plain_tree(node: Expression) -> list[Any]:
    """Convert a checked condition to nested lists.

    Raises:
        TypeError: a node of an unknown type.
    """
    match node:
        case Constant():
            return ["const", node.value]
        case Variable():
            return ["var", node.name]
        case Select():
            return ["select", plain_tree(node.operand), node.name]
        case Has():
            return ["has", plain_tree(node.operand), node.name]
        case Call():
            return ["call", node.function, *map(plain_tree, node.arguments)]
        case ListOf():
            return ["list", *map(plain_tree, node.elements)]
        case MapOf():
            return ["dict", *([plain_tree(key), plain_tree(value)] for key, value in node.entries)]
        case Quantifier():
            only = None if node.condition is None else plain_tree(node.condition)
            return [node.kind, node.variable, plain_tree(node.range), plain_tree(node.body), only]
    raise TypeError(f"found {type(node).__name__}, expected a node of a checked condition")


def _entity(entity: EntityType) -> Plain:
    return {
        "attributes": _attributes(entity.attributes),
        "actions": list(entity.actions),
        "pattern": entity.id_pattern,
    }


def _attributes(attributes: Mapping[str, Attribute]) -> Plain:
    return {
        name: {
            "type": _type(one.type),
            "enum": list(one.enum),
            "assurance": int(one.assurance),
            "max_age": None if one.max_age_s is None else one.max_age_s * NANOSECONDS_PER_S,
        }
        for name, one in attributes.items()
    }


def _type(kind: ValueType) -> Any:
    if kind.kind == "record":
        return ["record", kind.record]
    return kind.kind if kind.element is None else [kind.kind, _type(kind.element)]


def _quorum(quorum: Quorum) -> Plain:
    return {
        "places": [{"count": a.count, "roles": list(a.roles), "domain": a.domain} for a in quorum.approvers],
        "max_age": None if quorum.max_age_s is None else quorum.max_age_s * NANOSECONDS_PER_S,
        "assurance": int(quorum.assurance),
    }


def _rule(rule: Rule) -> Plain:
    return {
        "id": rule.id,
        "effect": rule.effect,
        "actions": list(rule.actions),
        "types": list(rule.resource_types),
        "roles": list(rule.roles),
        "subjects": list(rule.subjects),
        "pattern": rule.id_pattern,
        "when": None if rule.when is None else plain_tree(rule.when.expression),
        "quorum": rule.quorum,
        "floors": {path: int(minimum) for path, minimum in rule.assurance},
        "scope": rule.scope,
        "since": rule.not_before,
        "until": rule.expires,
    }
