"""Rego on regorus' compiled VM: rules are data under (team, action, role), one Rego body a shape, one compiled program.

A Rego program is as fast as its data document lets it be, so the host arranges the rules for it: any-action rules are
written under every action, a role's rules under every role that inherits it, and each (effect, shape, any team?, any
role?) has a table of its own, read by a body that knows its own keys. Input is JSON text, data and program are
loaded once. A VM has one input at a time: each thread gets its own.

`rvm.execute` stops after 25,000 instructions, which the binding cannot raise; plainer arrangements of 10,000 rules
meet it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from regorus import Program, Rvm

from bench.peers import Prepared
from bench.workload import CHECKPOINT_ACTIONS, JOB_ACTIONS, Question, Rule, Workload

NAME = "regorus VM"
DISTRIBUTION = "gordon-to-regorus"
ENTRY = "data.lab.allow"

CONDITIONS: Mapping[str, str] = {
    "small_clean": "input.ctx.gpus <= r.c[0]; input.ctx.code.dirty == false",
    "queue_ceiling": "input.ctx.queue == r.c[0]; input.ctx.gpus <= r.c[1]",
    "pinned_image": "input.ctx.image_digest == r.c[0]; input.ctx.code.dirty == false",
    "safe_checkpoints": 'input.ctx.gpus <= r.c[0]; every k in input.ctx.checkpoints { k.format == "safetensors" }',
    "project_label": "input.ctx.labels.project == r.c[0]",
    "reserved": "input.ctx.reservation == r.c[0]",
    "large_dirty": "input.ctx.gpus > r.c[0]; input.ctx.code.dirty == true",
    "queue_limit": "input.ctx.queue == r.c[0]; input.ctx.gpus > r.c[1]",
    "banned_image": "input.ctx.image_digest == r.c[0]",
    "foreign_pickle": (
        'input.ctx.gpus >= r.c[0]; some k in input.ctx.checkpoints; k.format == "pickle"; k.producer != input.sub'
    ),
    "embargo": "input.ctx.labels.embargo == r.c[0]",
    "no_ticket": "input.ctx.gpus > r.c[0]; ticket != r.c[1]",
    "late_deadline": "input.ctx.queue == r.c[0]; input.ctx.deadline_h > r.c[1]",
}

EQUALITIES: Mapping[str, str] = {
    "queue_ceiling": "input.ctx.queue",
    "pinned_image": "input.ctx.image_digest",
    "project_label": "input.ctx.labels.project",
    "reserved": "input.ctx.reservation",
    "queue_limit": "input.ctx.queue",
    "banned_image": "input.ctx.image_digest",
    "embargo": "input.ctx.labels.embargo",
    "late_deadline": "input.ctx.queue",
}
"""The shapes whose first constant must equal this: where `by_value`, the constant is one more key of the table."""


def prepare(lab: Workload, *, by_value: bool = False) -> Prepared:
    """Return a VM with the program and the rules loaded."""
    tables = _tables(lab, by_value=by_value)
    data = json.dumps({"_".join(key): table for key, table in tables.items()})
    module = _module(tables, by_value=by_value)
    compiled = Program.compile_from_modules(data, [("lab.rego", module)], [ENTRY]).serialize_binary()

    def fork() -> Callable[[str], bool]:
        # Neither a program nor a VM may cross threads.
        program, _ = Program.deserialize_binary(compiled)
        rvm = Rvm()
        rvm.load_program(program)
        rvm.set_data_json(data)

        def decide(native: str) -> bool:
            rvm.set_input_json(native)
            return bool(rvm.execute() == "true")

        return decide

    return Prepared(list(_inputs(lab)), fork(), fork)


def _tables(lab: Workload, *, by_value: bool) -> dict[tuple[str, ...], Any]:
    """Return (effect, shape, one or any team, one or any role) -> nested keys -> rows."""
    heirs = {role: [heir for heir in lab.inherits if role in _ancestry(heir, lab)] for role in lab.inherits}
    tables: dict[tuple[str, ...], Any] = {}
    for rule in lab.rules:
        effect = "permit" if rule.effect == "allow" else "forbid"
        key = (effect, rule.shape, "one" if rule.team else "any", "one" if rule.role else "any")
        row = {"p": f"{rule.area}/" if rule.area else "", "c": list(rule.constants)}
        for path in _paths(rule, heirs):
            value: list[Any] = [rule.constants[0]] if by_value and rule.shape in EQUALITIES else []
            keys = path + value
            table = tables.setdefault(key, {})
            for name in keys[:-1]:
                table = table.setdefault(name, {})
            table.setdefault(keys[-1], []).append(row)
    return tables


def _paths(rule: Rule, heirs: Mapping[str, list[str]]) -> Iterator[list[str]]:
    all_actions = JOB_ACTIONS + CHECKPOINT_ACTIONS
    actions = [rule.action] if rule.action else [a for a in all_actions if rule.kind in (None, a.partition(":")[0])]
    roles: list[list[str]] = [[heir] for heir in heirs[rule.role]] if rule.role else [[]]
    for action in actions:
        for role in roles:
            yield [*([rule.team] if rule.team else []), action, *role]


def _ancestry(role: str, lab: Workload) -> set[str]:
    return {role}.union(*(_ancestry(parent, lab) for parent in lab.inherits[role]))


def _module(tables: Mapping[tuple[str, ...], Any], *, by_value: bool) -> str:
    bodies = [_body(key, by_value=by_value) for key in sorted(tables)]
    return "\n".join(
        [
            "package lab",
            "import rego.v1",
            "default allow := false",
            'default ticket := ""',
            "ticket := input.ctx.ticket",
            *bodies,
            "allow if { not forbid; permit }",
        ]
    )


def _body(key: tuple[str, ...], *, by_value: bool) -> str:
    effect, shape, team, role = key
    table = f"data.{'_'.join(key)}" + ("[input.dom]" if team == "one" else "") + "[input.act]"
    table += "[role]" if role == "one" else ""
    table += f"[{EQUALITIES[shape]}]" if by_value and shape in EQUALITIES else ""
    choose = "some role in input.roles; " if role == "one" else ""
    return f"{effect} if {{ {choose}some r in {table}; startswith(input.path, r.p); {CONDITIONS[shape]} }}"


def _inputs(lab: Workload) -> Iterator[str]:
    direct: dict[tuple[str, str], set[str]] = {}
    for subject, role, domain in lab.bindings:
        for team in lab.teams if domain == "*" else (domain,):
            direct.setdefault((subject, team), set()).add(role)
    for question in lab.questions:
        yield json.dumps(_input(question, direct.get((question.subject, question.team), set())))


def _input(question: Question, roles: set[str]) -> dict[str, Any]:
    return {
        "sub": question.subject,
        "dom": question.team,
        "act": question.action,
        "roles": sorted(roles),
        "path": question.path,
        "ctx": question.attributes,
    }
