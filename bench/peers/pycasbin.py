"""pycasbin as its documentation teaches ABAC: RBAC with domains, and each rule's condition text under `eval()`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import casbin
from casbin.model import Model

from bench.peers import Prepared
from bench.workload import Question, Rule, Workload

NAME = "pycasbin, eval()"
DISTRIBUTION = "pycasbin"

MATCHER = (
    '(p.dom == "*" || r.dom == p.dom) && (p.act == "*" || keyMatch(r.act, p.act)) && keyMatch(r.path, p.path) && '
    '(p.sub == "*" || g(r.sub, p.sub, r.dom)) && {condition}'
)
"""The cheap tests that exclude most rules come first; `&&` stops at the first that fails."""

CONDITIONS: Mapping[str, str] = {
    "small_clean": "r.ctx.gpus <= {0} && r.ctx.dirty == False",
    "queue_ceiling": "r.ctx.queue == {0} && r.ctx.gpus <= {1}",
    "pinned_image": "r.ctx.image_digest == {0} && r.ctx.dirty == False",
    "safe_checkpoints": "r.ctx.gpus <= {0} && all_safe(r.ctx.checkpoints)",
    "project_label": "label(r.ctx.labels, 'project') == {0}",
    "reserved": "r.ctx.reservation == {0}",
    "large_dirty": "r.ctx.gpus > {0} && r.ctx.dirty",
    "queue_limit": "r.ctx.queue == {0} && r.ctx.gpus > {1}",
    "banned_image": "r.ctx.image_digest == {0}",
    "foreign_pickle": "r.ctx.gpus >= {0} && foreign_pickle(r.ctx.checkpoints, r.sub)",
    "embargo": "label(r.ctx.labels, 'embargo') == {0}",
    "no_ticket": "r.ctx.gpus > {0} && r.ctx.ticket != {1}",
    "late_deadline": "r.ctx.queue == {0} && r.ctx.deadline_h > {1}",
}


def prepare(lab: Workload) -> Prepared:
    """Return an `Enforcer` with one policy line a rule, the role graph built and warm."""
    enforcer = build(lab, MATCHER.format(condition="eval(p.cond)"), _condition)
    enforcer.add_function("all_safe", lambda checkpoints: all(c["format"] == "safetensors" for c in checkpoints))
    enforcer.add_function("label", lambda labels, key: labels.get(key, ""))
    enforcer.add_function("foreign_pickle", foreign_pickle)
    return Prepared([request(question) for question in lab.questions], lambda native: enforcer.enforce(*native))


def build(lab: Workload, matcher: str, condition: Callable[[Rule], str]) -> Any:
    """Return an `Enforcer` over the lab, its logging off."""
    model = Model()
    model.add_def("r", "r", "sub, dom, path, act, ctx")
    model.add_def("p", "p", "sub, dom, path, act, cond, eft")
    model.add_def("g", "g", "_, _, _")
    model.add_def("e", "e", "some(where (p.eft == allow)) && !some(where (p.eft == deny))")
    model.add_def("m", "m", matcher)
    enforcer = casbin.Enforcer(model)
    logging.getLogger("casbin").setLevel(logging.CRITICAL)
    for rule in lab.rules:
        path = f"{rule.area}/*" if rule.area else "*"
        action = rule.action or (f"{rule.kind}:*" if rule.kind else "*")
        row = [rule.role or "*", rule.team or "*", path, action, condition(rule), rule.effect]
        enforcer.model.add_policy("p", "p", row)
    enforcer.model.add_policies("g", "g", list(_links(lab)))
    enforcer.build_role_links()
    return enforcer


def request(question: Question) -> tuple[Any, ...]:
    """Return the question as the values of casbin's request definition."""
    attributes: dict[str, Any] = {"reservation": "", "ticket": "", "dirty": False} | dict(question.attributes)
    if "code" in attributes:
        attributes["dirty"] = attributes["code"]["dirty"]
    return question.subject, question.team, question.path, question.action, SimpleNamespace(**attributes)


def foreign_pickle(checkpoints: list[dict[str, str]], subject: str) -> bool:
    """Is there a pickle that another subject made?"""
    return any(c["format"] == "pickle" and c["producer"] != subject for c in checkpoints)


def _condition(rule: Rule) -> str:
    return CONDITIONS[rule.shape].format(*(json.dumps(constant) for constant in rule.constants))


def _links(lab: Workload) -> Iterator[list[str]]:
    """Subjects to roles, and roles to the roles they inherit, in each team: casbin's graph has domains everywhere."""
    for subject, role, domain in dict.fromkeys(lab.bindings):
        for team in lab.teams if domain == "*" else (domain,):
            yield [subject, role, team]
    for role, parents in lab.inherits.items():
        curated = role.removeprefix("curator-")
        for parent in parents:
            for team in (curated,) if curated != role else lab.teams:
                yield [role, parent, team]
