"""One training lab, grown to any number of rules: who it has, what it allows, and requests that are half allowed.

| class of rule | share | effect | role | action | where | what can find it |
|---|---|---|---|---|---|---|
| `team` | 56.0 % | allow | one | one | one team, by the document's scope | team, action, role |
| `literal` | 6.0 % | allow | one | one | one team, by a literal prefix of the id | prefix, action, role |
| `general` | 0.3 % | allow | one | one | `team/{team}/...`, every team | action, role |
| `team-deny` | 17.0 % | deny | one | one | one team | team, action, role |
| `open-deny` | 10.0 % | deny | none | one | one team, scope or literal prefix | team, action |
| `any-action` | 6.0 % | deny | none | any | one team, scope or literal prefix | team |
| `lab-wide` | 2.5 % | deny | none | any | everywhere, one attribute equals a constant | nothing but that value |
| `optional` | 2.0 % | allow | one | one | every team, optional attribute, absent in most requests | action, role |
| `unindexed` | 0.2 % | deny | none | any | everywhere, no equality | nothing: always run |

At least one of each, so at 10 rules every class is there. Twenty rules make a team, four people a team, two operators
hold their role everywhere, one team in four has a role of its own. One request in seven is about a checkpoint, the rest
about jobs. Requests are half allowed, half denied, and the denied half explicit and by default.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.shapes import ALLOWING, CHECKPOINT_SHAPES, DENYING, SHAPES, Attributes, Constants

SEED = 20261122
SIZES = (10, 100, 1_000, 10_000)
RULES_PER_TEAM = 20
PEOPLE_PER_TEAM = 4

JOB_ACTIONS = ("job:submit", "job:resume", "job:cancel", "job:prioritise")
CHECKPOINT_ACTIONS = ("checkpoint:load", "checkpoint:publish")
AREAS = ("", "", "prod", "dev", "eval")
INHERITS: Mapping[str, tuple[str, ...]] = {
    "viewer": (),
    "intern": ("viewer",),
    "researcher": ("intern",),
    "lead": ("researcher",),
    "operator": ("viewer",),
}
OPERATORS = ("user:op-0", "user:op-1")

SHARES = {
    "team": 560,
    "literal": 60,
    "general": 3,
    "team-deny": 170,
    "open-deny": 100,
    "any-action": 60,
    "lab-wide": 25,
    "optional": 20,
    "unindexed": 2,
}
"""Per mille."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, in no engine's words. `role`, `action`, `kind` (of resource) and `team` are None for any."""

    id: str
    effect: Literal["allow", "deny"]
    role: str | None
    action: str | None
    kind: str | None
    team: str | None
    area: str
    scoped: bool
    """Is the team said by the document's scope (else by a literal prefix of the id)?"""
    shape: str
    constants: Constants

    def matches(self, question: Question, roles: frozenset[str]) -> bool:
        """Is the rule true of this request, whose subject holds `roles` in its team?"""
        return (
            self.action in (None, question.action)
            and self.kind in (None, question.kind)
            and self.team in (None, question.team)
            and (self.role is None or self.role in roles)
            and (not self.area or question.path.startswith(self.area + "/"))
            and SHAPES[self.shape].holds(question.attributes, question.subject, self.constants)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request: `path` is the id below the team, `attributes` those of the resource."""

    subject: str
    action: str
    team: str
    path: str
    attributes: Attributes
    allowed: bool = False

    @property
    def kind(self) -> str:
        return self.action.partition(":")[0]

    @property
    def id(self) -> str:
        return f"team/{self.team}/{self.path}"


@dataclass(slots=True, kw_only=True)
class Workload:
    """Rules, people and questions; `held` has the closed roles of (subject, team), operators in every team."""

    size: int
    seed: int
    teams: tuple[str, ...]
    inherits: dict[str, tuple[str, ...]]
    bindings: tuple[tuple[str, str, str], ...]
    """(subject, role, team), `*` for every team."""
    rules: tuple[Rule, ...] = ()
    questions: tuple[Question, ...] = ()
    held: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    @classmethod
    def build(
        cls, size: int, *, seed: int = SEED, questions: int = 200, shares: Mapping[str, int] = SHARES
    ) -> Workload:
        """Return the lab with `size` rules; the same arguments give the same lab."""
        chance = random.Random(f"{seed}/{size}")
        teams = tuple(f"t{n:03d}" for n in range(max(2, size // RULES_PER_TEAM)))
        inherits = dict(INHERITS) | {f"curator-{team}": ("researcher",) for team in teams[::4]}
        lab = cls(size=size, seed=seed, teams=teams, inherits=inherits, bindings=tuple(_bindings(teams, inherits)))
        lab.held = _closed(lab)
        lab.rules = tuple(_rules(lab, chance, shares))
        lab.questions = tuple(_balanced(lab, chance, questions))
        return lab

    def decide(self, question: Question) -> bool:
        """Return the answer by trying every rule: the naive evaluation that all engines must agree with."""
        roles = self.held.get((question.subject, question.team), frozenset())
        effects = {rule.effect for rule in self.rules if rule.matches(question, roles)}
        return effects == {"allow"}


def _bindings(teams: tuple[str, ...], inherits: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    for operator in OPERATORS:
        yield operator, "operator", "*"
    for team in teams:
        curator = f"curator-{team}" if f"curator-{team}" in inherits else "researcher"
        for n, role in enumerate(("intern", "researcher", "lead", curator)[:PEOPLE_PER_TEAM]):
            yield f"user:{team}-{n}", role, team


def _closed(lab: Workload) -> dict[tuple[str, str], frozenset[str]]:
    held: dict[tuple[str, str], frozenset[str]] = {}
    for subject, role, domain in lab.bindings:
        for team in lab.teams if domain == "*" else (domain,):
            held[subject, team] = held.get((subject, team), frozenset()) | _with_inherited(role, lab.inherits)
    return held


def _with_inherited(role: str, inherits: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    return frozenset({role}).union(*(_with_inherited(parent, inherits) for parent in inherits[role]))


def _rules(lab: Workload, chance: random.Random, shares: Mapping[str, int]) -> Iterator[Rule]:
    counts = {name: max(1, lab.size * share // sum(shares.values())) for name, share in shares.items() if share}
    first = next(iter(counts))
    counts[first] += lab.size - sum(counts.values())
    number = 0
    for name, count in counts.items():
        for n in range(count):
            yield _rule(f"{name}-{number}", name, n, lab, chance)
            number += 1


def _rule(identifier: str, name: str, n: int, lab: Workload, chance: random.Random) -> Rule:
    confined = name in ("team", "literal", "team-deny", "open-deny", "any-action")
    team = lab.teams[n % len(lab.teams)] if confined else None
    effect: Literal["allow", "deny"] = "allow" if name in ("team", "literal", "general", "optional") else "deny"
    any_action = name in ("any-action", "lab-wide", "unindexed")
    kind = None if name == "lab-wide" and n % 4 == 0 else "job"
    if not any_action and name != "optional" and chance.random() < 1 / 7:
        kind = "checkpoint"
    shape = _shape(name, kind, n)
    return Rule(
        id=identifier,
        effect=effect,
        role=_role(team, lab, chance) if name in ("team", "literal", "general", "team-deny", "optional") else None,
        action=None if any_action else chance.choice(JOB_ACTIONS if kind == "job" else CHECKPOINT_ACTIONS),
        kind=kind,
        team=team,
        area=chance.choice(AREAS) if confined or name == "general" else "",
        scoped=name in ("team", "team-deny") or (name in ("open-deny", "any-action") and n % 2 == 0),
        shape=shape,
        constants=_constants(shape, name, lab, chance),
    )


def _shape(name: str, kind: str | None, n: int) -> str:
    allowing = [shape.name for shape in ALLOWING if shape.name != "reserved"]
    denying = [shape.name for shape in DENYING]
    choices = {
        "team": allowing,
        "literal": allowing,
        "general": ["small_clean", "safe_checkpoints"],
        "optional": ["reserved"],
        "unindexed": ["foreign_pickle", "no_ticket"],
        "lab-wide": ["queue_limit", "banned_image", "late_deadline", "embargo"],
    }.get(name, denying)
    if kind != "job":
        choices = [choice for choice in choices if choice in CHECKPOINT_SHAPES] or ["project_label"]
    return choices[n % len(choices)]


def _role(team: str | None, lab: Workload, chance: random.Random) -> str:
    curator = f"curator-{team}"
    if curator in lab.inherits and chance.random() < 0.2:
        return curator
    return chance.choice(("intern", "researcher", "researcher", "lead", "operator"))


def _constants(shape: str, name: str, lab: Workload, chance: random.Random) -> Constants:
    ceiling = chance.choice((8, 16, 32, 64))
    large = chance.choice((384, 448, 480)) if name == "unindexed" else chance.choice((96, 128, 192, 256))
    values: dict[str, Constants] = {
        "small_clean": (ceiling,),
        "queue_ceiling": (_queue(lab, chance), ceiling),
        "pinned_image": (_image(lab, chance),),
        "safe_checkpoints": (ceiling,),
        "project_label": (f"p{chance.randrange(20)}",),
        "reserved": (f"r{chance.randrange(max(4, lab.size // 50))}",),
        "large_dirty": (large,),
        "queue_limit": (_queue(lab, chance), large),
        "banned_image": (f"sha256:bad{chance.randrange(max(4, lab.size // 10)):06d}",),
        "foreign_pickle": (large,),
        "embargo": (f"e{chance.randrange(max(4, lab.size // 100))}",),
        "no_ticket": (large, f"CHG-{chance.randrange(9)}"),
        "late_deadline": (f"timed-{chance.randrange(max(4, lab.size // 100))}", chance.choice((24, 48, 72))),
    }
    return values[shape]


def _queue(lab: Workload, chance: random.Random) -> str:
    return f"q{chance.randrange(max(4, lab.size // 40))}"


def _image(lab: Workload, chance: random.Random) -> str:
    return f"sha256:{chance.randrange(max(4, lab.size // 20)):08x}"


def _balanced(lab: Workload, chance: random.Random, count: int) -> Iterator[Question]:
    """Yield allowed and denied questions in turn; every second denied one is made to meet a deny rule."""
    wanted = {True: count - count // 2, False: count // 2}
    answered: dict[bool, list[Question]] = {True: [], False: []}
    attempts = 0
    while any(len(answered[answer]) < wanted[answer] for answer in wanted):
        attempts += 1
        if attempts > 200 * count:
            raise RuntimeError(f"no balanced questions for {lab.size} rules after {attempts} attempts")
        question = _question(lab, chance, spoiled=len(answered[True]) >= wanted[True] or chance.random() < 0.4)
        answer = lab.decide(question)
        if len(answered[answer]) < wanted[answer]:
            answered[answer].append(
                Question(
                    subject=question.subject,
                    action=question.action,
                    team=question.team,
                    path=question.path,
                    attributes=question.attributes,
                    allowed=answer,
                )
            )
    for pair in zip(answered[True], answered[False], strict=True):
        yield from pair


def _question(lab: Workload, chance: random.Random, *, spoiled: bool) -> Question:
    """Return a question aimed at one allow rule and, if `spoiled`, bent towards a deny rule or out of reach."""
    aim = chance.choice([rule for rule in lab.rules if rule.effect == "allow"])
    team = aim.team or chance.choice(lab.teams)
    holders = [subject for (subject, where), roles in lab.held.items() if where == team and aim.role in roles]
    subject = chance.choice(holders or [f"user:{team}-0"])
    kind = aim.kind or "job"
    action = aim.action or chance.choice(JOB_ACTIONS)
    attributes = _attributes(kind, subject, lab, chance)
    _bend(attributes, aim.shape, aim.constants, chance)
    if spoiled:
        denies = [rule for rule in lab.rules if rule.effect == "deny" and rule.kind in (None, kind)]
        denies = [rule for rule in denies if rule.team in (None, team) and rule.action in (None, action)]
        if denies and chance.random() < 0.6:
            target = chance.choice(denies)
            _bend(attributes, target.shape, target.constants, chance)
        elif chance.random() < 0.5:
            subject = f"user:{chance.choice(lab.teams)}-{chance.randrange(PEOPLE_PER_TEAM)}"
        else:
            attributes = _attributes(kind, subject, lab, chance)
    area = aim.area or chance.choice(AREAS[2:])
    path = f"{area}/run-{chance.randrange(10_000)}"
    return Question(subject=subject, action=action, team=team, path=path, attributes=attributes)


def _attributes(kind: str, subject: str, lab: Workload, chance: random.Random) -> dict[str, Any]:
    labels = {"project": f"p{chance.randrange(20)}", "cost-centre": f"c{chance.randrange(9)}"}
    if kind == "checkpoint":
        return {"size_gb": chance.randrange(1, 900), "labels": labels}
    attributes: dict[str, Any] = {
        "gpus": chance.choice((1, 2, 4, 8, 8, 16, 32, 64)),
        "queue": _queue(lab, chance),
        "image_digest": _image(lab, chance),
        "code": {"dirty": chance.random() < 0.2, "commit": f"{chance.randrange(16**12):040x}"},
        "labels": labels,
        "checkpoints": [{"format": "safetensors", "producer": subject} for _ in range(chance.choice((0, 1, 1, 2)))],
    }
    if chance.random() < 0.05:
        attributes["ticket"] = f"CHG-{chance.randrange(9)}"
    return attributes


def _bend(attributes: dict[str, Any], shape: str, constants: Constants, chance: random.Random) -> None:
    """Change the attributes so that the condition holds."""
    first = constants[0]
    if shape in ("small_clean", "pinned_image", "large_dirty"):
        attributes["code"] = attributes["code"] | {"dirty": shape == "large_dirty"}
    if shape in ("queue_ceiling", "queue_limit", "late_deadline"):
        attributes["queue"] = first
    if shape in ("pinned_image", "banned_image"):
        attributes["image_digest"] = first
    if shape in ("project_label", "embargo"):
        attributes["labels"] = attributes["labels"] | {"project" if shape == "project_label" else "embargo": first}
    if shape == "reserved":
        attributes["reservation"] = first
    if shape == "safe_checkpoints":
        attributes["checkpoints"] = [c | {"format": "safetensors"} for c in attributes["checkpoints"]]
    if shape == "foreign_pickle":
        attributes["checkpoints"] = [{"format": "pickle", "producer": "user:somebody-else"}]
    if shape == "late_deadline":
        attributes["deadline_h"] = constants[1] + 1
    _bend_gpus(attributes, shape, constants, chance)


def _bend_gpus(attributes: dict[str, Any], shape: str, constants: Constants, chance: random.Random) -> None:
    ceilings = {"small_clean": 0, "safe_checkpoints": 0, "queue_ceiling": 1}
    floors = {"large_dirty": 0, "foreign_pickle": 0, "no_ticket": 0, "queue_limit": 1}
    if shape in ceilings:
        attributes["gpus"] = chance.randrange(1, constants[ceilings[shape]] + 1)
    if shape in floors:
        attributes["gpus"] = constants[floors[shape]] + chance.randrange(1, 32)
