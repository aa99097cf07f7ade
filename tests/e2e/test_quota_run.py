"""Quotas and the launcher: a job holds its room from the decision until it ends, as the configuration says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from policyguard.attest.statement import parse_statement
from policyguard.audit.entries import RESERVATION_ENTRY
from policyguard.audit.reservation_events import reservation_event
from policyguard.audit.stores import Row
from policyguard.audit.stores.claims import RESERVATION
from policyguard.audit.stores.sqlite import SqliteStore
from policyguard.cli.verbs.audit_.entries import parse_entry
from policyguard.errors import AccessDenied, EvidenceError, VerificationError
from policyguard.evidence.collector import JobInputs
from policyguard.guard import Guard
from policyguard.hooks.launcher.launch import launch
from policyguard.hooks.stdio import open_guard, read_options, respond
from policyguard.values import format_instant
from policyguard.verify import VerifiedDecision
from tests.e2e.cli_lab import Ended
from tests.e2e.launcher_lab import POLICIES, SCHEMA, Lab, make_lab, request

QUOTA_RULE = """\
  - id: team-quota
    effect: deny
    actions: [job:submit]
    resources: {type: job}
    when: resource.team_usage + resource.gpus > resource.team_limit
    reason: quota.team_limit
"""
GPUS = "      gpus: {type: int, unit: gpu}\n"
FIGURES = """\
      team_limit: {type: int, unit: gpu, assurance: observed}
      team_usage: {type: int, unit: gpu, assurance: observed}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = make_lab(tmp_path)
    (tmp_path / "policies" / "jobs.yaml").write_text(POLICIES.replace(GPUS, GPUS + FIGURES) + QUOTA_RULE)
    (tmp_path / "policyguard.yaml").write_text(
        "policies: policies\nkey: guard.key\nlog: audit.db\naudience: node-1\n"
        "quota: {file: quota.json, reserve: resource.gpus, by: resource.domain}\n"
    )
    figure(lab)
    return lab


def figure(lab: Lab, used: int = 56) -> None:
    """The scheduler counts again."""
    now = (lab.folder / "guard.key").stat().st_mtime_ns
    data = {"observed_at": format_instant(now), "teams": {"vision": {"limit": 64, "used": used}}}
    (lab.folder / "quota.json").write_text(json.dumps(data))


def guard_of(lab: Lab) -> Guard:
    return Guard.from_config(lab.folder / "policyguard.yaml")


def start(
    lab: Lab, *, on_start: Callable[[VerifiedDecision], None] | None = None, inputs: JobInputs | None = None
) -> int:
    with guard_of(lab) as guard:
        return launch(guard, request(), inputs or lab.inputs(), lab.trust, audience="node-1", on_start=on_start)


def events(lab: Lab) -> list[str]:
    """What the log says, entry by entry."""
    with SqliteStore.open(lab.folder / "audit.db", read_only=True) as store:
        leaves = [row.leaf for row in store.read(0, 99)]
    return [
        reservation_event(leaf, entry).event
        if RESERVATION_ENTRY.matches(leaf)
        else str((data := parse_entry(leaf, entry).data).get("decision", data.get("event")))
        for entry, leaf in enumerate(leaves)
    ]


def test_a_second_job_waits_until_the_first_ends(lab: Lab) -> None:
    """At its start the room is taken; afterwards it is there again."""
    refused: list[tuple[str, ...]] = []

    def meanwhile(_: VerifiedDecision) -> None:
        with pytest.raises(AccessDenied) as denied:
            start(lab)
        refused.append(denied.value.signed.decision.reason_codes)

    assert start(lab, on_start=meanwhile) == 0
    assert refused == [("quota.team_limit",)]
    assert start(lab) == 0
    ended = ["job.ended", "end"]
    assert events(lab) == ["allow", "reserve", "start", "deny", *ended, "allow", "reserve", "start", *ended]


