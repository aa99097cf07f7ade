"""Guarding a block or a function of a launcher written in Python.

Whoever runs the process can take these lines out, so decisions made here are advisory and must say so: open the guard
with `advisory=True`. A worker refuses an advisory decision (step V10); what enforces is `hooks/launcher/launch.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from policyguard.attest.statement import parse_statement
from policyguard.audit.receipt import SignedDecision
from policyguard.errors import ConfigurationError
from policyguard.evidence.collector import JobInputs
from policyguard.guard import Guard
from policyguard.model.request import Request

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def allowed(guard: Guard, request: Request, inputs: JobInputs | None = None) -> Iterator[SignedDecision]:
    """Enter the block only under a signed, logged allow; yields the signed decision.

    Raises:
        AccessDenied: the block is not entered.
        ConfigurationError: the guard was opened as an enforcing one, which a line in the user's process is not.
    """
    signed = guard.enforce(request, inputs)
    require_advisory(signed)
    yield signed


def require_advisory(signed: SignedDecision) -> None:
    """Return if the decision says of itself that it cannot stop anything, else raise `ConfigurationError`."""
    if parse_statement(signed.envelope.payload).predicate.mode != "advisory":
        raise ConfigurationError(
            "this guard's decisions call themselves enforcing, expected advisory ones inside the process they guard",
            help="open it with `Guard.open(..., advisory=True)`",
        )


def guarded(
    guard: Guard, request_of: Callable[P, Request], inputs: JobInputs | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: each call first asks for `request_of(its arguments)` and runs only under an allow."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with allowed(guard, request_of(*args, **kwargs), inputs):
                return function(*args, **kwargs)

        return call

    return decorate
