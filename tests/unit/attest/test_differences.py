"""V7 names what differs, with both values; what is hidden stays hidden, and what is long stays short."""

from __future__ import annotations

from typing import Any

import pytest

from policyguard.attest.differences import MAX_DIFFERENCES, differences, uncompared
from policyguard.attest.statement import parse_statement
from policyguard.guard import Guard
from policyguard.model.facts import Assurance, Fact, Facts, claims
from policyguard.model.request import Request
from policyguard.values import FrozenMap, freeze

POLICIES = """
apiVersion: policyguard/v1
kind: Schema
subjects: {user: {}}
resources:
  job:
    id: "team/{team}/**"
    actions: [submit]
    attributes:
      gpus: {type: int}
      argv: {type: list(string), optional: true}
      badge: {type: string, optional: true, sensitive: true}
---
apiVersion: policyguard/v1
kind: Policy
metadata: {name: jobs, owner: platform}
rules: [{id: small, effect: allow, actions: [job:submit], resources: {type: job}, when: resource.gpus <= 64}]
"""
CODE = {"commit": "a" * 40, "tree": "b" * 40, "dirty": False}
DECIDED: dict[str, Any] = {"resource.argv": ["python", "train.py"], "resource.code": CODE}


def asked(**claimed: Any) -> Request:
    return Request.of("user:alice", "job:submit", "job:team/vision/run-17", **{"gpus": 8, **claimed})


def named(decided: dict[str, Any], here: dict[str, Any], request: Request | None = None) -> list[str]:
    """Decide with these bound facts, and compare with what runs here."""
    facts = Facts(
        asked(),
        {
            **claims(asked(), 1),
            **{path: Fact(freeze(value), Assurance.MEASURED, "test", 1, bound=True) for path, value in decided.items()},
        },
    )
    signed = Guard.in_memory(POLICIES).issue(facts)
    predicate = parse_statement(signed.envelope.payload).predicate
    bound = {path: freeze(value) for path, value in here.items()}
    return differences(predicate, request or asked(), bound, signed.digest_key)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": (DECIDED, DECIDED, []),
    "another program": (
        DECIDED,
        {**DECIDED, "resource.argv": ["python", "evil.py"]},
        ['resource.argv: decided ["python", "train.py"], this job ["python", "evil.py"]'],
    ),
    "a field of a record": (
        DECIDED,
        {**DECIDED, "resource.code": {**CODE, "dirty": True}},
        ["resource.code.dirty: decided false, this job true"],
    ),
    "a field more": (
        DECIDED,
        {**DECIDED, "resource.code": {**CODE, "branch": "x"}},
        ['resource.code.branch: decided nothing, this job "x"'],
    ),
    "one file of several": (
        {"resource.files": [{"path": "a.py", "digest": "1"}, {"path": "b.py", "digest": "2"}]},
        {"resource.files": [{"path": "a.py", "digest": "1"}, {"path": "b.py", "digest": "3"}]},
        ['resource.files[b.py].digest: decided "2", this job "3"'],
    ),
    "a file that is new": (
        {"resource.files": [{"path": "a.py", "digest": "1"}]},
        {"resource.files": [{"path": "a.py", "digest": "1"}, {"path": "b.py"}]},
        ['resource.files[b.py]: decided nothing, this job {"path": "b.py"}'],
    ),
    "a secret": (
        {"resource.argv": ["t", "--api-key", "hunter2"]},
        {"resource.argv": ["t", "--api-key", "hunter3"]},
        ["resource.argv: decided"],
    ),
    "one word of a long command": (
        {"resource.argv": ["t", *(["x" * 20] * 30), "--lr=1"]},
        {"resource.argv": ["t", *(["x" * 20] * 30), "--lr=2"]},
        ['resource.argv[31]: decided "--lr=1", this job "--lr=2"'],
    ),
    "a list in a record beyond the bound": (
        {"resource.code": {**CODE, "dirty_files": [f"file-{n}" for n in range(900)]}},
        {"resource.code": {**CODE, "dirty_files": [f"file-{n}" for n in range(901)]}},
        ['resource.code.dirty_files: decided {"count": 900, "digest": "'],
    ),
    "a commit in a record beyond the bound": (
        {"resource.code": {**CODE, "dirty_files": [f"file-{n}" for n in range(900)]}},
        {"resource.code": {**CODE, "commit": "c" * 40, "dirty_files": [f"file-{n}" for n in range(900)]}},
        [f'resource.code.commit: decided "{"a" * 40}", this job "{"c" * 40}"'],
    ),
    "the number of items of a list beyond the bound": (
        {"resource.checkpoints": [{"path": f"shard-{n}", "digest": "d" * 64} for n in range(200)]},
        {"resource.checkpoints": [{"path": f"shard-{n}", "digest": "d" * 64} for n in range(201)]},
        ["resource.checkpoints: decided 200 items, this job 201"],
    ),
    "the last item of a list beyond the bound": (
        {"resource.checkpoints": [{"path": f"shard-{n}", "digest": "d" * 64} for n in range(200)]},
        {"resource.checkpoints": [{"path": f"shard-{n}", "digest": "d" * 63 + str(n // 199)} for n in range(200)]},
        ["resource.checkpoints"],
    ),
}


@pytest.mark.parametrize(("decided", "here", "expected"), CASES.values(), ids=CASES)
def test_what_differs_is_named(decided: dict[str, Any], here: dict[str, Any], expected: list[str]) -> None:
    lines = named(decided, here)
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=False)] == expected, lines
    assert bool(lines) == bool(expected)
    assert not any("hunter" in line for line in lines)


def test_the_line_of_v7_is_bounded() -> None:
    """Every file of a large job changed: a few are named, the others counted, and no value is long."""
    files = [{"path": f"f{n}", "digest": "d"} for n in range(40)]
    lines = named({"resource.files": files}, {"resource.files": [{**file, "digest": "e" * 900} for file in files]})
    assert (len(lines), lines[-1]) == (MAX_DIFFERENCES + 1, "and 35 more")
    assert max(map(len, lines)) < 400


def test_a_claim_that_differs_is_named() -> None:
    assert named(DECIDED, DECIDED, asked(gpus=64)) == ["resource.gpus: decided 8, this job 64"]


def test_who_and_what_is_named() -> None:
    other = Request.of("user:bob", "job:submit", "job:team/vision/run-18", gpus=8)
    assert named(DECIDED, DECIDED, other) == [
        'subject: decided "user:alice", this job "user:bob"',
        'resource: decided "job:team/vision/run-17", this job "job:team/vision/run-18"',
    ]


def test_a_sensitive_fact_is_not_printed() -> None:
    """The line of V7 is logged: it quotes no value that the schema hides, of the decision or of this job."""
    assert named({"resource.badge": "red"}, {"resource.badge": "blue"}) == []
    facts = Facts(asked(), {"resource.badge": Fact("red", Assurance.MEASURED, "test", 1, bound=True)})
    signed = Guard.in_memory(POLICIES).issue(facts)
    assert uncompared(parse_statement(signed.envelope.payload).predicate) == ["resource.badge"]


def test_control_characters_stay_in_their_line() -> None:
    lines = named(DECIDED, {**DECIDED, "resource.argv": FrozenMap({"a\x1b[2J\n": "\u202e"})})
    assert all(line.isprintable() for line in lines)
