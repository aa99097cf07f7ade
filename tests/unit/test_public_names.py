"""Every public name can be imported under `mypy --strict`, with its own type and not `Any`.

mypy checks this file with the rest of the tests: an import without an explicit export, or a name without a type, is an
error there. The test below compares the list with `policyguard.__all__`.
"""

from __future__ import annotations

from typing import assert_type

import policyguard
from policyguard import (
    AccessDenied,
    Approval,
    Assurance,
    AuditError,
    ConfigurationError,
    Decision,
    EvidenceError,
    Fact,
    Facts,
    Guard,
    PolicyError,
    PolicyErrors,
    PolicyGuardError,
    Request,
    RequestError,
    SignedDecision,
    SigningError,
    Trust,
    VerificationError,
    VerifiedDecision,
    __version__,
)

PUBLIC: tuple[type, ...] = (
    AccessDenied,
    Approval,
    Assurance,
    AuditError,
    ConfigurationError,
    Decision,
    EvidenceError,
    Fact,
    Facts,
    Guard,
    PolicyError,
    PolicyErrors,
    PolicyGuardError,
    Request,
    RequestError,
    SignedDecision,
    SigningError,
    Trust,
    VerificationError,
    VerifiedDecision,
)


def decide(guard: Guard, request: Request) -> Decision:
    """Never called: mypy reads the types that a caller sees."""
    signed = guard.decide(request)
    assert_type(signed, SignedDecision)
    assert_type(signed.decision, Decision)
    assert_type(__version__, str)
    return signed.decision


def test_every_public_name_is_checked() -> None:
    """A name that joins `__all__` joins the imports above."""
    assert sorted({"__version__", *(kind.__name__ for kind in PUBLIC)}) == sorted(policyguard.__all__)


def test_a_name_that_is_not_public_is_an_error() -> None:
    """The twin: the message names the attribute."""
    assert not hasattr(policyguard, "NoSuchName")
