"""Signed snapshots of another make: every malformed part is one clear refusal, never a traceback or a silent allow."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyguard.decide.compiled_form import compile_policy
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.model.facts import Facts, claims
from policyguard.model.request import Request
from policyguard.policy_store.folder import grants_of, policy_set_of_folder
from policyguard.values import canonical

POLICY_SET = policy_set_of_folder(Path(__file__).parents[2] / "policies")
COMPILED: dict[str, Any] = msgspec.json.decode(canonical(compile_policy(POLICY_SET, grants_of(POLICY_SET))))
REQUIRE = next(n for n, rule in enumerate(COMPILED["policy"]["rules"]) if rule[1] == 2)
ALLOW = next(n for n, rule in enumerate(COMPILED["policy"]["rules"]) if rule[1] == 0)
Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> dict[str, Any]:
    compiled = deepcopy(COMPILED)
    change(compiled)
    return compiled


def rule(number: int, field: int, value: object) -> Change:
    return lambda compiled: compiled["policy"]["rules"][number].__setitem__(field, value)


CHANGES: dict[str, Change] = {
    "another format": lambda c: c.update(format="policyguard/compiled/v2"),
    "no policy": lambda c: c.pop("policy"),
    "no places": lambda c: c.pop("places"),
    "fewer places than rules": lambda c: c["places"].pop(),
    "a place too short": lambda c: c["places"][0].pop(),
    "an unknown part": lambda c: c["policy"].update(overrides=[]),
    "an effect of tomorrow": rule(ALLOW, 1, 3),
    "an effect below zero": rule(ALLOW, 1, -1),
    "an effect that is a bool": rule(ALLOW, 1, True),
    "a condition below zero": rule(ALLOW, 8, -2),
    "a condition that is not there": rule(ALLOW, 8, 10**6),
    "a rule for the empty role": rule(ALLOW, 4, [""]),
    "a rule of no action": rule(ALLOW, 2, []),
    "a rule of an unknown type": rule(ALLOW, 3, ["ghost"]),
    "a rule with a field more": lambda c: c["policy"]["rules"][ALLOW].append(1),
    "a rule with a field less": lambda c: c["policy"]["rules"][ALLOW].pop(),
    "an allow with a quorum": rule(ALLOW, 10, "two-leads"),
    "a require without a quorum": rule(REQUIRE, 10, None),
    "a require with an unknown quorum": rule(REQUIRE, 10, "ghost"),
    "too few constants": rule(ALLOW, 9, []),
    "too many constants": rule(ALLOW, 9, [1] * 50),
    "a time that is none": rule(ALLOW, 16, "tomorrow"),
    "one id twice": rule(ALLOW, 0, COMPILED["policy"]["rules"][REQUIRE][0]),
    "a quorum of nobody": lambda c: c["policy"]["quorums"][0].update(approvers=[]),
    "a quorum of none": lambda c: c["policy"]["quorums"][0]["approvers"][0].update(count=0),
    "a quorum without roles": lambda c: c["policy"]["quorums"][0]["approvers"][0].update(roles=[]),
    "an epoch in text": lambda c: c["policy"].update(epoch="1"),
    "a shape of another version": lambda c: c["policy"]["shapes"][0].__setitem__(0, 2),
    "a shape of an unknown function": lambda c: c["policy"].update(shapes=[[1, ["f", "system", [], "bool", 0]]]),
    "grants of another version": lambda c: c["policy"]["grants"].update(format=2),
    "grants without roles": lambda c: c["policy"]["grants"].pop("roles"),
    "persons as text": lambda c: c["policy"].update(persons="ann"),
    "a schema of an unknown kind": lambda c: c["policy"]["schema"]["context"].update(
        x={"name": "x", "type": {"kind": "float"}}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_malformed_snapshot_is_refused_in_one_line(change: Change) -> None:
    """INVARIANT I4: what a pinned key signed is still read as data; its twin as compiled loads."""
    with pytest.raises(ConfigurationError, match=r"^compiled snapshot: ") as caught:
        Snapshot.from_compiled(changed(change), "0" * 64)
    assert str(caught.value).isprintable()
    assert caught.value.help == "compile the policies again"
    assert Snapshot.from_compiled(COMPILED, "0" * 64).rules


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(found for key, value in inner for found in _places(value, (*path, key)))]


PLACES = [path for path in _places(COMPILED) if path]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([None, True, 0, -1, 2**70, "", "x", [], {}, [[]], {"x": 1}]))
def test_a_snapshot_changed_anywhere_loads_or_is_refused(path: tuple[Any, ...], value: object) -> None:
    """Whatever stands at a place: a refusal in words, or a snapshot that answers without raising."""
    compiled = deepcopy(COMPILED)
    holder = compiled
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    try:
        snapshot = Snapshot.from_compiled(compiled, "0" * 64)
    except ConfigurationError:
        return
    request = Request.of("user:alice", "job:submit", "job:team/vision/run-17", gpus=8)
    decision = Engine(snapshot).decide(Facts(request, claims(request, 5)), 5)
    assert decision.explain()
