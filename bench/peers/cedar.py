"""Cedar through cedarpy: one policy a rule, policies and entities parsed once, attributes in the context.

Roles are entities in the domain (`Role::"t017/lead"`); rules for every team ask the team's own entity for its role, as
Cedar's guides do. Cedar has no quantifier over records, so the host hands over the formats of the checkpoints and the
producers of the pickles as sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import cedarpy

from bench.peers import Prepared
from bench.workload import Question, Rule, Workload

NAME = "cedarpy"
DISTRIBUTION = "cedarpy"

CONDITIONS: Mapping[str, str] = {
    "small_clean": "context.gpus <= {0} && context.code.dirty == false",
    "queue_ceiling": "context.queue == {0} && context.gpus <= {1}",
    "pinned_image": "context.image_digest == {0} && context.code.dirty == false",
    "safe_checkpoints": 'context.gpus <= {0} && ["safetensors"].containsAll(context.formats)',
    "project_label": "context.labels has project && context.labels.project == {0}",
    "reserved": "context has reservation && context.reservation == {0}",
    "large_dirty": "context.gpus > {0} && context.code.dirty",
    "queue_limit": "context.queue == {0} && context.gpus > {1}",
    "banned_image": "context.image_digest == {0}",
    "foreign_pickle": "context.gpus >= {0} && !([context.subject].containsAll(context.pickle_producers))",
    "embargo": "context.labels has embargo && context.labels.embargo == {0}",
    "no_ticket": "context.gpus > {0} && !(context has ticket && context.ticket == {1})",
    "late_deadline": "context.queue == {0} && context.deadline_h > {1}",
}


def prepare(lab: Workload) -> Prepared:
    """Return a parsed `PolicySet` and `Entities`."""
    policies = cedarpy.PolicySet.from_str("\n".join(_policy(rule) for rule in lab.rules))
    entities = cedarpy.Entities.from_json_str(json.dumps(list(_entities(lab))))

    def decide(native: dict[str, Any]) -> bool:
        return bool(cedarpy.is_authorized(native, policies, entities).allowed)

    return Prepared([_request(question) for question in lab.questions], decide)


def _policy(rule: Rule) -> str:
    effect = "permit" if rule.effect == "allow" else "forbid"
    action = f'action == Action::"{rule.action}"' if rule.action else "action"
    principal, conditions = "principal", []
    if rule.role and rule.team:
        principal = f'principal in Role::"{rule.team}/{rule.role}"'
    elif rule.role:
        conditions.append(f"principal in context.team.{rule.role}")
    if rule.team:
        conditions.insert(0, f'context.team == Team::"{rule.team}"')
    if rule.action is None and rule.kind:
        conditions.append(f'context.kind == "{rule.kind}"')
    if rule.area:
        conditions.append(f'context.path like "{rule.area}/*"')
    conditions.append(f"({CONDITIONS[rule.shape].format(*(json.dumps(c) for c in rule.constants))})")
    return f'@id("{rule.id}") {effect}({principal}, {action}, resource) when {{ {" && ".join(conditions)} }};'


def _entities(lab: Workload) -> Iterator[dict[str, Any]]:
    parents: dict[str, list[str]] = {}
    for subject, role, domain in dict.fromkeys(lab.bindings):
        for team in lab.teams if domain == "*" else (domain,):
            parents.setdefault(subject, []).append(f"{team}/{role}")
    for subject, roles in parents.items():
        yield {"uid": _uid("User", subject), "attrs": {}, "parents": [_uid("Role", role) for role in roles]}
    for team in lab.teams:
        roles_here = [r for r in lab.inherits if not r.startswith("curator-") or r == f"curator-{team}"]
        for role in roles_here:
            above = [_uid("Role", f"{team}/{parent}") for parent in lab.inherits[role]]
            yield {"uid": _uid("Role", f"{team}/{role}"), "attrs": {}, "parents": above}
        attributes = {role: {"__entity": _uid("Role", f"{team}/{role}")} for role in roles_here if "-" not in role}
        yield {"uid": _uid("Team", team), "attrs": attributes, "parents": []}


def _uid(kind: str, identifier: str) -> dict[str, str]:
    return {"type": kind, "id": identifier}


def _request(question: Question) -> dict[str, Any]:
    context = {key: value for key, value in question.attributes.items() if key != "checkpoints"}
    checkpoints = question.attributes.get("checkpoints", ())
    context |= {
        "team": {"__entity": _uid("Team", question.team)},
        "kind": question.kind,
        "path": question.path,
        "subject": question.subject,
        "formats": sorted({c["format"] for c in checkpoints}),
        "pickle_producers": sorted({c["producer"] for c in checkpoints if c["format"] == "pickle"}),
    }
    return {
        "principal": f'User::"{question.subject}"',
        "action": f'Action::"{question.action}"',
        "resource": f'Resource::"{question.kind}:{question.id}"',
        "context": json.dumps(context),
    }
