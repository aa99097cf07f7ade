"""The generated lab as `policyguard/v1` documents and its questions as requests: what a user here would write.

One file for the schema, one for roles, one for bindings, one a team, one for the rules of the whole lab.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from bench.shapes import SHAPES
from bench.workload import CHECKPOINT_ACTIONS, JOB_ACTIONS, Question, Rule, Workload
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.values import Instant

NOW: Instant = 1_772_000_000_000_000_000

SCHEMA = f"""\
apiVersion: policyguard/v1
kind: Schema
subjects:
  user: {{attributes: {{}}}}
resources:
  job:
    id: "team/{{team}}/**"
    actions: [{", ".join(action.partition(":")[2] for action in JOB_ACTIONS)}]
    attributes:
      gpus: {{type: int, unit: gpu}}
      queue: {{type: string}}
      image_digest: {{type: string}}
      code: {{type: code_state}}
      labels: {{type: "map(string, string)"}}
      checkpoints: {{type: list(checkpoint_ref)}}
      reservation: {{type: string, optional: true}}
      ticket: {{type: string, optional: true}}
      deadline_h: {{type: int, optional: true, unit: hour}}
  checkpoint:
    id: "team/{{team}}/**"
    actions: [{", ".join(action.partition(":")[2] for action in CHECKPOINT_ACTIONS)}]
    attributes:
      size_gb: {{type: int}}
      labels: {{type: "map(string, string)"}}
records:
  code_state: {{attributes: {{dirty: {{type: bool}}, commit: {{type: string}}}}}}
  checkpoint_ref: {{attributes: {{format: {{type: string}}, producer: {{type: string}}}}}}
context: {{attributes: {{}}}}
"""


def sources(lab: Workload) -> dict[str, bytes]:
    """Return the whole lab as file name -> YAML text, ready for `policyguard.policy.loader.load`."""
    texts = {"schema.yaml": SCHEMA, "roles.yaml": _roles(lab), "bindings.yaml": _bindings(lab)}
    rules: dict[str | None, list[Rule]] = {}
    for rule in lab.rules:
        rules.setdefault(rule.team, []).append(rule)
    for team, members in rules.items():
        texts[f"rules/{team or 'lab'}.yaml"] = "---\n".join(_policies(team, members))
    return {name: text.encode() for name, text in texts.items()}


def facts(question: Question) -> Facts:
    """Return the question as a parsed request with its own claims as facts."""
    request = Request.of(question.subject, question.action, f"{question.kind}:{question.id}", **question.attributes)
    return Facts(request=request, entries=claims(request, NOW))


def _roles(lab: Workload) -> str:
    lines = [f"  - {{name: {name}, inherits: [{', '.join(above)}]}}" for name, above in lab.inherits.items()]
    return "apiVersion: policyguard/v1\nkind: Roles\nroles:\n" + "\n".join(lines) + "\n"


def _bindings(lab: Workload) -> str:
    lines = [
        f"  - {{subject: '{subject}', role: {role}, domain: '{domain}'}}"
        for subject, role, domain in dict.fromkeys(lab.bindings)
    ]
    return "apiVersion: policyguard/v1\nkind: Bindings\nbindings:\n" + "\n".join(lines) + "\n"


def _policies(team: str | None, rules: Iterable[Rule]) -> Iterator[str]:
    by_scope: dict[bool, list[Rule]] = {}
    for rule in rules:
        by_scope.setdefault(rule.scoped, []).append(rule)
    for scoped, members in by_scope.items():
        scope = f"scope: {team}\n" if scoped else ""
        name = f"{team or 'lab'}-{'scoped' if scoped else 'literal'}"
        body = "".join(_rule(rule) for rule in members)
        yield f"apiVersion: policyguard/v1\nkind: Policy\nmetadata: {{name: {name}}}\n{scope}rules:\n{body}"


def _rule(rule: Rule) -> str:
    lines = [f"- id: {rule.id}", f"  effect: {rule.effect}"]
    if rule.role is not None:
        lines.append(f"  roles: [{rule.role}]")
    lines.append(f"  actions: [{json.dumps(rule.action or '*')}]")
    lines.append(f"  resources: {{{_resources(rule)}}}")
    lines.append(f"  when: {_quoted(SHAPES[rule.shape].text(rule.constants))}")
    if rule.effect == "deny":
        lines.append(f"  reason: lab.{rule.shape}")
    return "\n".join(f"  {line}" for line in lines) + "\n"


def _resources(rule: Rule) -> str:
    kind = f"type: {rule.kind or json.dumps('*')}"
    area = f"{rule.area}/" if rule.area else ""
    if rule.team is not None and not rule.scoped:
        return f'{kind}, id: "team/{rule.team}/{area}**"'
    return f'{kind}, id: "team/{{team}}/{area}**"' if area or rule.scoped else kind


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
