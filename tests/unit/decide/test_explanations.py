"""Whole explanations, line by line, as `tests/data/explain/expected.txt` has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Assurance, Fact, Facts
from policyguard.model.request import Request
from policyguard.policy.loader import load
from policyguard.policy_store.folder import grants_of
from policyguard.values import FrozenMap, freeze

NOW = 1_800_000_000 * 10**9
FOLDER = Path(__file__).parents[2] / "data" / "explain"
POLICIES = load({"p.yaml": (FOLDER / "policies.yaml").read_bytes()})
ENGINE = Engine(Snapshot.of(POLICIES, grants_of(POLICIES)))
EXPECTED = dict(part.split("\n", 1) for part in f"\n{(FOLDER / 'expected.txt').read_text()}".split("\n# ")[1:])
DIRTY, CLEAN = {"dirty": True, "files": ["a", "b"]}, {"dirty": False, "files": []}

CASES: dict[str, dict[str, Any]] = {
    "an allow in full": {"full": True},
    "fields for trace, to an auditor": {"gpus": 51, "code": DIRTY, "full": True, "viewer": "user:olga"},
    "fields for trace, to another": {"gpus": 51, "code": DIRTY, "full": True, "viewer": "user:lena"},
    "fields for trace, to nobody": {"gpus": 51, "code": DIRTY},
    "fields for trace, to an auditor of the domain": {"gpus": 51, "code": DIRTY, "viewer": "user:ora"},
    "fields for trace, to an auditor of another": {
        "gpus": 51,
        "code": DIRTY,
        "viewer": "user:ora",
        "resource": "job:team/green/run",
    },
    "text for a number, to an auditor": {"gpus": "6", "viewer": "user:ora"},
    "an allow without a condition": {"action": "job:list"},
    "five that could have": {"action": "job:kill"},
    "a sensitive value": {"gpus": 61, "code": CLEAN, "secret": "x"},
    "a sensitive value in full": {"subject": "user:zoe", "gpus": 61, "code": CLEAN, "secret": "y", "full": True},
    "a deny in error": {"gpus": 101, "code": CLEAN, "secret": "y"},
    "a stranger": {"subject": "user:zoe"},
    "a rule by name": {"subject": "user:bob", "gpus": 0},
    "a weak fact": {"weak": "clean"},
    "a missing fact": {"clean": None, "missing": {"resource.clean": "git: no repository"}},
    "a missing sensitive fact": {"gpus": 61, "code": CLEAN, "missing": {"resource.secret": "vault: it is x"}},
    "two quorums": {"gpus": 6},
    "text for a number": {"gpus": "6"},
    "another id": {"resource": "job:x"},
    "nearly an action": {"action": "job:submitt"},
    "an unknown action": {"action": "job:zzz"},
    "nearly a type": {"resource": "jobs:x"},
    "an unknown type": {"resource": "zzz:x"},
    "nearly a subject": {"subject": "usr:x"},
    "an action without rules": {"action": "node:drain", "resource": "node:n1"},
    "lists and maps": {"action": "job:stop", "tags": ["a"], "labels": {"team": "x"}},
    "a long value": {"action": "job:stop", "tags": ["b" * 300], "labels": {"team": "y"}},
    "an allow in error in full": {"action": "job:stop", "full": True},
}


@pytest.mark.parametrize("case", CASES)
def test_an_explanation_says_what_was_decided_and_no_more(case: str) -> None:
    """The rules that fired or nearly did, what they read, what is hidden from whom, and who can help."""
    options = {"subject": "user:alice", "action": "job:submit", "resource": "job:team/red/run", **CASES[case]}
    values: dict[str, Any] = {name: options[name] for name in ("code", "secret", "tags", "labels") if name in options}
    values |= {"gpus": options.get("gpus", 1), "clean": options.get("clean", True)}
    facts = {
        f"resource.{name}": Fact(
            freeze(value), Assurance.CLAIMED if name == options.get("weak") else Assurance.MEASURED, "test", NOW
        )
        for name, value in values.items()
        if value is not None
    }
    request = Request.of(options["subject"], options["action"], options["resource"])
    known = Facts(request, facts, FrozenMap(options.get("missing", {})), contributors=())
    text = ENGINE.explain(
        ENGINE.decide(known, NOW), full=options.get("full", False), viewer=options.get("viewer")
    ).replace(ENGINE.policy_digest[:16], "DIGEST")
    assert text == EXPECTED[case].rstrip("\n")


def test_without_rules_nothing_is_allowed_and_that_is_reported() -> None:
    """Whatever is asked for."""
    empty = msgspec.structs.replace(POLICIES, rules=())
    engine = Engine(Snapshot.of(empty, grants_of(empty)))
    for ref in ("job:team/red/run", "ghost:x"):
        decision = engine.decide(Facts(Request.of("user:alice", "job:submit", ref), {}), NOW)
        assert decision.explain().splitlines()[1:3] == ["reason   engine.no_rules", "because  no rules are loaded"]
