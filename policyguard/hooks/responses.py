"""What programs are told of a decision, and which exit code says what. Pure."""

from __future__ import annotations

from typing import Any

from policyguard.errors import (
    AuditError,
    ConfigurationError,
    EvidenceError,
    PolicyError,
    PolicyErrors,
    PolicyGuardError,
    RequestError,
    SigningError,
)
from policyguard.model.decision import Decision

ALLOWED, BAD_INPUT, UNAVAILABLE, DENIED, CONFIGURATION = 0, 65, 69, 77, 78
"""sysexits(3): EX_DATAERR, EX_UNAVAILABLE, EX_NOPERM, EX_CONFIG. No other code leaves a hook."""

_CODES: tuple[tuple[type[PolicyGuardError], int], ...] = (
    (RequestError, BAD_INPUT),
    (PolicyError, CONFIGURATION),
    (PolicyErrors, CONFIGURATION),
    (ConfigurationError, CONFIGURATION),
    (SigningError, CONFIGURATION),
    (AuditError, UNAVAILABLE),
    (EvidenceError, UNAVAILABLE),
)


def decision_data(decision: Decision) -> dict[str, Any]:
    """Return what machines want to know of a decision."""
    return {
        "decision": decision.allowed,
        "reason_codes": decision.reason_codes,
        "determining": decision.determining,
        "errored": decision.errored,
        "requiring": decision.requiring,
        "obligations": decision.obligations,
        "gaps": [{name: getattr(gap, name) for name in gap.__struct_fields__} for gap in decision.gaps],
        "policy": {"digest": decision.policy_digest, "epoch": decision.epoch},
        "explanation": decision.explain(),
    }


def decision_code(decision: Decision) -> int:
    """Return 0 for allow, 65 for a request outside the schema, 77 for any other deny."""
    if decision.allowed:
        return ALLOWED
    return BAD_INPUT if decision.reason_codes == ("engine.malformed",) else DENIED


def error_code(problem: PolicyGuardError) -> int:
    """Return the exit code of an error, by family; never 0."""
    return next((code for family, code in _CODES if isinstance(problem, family)), UNAVAILABLE)
