"""pycasbin with each condition as a registered Python function: faster than `eval()`, and code instead of policy.

Without `eval()` in the matcher casbin parses it once for each request instead of once for each rule.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bench.peers import Prepared
from bench.peers.pycasbin import MATCHER, build, request
from bench.shapes import SHAPES
from bench.workload import Workload

NAME = "pycasbin, Python functions"
DISTRIBUTION = "pycasbin"


def prepare(lab: Workload) -> Prepared:
    """Return an `Enforcer` whose matcher calls `cond(r.sub, r.ctx, p.cond)`, a look-up and a Python function."""
    bound = {rule.id: (SHAPES[rule.shape].holds, rule.constants) for rule in lab.rules}

    def cond(subject: str, context: SimpleNamespace, rule: str) -> bool:
        holds, constants = bound[rule]
        return holds(context.attributes, subject, constants)

    enforcer = build(lab, MATCHER.format(condition="cond(r.sub, r.ctx, p.cond)"), lambda rule: rule.id)
    enforcer.add_function("cond", cond)
    return Prepared([_request(question) for question in lab.questions], lambda native: enforcer.enforce(*native))


def _request(question: Any) -> tuple[Any, ...]:
    *head, _ = request(question)
    return (*head, SimpleNamespace(attributes=question.attributes))
