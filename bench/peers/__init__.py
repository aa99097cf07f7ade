"""The engines measured beside ours: one module each, lowering the same lab to what its own users would write.

A module has `NAME`, `DISTRIBUTION` and `prepare(lab)`. Everything that can be done before a request comes is done in
`prepare`, the request's own form included, so that `decide` is the engine alone; where an engine has no roles, closed
roles are handed to it. `prepare` raises `ImportError` if the engine is not installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from bench.workload import Workload

NAMES = ("pycasbin", "pycasbin_functions", "cedar", "regorus", "regorus_by_value", "vakt")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An engine with the lab loaded; `requests[i]` is question i in its own form, `decide` answers one."""

    requests: list[Any]
    decide: Callable[[Any], bool]
    fork: Callable[[], Callable[[Any], bool]] | None = None
    """Returns a `decide` for another thread, for engines whose own cannot be shared."""

    def for_thread(self) -> Callable[[Any], bool]:
        """Return a `decide` that this thread may use while others decide."""
        return self.decide if self.fork is None else self.fork()


class Disagreement(AssertionError):
    """An engine answers a question differently from the naive evaluation."""


def module(name: str) -> ModuleType:
    """Return the peer's module."""
    return importlib.import_module(f"bench.peers.{name}")


def prepare(name: str, lab: Workload) -> Prepared:
    """Return the peer with the lab loaded."""
    prepared: Prepared = module(name).prepare(lab)
    return prepared


def version(name: str) -> str:
    """Return `distribution version` of the peer, or that it is not installed."""
    distribution: str = module(name).DISTRIBUTION
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return f"{distribution} not installed"


def check(name: str, prepared: Prepared, lab: Workload, *, first: int | None = None) -> None:
    """Return if the engine gives the naive answer to every question (or to the first `first`), else raise."""
    for question, request in list(zip(lab.questions, prepared.requests, strict=True))[:first]:
        if prepared.decide(request) is not question.allowed:
            raise Disagreement(f"{name} at {lab.size} rules: expected allowed={question.allowed} for {question}")
