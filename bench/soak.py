"""A thread loads policies again and again while others decide: no wrong answer, and no growth with strangers.

Two labs take turns under one reference, as `Guard.reload` swaps them. Each answer is compared with what the naive
evaluation says of the lab that the decision names by its digest; strangers are subjects nobody has bound.
`python -m bench.soak [SECONDS] [THREADS]` exits 1 if anything is wrong.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from bench.documents import NOW, facts, sources
from bench.report import Section, Target
from bench.resident import resident_bytes
from bench.workload import SEED, Workload
from policyguard.decide.assign_roles import assign_roles
from policyguard.decide.engine import Engine
from policyguard.decide.snapshot import Snapshot
from policyguard.model.facts import Facts
from policyguard.model.request import Entity
from policyguard.policy.loader import load

RULES = 100
STRANGERS = 50_000


@dataclass(slots=True)
class Watch:
    """What the deciding threads see; `current` is the one reference that the loader replaces."""

    current: Snapshot
    expected: Mapping[str, Mapping[int, bool]]
    questions: list[tuple[int, Facts]]
    stop: threading.Event = field(default_factory=threading.Event)
    decided: int = 0
    wrong: int = 0
    reloads: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def soak(seconds: float = 10.0, threads: int = 4) -> Section:
    """Count what happens in this number of seconds of reloading and deciding, and the growth after 50,000 strangers."""
    labs = [Workload.build(RULES, seed=seed, questions=60) for seed in (SEED, SEED + 1)]
    watch = _watch(labs)
    workers = [threading.Thread(target=_decide, args=(watch,)) for _ in range(threads)]
    loader = threading.Thread(target=_reload, args=(watch, [sources(lab) for lab in labs]))
    for thread in (*workers, loader):
        thread.start()
    time.sleep(seconds)
    watch.stop.set()
    for thread in (*workers, loader):
        thread.join()
    growth = strangers(watch.current, watch.questions[0][1])
    section = Section("Soak", ("seconds", "threads", "reloads", "decisions", "wrong", "growth with strangers"))
    section.rows.append(
        (
            f"{seconds:g}",
            f"{threads}",
            f"{watch.reloads:,}",
            f"{watch.decided:,}",
            f"{watch.wrong}",
            f"{growth / 1e6:.1f} MB",
        )
    )
    section.targets = [
        Target("wrong answers", watch.wrong, 0),
        Target("reloads while deciding", watch.reloads, 2, True),
        Target(f"growth after {STRANGERS:,} unknown subjects, MB", growth / 1e6, 1),
    ]
    return section


def strangers(snapshot: Snapshot, pattern: Facts, count: int = STRANGERS) -> int:
    """Return how many bytes the resident set grew by deciding for `count` subjects that nobody knows."""
    for n in range(1_000):
        Engine(snapshot).decide(_stranger(pattern, -n), NOW)
    before = resident_bytes()
    for n in range(count):
        Engine(snapshot).decide(_stranger(pattern, n), NOW)
    return resident_bytes() - before


def _stranger(pattern: Facts, n: int) -> Facts:
    request = msgspec.structs.replace(pattern.request, subject=Entity("user", f"stranger-{n}"))
    return msgspec.structs.replace(pattern, request=request)


def _watch(labs: list[Workload]) -> Watch:
    questions = [question for lab in labs for question in lab.questions]
    snapshots = [_snapshot(sources(lab)) for lab in labs]
    expected = {
        snapshot.policy_digest: {n: lab.decide(question) for n, question in enumerate(questions)}
        for snapshot, lab in zip(snapshots, labs, strict=True)
    }
    return Watch(snapshots[0], expected, [(n, facts(question)) for n, question in enumerate(questions)])


def _snapshot(texts: Mapping[str, bytes]) -> Snapshot:
    policies = load(texts)
    return Snapshot.of(policies, assign_roles(policies.roles, policies.bindings, policies.exclusions))


def _reload(watch: Watch, labs: list[dict[str, bytes]]) -> None:
    while not watch.stop.is_set():
        watch.current = _snapshot(labs[watch.reloads % 2])
        watch.reloads += 1


def _decide(watch: Watch) -> None:
    decided = wrong = 0
    while not watch.stop.is_set():
        for number, claims in watch.questions:
            decision = Engine(watch.current).decide(claims, NOW)
            decided += 1
            wrong += decision.allowed is not watch.expected[decision.policy_digest][number]
    with watch.lock:
        watch.decided += decided
        watch.wrong += wrong


if __name__ == "__main__":
    argv = sys.argv[1:]
    outcome = soak(float(argv[0]) if argv else 10.0, int(argv[1]) if argv[1:] else 4)
    sys.stdout.write(f"{outcome.headers}\n{outcome.rows[0]}\n")
    sys.exit(0 if all(target.met for target in outcome.targets) else 1)
