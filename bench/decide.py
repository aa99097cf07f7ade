"""Deciding: ours beside the engines a Python user would pick, how it grows, and how far it is from the floor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from bench import peers
from bench.documents import NOW, facts, sources
from bench.peers import Prepared
from bench.report import Section, Target, times, us
from bench.timing import Contestant, Threaded, race, threaded
from bench.workload import Workload
from policyguard.decide.evaluate import Snapshot
from policyguard.policy.loader import load

OURS = "policyguard"
THREADS = 4


@cache
def lab(size: int) -> Workload:
    """Return the lab of this size, built once a run."""
    return Workload.build(size)


@cache
def snapshot(size: int) -> Snapshot:
    """Return our compiled form of the lab, read from its own YAML."""
    return Snapshot.compile(load(sources(lab(size))))


def ours(size: int) -> Prepared:
    """Return this package with the lab loaded: a parsed request and its facts in, a full `Decision` out."""
    decide = snapshot(size).decide

    def allowed(given: object) -> bool:
        return decide(given, NOW).allowed  # type: ignore[arg-type]

    return Prepared([facts(question) for question in lab(size).questions], allowed)
