"""Fuzz signed snapshots: `python tests/fuzz/fuzz_snapshot.py SEED SECONDS`. Prints counts and every escape.

Each mutant is the example policies' compiled form with one place changed. It is refused in words, or deciding,
explaining and stating never raise on it. A finding becomes a case of the attack tests before it is fixed.
"""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from policyguard.analysis.requests import Requests
from policyguard.attest.dsse import sign
from policyguard.attest.keys import PrivateKey
from policyguard.attest.statement import decision_statement
from policyguard.decide.compiled_form import compile_policy
from policyguard.decide.engine import INTERNAL_ERROR, Engine
from policyguard.decide.explain import explain
from policyguard.decide.snapshot import Snapshot
from policyguard.errors import ConfigurationError
from policyguard.model.facts import Facts
from policyguard.policy.bundle import PAYLOAD_TYPE, open_sealed
from policyguard.policy_store.folder import grants_of, policy_set_of_folder
from policyguard.values import Instant, canonical

Path_ = tuple[Any, ...]

KEY = PrivateKey.generate(bytes(32))
POLICIES = Path(__file__).parents[2] / "policies"
SLOW_S = 10
"""A mutant that takes longer is a finding as well."""

VALUES: list[Any] = [
    *("", "x", "int", "bool", "string", "list(int)", "list(", "map(", "dyn", "subject", "resource", "timestamp"),
    *(
        "a" * 600,
        "\ud800",
        "a\u0301",
        "*",
        "**",
        "{team}",
        "{team}/**/{team}",
        "%2e",
        "a\x00b",
        "[]",
        "((",
        "-0",
        "1_0",
    ),
    *(0, -1, 1, 2**31, 2**53, 2**63, -(2**63) - 1, -(2**70), 10**30, True, False, None, 1.5, float("nan")),
    *([], {}, [[]], [""], {"": ""}, [None], [[[]]], {"x": 1}, [0] * 500),
    ["c", 1, "int", 0],
    ["c", "1", "int", 0],
    ["c", True, "string", 0],
    ["o", 999, "int", 0],
    ["o", -1, "string", 0],
    ["v", "nope", "int", 0],
    ["v", "", "string", 0],
    ["v", "resource", "resource", 0],
    ["s", ["v", "resource", "resource", 0], "gpus", "int", 0],
    ["s", ["v", "resource", "resource", 0], "gpus", "string", 0],
    ["h", ["v", "now", "timestamp", 0], "x", 0],
    ["l", [], "list(dyn)", 0],
    ["q", "map", "x", ["l", [], "list(dyn)", 0], ["v", "x", "dyn", 0], "list(dyn)", [], 0],
    ["f", "divide_int64", [["c", 1, "int", 0], ["c", 0, "int", 0]], "int", 0],
]


class Corpus:
    """The compiled example policies, and requests that reach every rule that random ones reach."""

    def __init__(self, count: int = 400) -> None:
        policy_set = policy_set_of_folder(POLICIES)
        self.compiled: dict[str, Any] = msgspec.json.decode(
            canonical(compile_policy(policy_set, grants_of(policy_set)))
        )
        engine = Engine(Snapshot.from_compiled(self.compiled, "0" * 64))
        self.questions: list[tuple[Facts, Instant]] = []
        seen: set[str] = set()
        for facts, now in Requests(policy_set, 1).take(count, lambda facts, now: engine.decide(facts, now).allowed):
            decision = engine.decide(facts, now)
            reached = {*decision.determining, *decision.errored, *decision.requiring}
            if reached - seen:
                seen |= reached
                self.questions.append((facts, now))
        self.places = [place for place in _places(self.compiled) if place]
        self.conditions = [place for place in self.places if place[:2] == ("policy", "shapes")]

    def mutant(self, pick: random.Random) -> tuple[dict[str, Any], Path_, object]:
        """Change one place: another value, a part of another place, or nothing there."""
        place = pick.choice(self.conditions if pick.random() < 0.5 else self.places)
        kind = pick.randrange(6)
        if kind == 0:
            return _changed(self.compiled, place, None), place, "(removed)"
        value = _at(self.compiled, pick.choice(self.places)) if kind == 1 else pick.choice(VALUES)
        return _changed(self.compiled, place, [value]), place, value

    def member_mutant(self, pick: random.Random) -> tuple[bytes, str]:
        """Remove, add or write twice one member of a map at any level; return the signed file and what was done."""
        place = pick.choice([(), *(place for place in self.places if isinstance(_at(self.compiled, place), dict))])
        members = _at(self.compiled, place)
        change = pick.choice(("remove", "add", "repeat"))
        name = pick.choice(sorted(members) or [""])
        if change == "remove":
            payload = canonical(_changed(self.compiled, (*place, name), None) if members else self.compiled)
        else:
            # An escape that no snapshot has is written first, and replaced by the name in the text.
            value = members.get(name, 0) if pick.random() < 0.5 else pick.choice(("x", 0, [], {}))
            payload = canonical(_changed(self.compiled, (*place, "\0"), [value]))
            text = canonical(name) if change == "repeat" else b'"unknown"'
            payload = payload.replace(b'"\\u0000"', text)
        return sign(payload, PAYLOAD_TYPE, [KEY]).to_bytes(), change


