"""Guards a block or a function of a launcher that is written in Python.

The account that runs the process can remove these lines, so decisions made here are advisory: open the guard with
`advisory=True`. A worker refuses advisory decisions (step V10); `hooks/launcher/launch.py` enforces.
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
    """Enter the block only under a signed, logged allow; yield the signed decision.

    Args:
        guard: decides, signs and logs.
        request: what is asked.
        inputs: what is about to run.

    Raises:
        AccessDenied: the block is not entered.
        ConfigurationError: the guard is not advisory, but code in the user's own process cannot enforce.
    """
    signed = guard.enforce(request, inputs)
    require_advisory(signed)
    yield signed


def require_advisory(signed: SignedDecision) -> None:
    """Raise unless the decision is marked as advisory.

    Raises:
        ConfigurationError: the guard is enforcing.
    """
    if parse_statement(signed.envelope.payload).predicate.mode != "advisory":
        raise ConfigurationError(
            "the decisions of this guard are enforcing, expected advisory ones inside the guarded process",
            help="open it with `Guard.open(..., advisory=True)`",
        )


def guarded(
    guard: Guard, request_of: Callable[P, Request], inputs: JobInputs | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: each call decides `request_of(its arguments)` and runs only under an allow.

    Args:
        guard: decides, signs and logs.
        request_of: builds the request from the arguments of a call.
        inputs: what is about to run.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with allowed(guard, request_of(*args, **kwargs), inputs):
                return function(*args, **kwargs)

        return call

    return decorate