def test_a_job_that_cannot_start_gives_its_room_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changed after the decision; the refusal is logged, and the next job has the room."""
    gather = Guard.gather

    def changing(guard: Guard, *arguments: object) -> object:
        facts = gather(guard, *arguments)  # type: ignore[arg-type]
        (lab.job / "train.py").write_text("import os\n")
        return facts

    before = (lab.job / "train.py").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(Guard, "gather", changing)
        with pytest.raises(VerificationError, match="V7"):
            start(lab)
    (lab.job / "train.py").write_text(before)
    assert start(lab) == 0
    assert events(lab)[:4] == ["allow", "reserve", "end", "deny"]


def test_a_job_whose_reservation_ended_does_not_start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another guard, whose clock was ahead, gave the room away between decision and start: refused, and logged."""
    gather, calls = Guard.gather, list[int]()

    def slow(guard: Guard, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            give_room_away(lab)
        return gather(guard, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Guard, "gather", slow)
    with pytest.raises(EvidenceError, match="has ended, expected one that holds"):
        start(lab)
    assert not lab.ran.exists()
    assert events(lab) == ["allow", "reserve", "deny"]


def give_room_away(lab: Lab) -> None:
    """Forget every reservation, as a guard with a later clock does."""
    with SqliteStore.open(lab.folder / "audit.db") as store:

        def forget(_: Row | None) -> list[Row]:
            for claim in store.claims.list_scope(RESERVATION, "vision"):
                store.claims.remove(RESERVATION, claim.name)
            return []

        store.append(forget)


def test_the_configuration_of_python_and_of_the_command_is_one(lab: Lab) -> None:
    """`Guard.from_config` reserves as `policyguard run` does; the statement says what was added."""
    with guard_of(lab) as guard:
        first = guard.decide(request(), lab.inputs())
        second = guard.decide(request(), lab.inputs())
    assert (first.decision.allowed, second.decision.allowed) == (True, False)
    recorded = parse_statement(second.envelope.payload).predicate.facts["resource.team_usage"]
    assert recorded.source == "quota, 8 of it reserved"


@pytest.mark.parametrize(("section", "second"), [("quota: {reserve: resource.gpus}\n", 77), ("", 0)])
def test_a_hook_reserves_in_the_figures_of_its_platform(lab: Lab, section: str, second: int) -> None:
    """The platform supplies limit and use with each request; the twin reserves nothing, which doctor notes."""
    config = lab.folder / "policyguard.yaml"
    config.write_text(f"policies: policies\nkey: guard.key\nlog: audit.db\n{section}")
    policies = SCHEMA.replace(GPUS, GPUS + FIGURES).replace(", assurance: measured", "")
    rule = 'rules:\n  - {id: small, effect: allow, actions: ["job:submit"], resources: {type: job}}\n'
    header = "---\napiVersion: policyguard/v1\nkind: Policy\nmetadata: {name: jobs, owner: platform}\n"
    (lab.folder / "policies" / "jobs.yaml").write_text(policies + header + rule + QUOTA_RULE)
    properties = {"gpus": 8, "team_limit": 64, "team_usage": 56}
    request = {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "job:submit"},
        "resource": {"type": "job", "id": "team/vision/run-1", "properties": properties},
    }
    words = ["--config", str(config), "--observed", "resource.team_limit", "--observed", "resource.team_usage"]
    answers = [respond(json.dumps(request).encode(), lambda: open_guard(read_options(words))) for _ in range(2)]
    assert [code for _, code in answers] == [0, second], answers


@pytest.mark.parametrize(("section", "is_noted"), [("", True), ("quota: {reserve: none}", True), (None, False)])
def test_doctor_notes_a_quota_in_which_nothing_is_reserved(
    lab: Lab, here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, section: str | None, is_noted: bool
) -> None:
    """Nothing is racy in silence; the twin is the configuration that reserves."""
    if section is not None:
        (lab.folder / "policyguard.yaml").write_text(f"policies: policies\nkey: guard.key\nlog: audit.db\n{section}\n")
    monkeypatch.chdir(lab.folder)
    notes = here("doctor", "--json").data["notes"]
    assert any("nothing is reserved" in note and "`job:submit`" in note for note in notes) == is_noted