def _places(data: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from _places(value, (*path, key))


def _at(data: Any, place: Path_) -> Any:
    for step in place:
        data = data[step]
    return data


def _changed(data: Any, place: Path_, put: list[Any] | None) -> Any:
    """Copy the data with the one item of `put` at this place, or with nothing there; other parts are shared."""
    copy = dict(data) if isinstance(data, dict) else list(data)
    if len(place) > 1:
        copy[place[0]] = _changed(data[place[0]], place[1:], put)
    elif put is None:
        copy.pop(place[0])
    else:
        copy[place[0]] = put[0]
    return copy


def attempt(corpus: Corpus, compiled: dict[str, Any] | bytes) -> str:
    """Load and use one mutant or signed file; return `refused` or `loaded`, or raise what must not escape."""
    try:
        opened = open_sealed(compiled, [KEY.public]) if isinstance(compiled, bytes) else (compiled, "0" * 64)
        snapshot = Snapshot.from_compiled(*opened)
    except ConfigurationError as problem:
        if not str(problem).isprintable():
            raise
        return "refused"
    engine = Engine(snapshot)
    for warm in (False, True):
        if warm:
            snapshot.build_indexes()
        for facts, now in corpus.questions:
            decision = engine.decide(facts, now)
            if decision.reason_codes == (INTERNAL_ERROR,):
                raise AssertionError(decision.explain())
            assert explain(snapshot, decision, full=True).encode()
            assert explain(snapshot, decision, viewer="user:alice")
            read = snapshot.facts_read_by(decision)
            snapshot.lasts_until(decision, now, now + 10**12)
            snapshot.consumes_approvals(decision)
            decision_statement(
                decision,
                facts.request,
                decision_id="0" * 32,
                audience="a",
                issued_at=now,
                not_before=now,
                expires=now + 10**9,
                recorded_paths=read,
                sensitive=snapshot.sensitive(facts.request),
                redactions=snapshot.redactions(facts.request),
            )
    assert snapshot.request_only_actions is not None
    assert snapshot.single_use_actions is not None
    return "loaded"


def run(
    corpus: Corpus, seed: int, seconds: float
) -> tuple[Counter[str], dict[tuple[str, str], tuple[int, Path_, object]]]:
    """Try mutants until the time is over; return how they ended, and every escape with its first example."""
    pick = random.Random(seed)
    ends: Counter[str] = Counter()
    escapes: dict[tuple[str, str], tuple[int, Path_, object]] = {}
    until = time.monotonic() + seconds

    def too_slow(*_: object) -> None:
        raise TimeoutError("a mutant took too long")

    signal.signal(signal.SIGALRM, too_slow)
    while time.monotonic() < until:
        compiled: dict[str, Any] | bytes
        compiled, place, value = corpus.mutant(pick)
        if pick.random() < 0.3:
            compiled, value = corpus.member_mutant(pick)
        signal.setitimer(signal.ITIMER_REAL, SLOW_S)
        try:
            ends[attempt(corpus, compiled)] += 1
        except Exception as problem:  # noqa: BLE001 - whatever escapes is what this looks for
            at = traceback.extract_tb(problem.__traceback__)[-1]
            key = (type(problem).__name__, f"{at.filename.rpartition('policyguard/')[2]}:{at.lineno}")
            count = escapes.get(key, (0, place, value))
            escapes[key] = (count[0] + 1, *count[1:])
            ends["escaped"] += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return ends, escapes


if __name__ == "__main__":
    corpus = Corpus()
    ends, escapes = run(corpus, int(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write(f"{len(corpus.questions)} requests, seed {sys.argv[1]}: {dict(ends)}\n")
    for key, (count, place, value) in sorted(escapes.items(), key=lambda item: -item[1][0]):
        sys.stdout.write(f"{count} {key} at {place}: {value!r:.100}\n")
    sys.exit(1 if escapes else 0)
