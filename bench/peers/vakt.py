"""vakt with `RulesChecker` and `MemoryStorage`: attributes matched by rule objects, roles closed by the host.

A key that a request does not carry makes a vakt policy not match, which is what each guarded condition of the lab says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import vakt
from vakt.rules import Any as Anything
from vakt.rules import AnyIn, Eq, Greater, LessOrEqual, StartsWith
from vakt.rules.base import Rule as VaktRule

from bench.peers import Prepared
from bench.peers.pycasbin import foreign_pickle
from bench.workload import Question, Rule, Workload

NAME = "vakt"
DISTRIBUTION = "vakt"


class Satisfies(VaktRule):  # type: ignore[misc]
    """Holds if a Python predicate does: vakt's own way to write what its built-in rules cannot."""

    def __init__(self, predicate: Callable[[Any], bool]) -> None:
        self.predicate = predicate

    def satisfied(self, what: Any, inquiry: Any = None) -> bool:  # noqa: ARG002
        return self.predicate(what)


def _all_safe(checkpoints: list[dict[str, str]]) -> bool:
    return all(c["format"] == "safetensors" for c in checkpoints)


CONDITIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "small_clean": lambda gpus: {"gpus": LessOrEqual(gpus), "dirty": Eq(False)},
    "queue_ceiling": lambda queue, gpus: {"queue": Eq(queue), "gpus": LessOrEqual(gpus)},
    "pinned_image": lambda image: {"image_digest": Eq(image), "dirty": Eq(False)},
    "safe_checkpoints": lambda gpus: {"gpus": LessOrEqual(gpus), "checkpoints": Satisfies(_all_safe)},
    "project_label": lambda project: {"label:project": Eq(project)},
    "reserved": lambda reservation: {"reservation": Eq(reservation)},
    "large_dirty": lambda gpus: {"gpus": Greater(gpus), "dirty": Eq(True)},
    "queue_limit": lambda queue, gpus: {"queue": Eq(queue), "gpus": Greater(gpus)},
    "banned_image": lambda image: {"image_digest": Eq(image)},
    "foreign_pickle": lambda gpus: {
        "gpus": Satisfies(lambda value: value >= gpus),
        "foreign": Satisfies(lambda values: foreign_pickle(*values)),
    },
    "embargo": lambda embargo: {"label:embargo": Eq(embargo)},
    "no_ticket": lambda gpus, ticket: {"gpus": Greater(gpus), "ticket": Satisfies(lambda value: value != ticket)},
    "late_deadline": lambda queue, hours: {"queue": Eq(queue), "deadline_h": Greater(hours)},
}


def prepare(lab: Workload) -> Prepared:
    """Return a `Guard` over a `MemoryStorage` with one policy a rule, its logging off."""
    logging.getLogger("vakt").setLevel(logging.CRITICAL)
    logging.getLogger("vakt.audit").setLevel(logging.CRITICAL)
    storage = vakt.MemoryStorage()
    for rule in lab.rules:
        storage.add(_policy(rule))
    guard = vakt.Guard(storage, vakt.RulesChecker())
    # `is_allowed` renders the whole inquiry for a log line that nobody reads; `is_allowed_check` is the decision alone.
    return Prepared([_inquiry(question, lab) for question in lab.questions], guard.is_allowed_check)


def _policy(rule: Rule) -> Any:
    resource: dict[str, Any] = {}
    if rule.team:
        resource["team"] = Eq(rule.team)
    if rule.action is None and rule.kind:
        resource["kind"] = Eq(rule.kind)
    if rule.area:
        resource["path"] = StartsWith(f"{rule.area}/")
    return vakt.Policy(
        rule.id,
        actions=[Eq(rule.action) if rule.action else Anything()],
        subjects=[{"roles": AnyIn(rule.role)} if rule.role else Anything()],
        resources=[resource | CONDITIONS[rule.shape](*rule.constants)],
        effect=vakt.ALLOW_ACCESS if rule.effect == "allow" else vakt.DENY_ACCESS,
    )


def _inquiry(question: Question, lab: Workload) -> Any:
    attributes: dict[str, Any] = {"ticket": ""} | dict(question.attributes)
    attributes |= {"team": question.team, "kind": question.kind, "path": question.path}
    attributes |= {f"label:{key}": value for key, value in attributes.pop("labels").items()}
    if "code" in attributes:
        attributes["dirty"] = attributes.pop("code")["dirty"]
        attributes["foreign"] = (attributes["checkpoints"], question.subject)
    roles = sorted(lab.held.get((question.subject, question.team), ()))
    return vakt.Inquiry(subject={"id": question.subject, "roles": roles}, action=question.action, resource=attributes)
