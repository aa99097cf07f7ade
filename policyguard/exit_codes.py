"""The exit codes of every verb and hook, in one table; numbered as in sysexits.h.

What the caller asks about (a request, a job file, a signed decision, an approval) is data: missing, unreadable or
malformed, it is `BAD_DATA`, also where the answer is a signed denial `engine.malformed`, so that a caller can tell a
mistake from a refusal. Mistakes inside policy files are data of their author: `BAD_DATA`, too. What else answers (the
paths of policies, keys, trust and log, a compiled snapshot, the options) is `CONFIGURATION`.
"""

from __future__ import annotations

from policyguard.errors import (
    AccessDenied,
    AuditError,
    ConfigurationError,
    EvidenceError,
    PolicyError,
    PolicyErrors,
    PolicyGuardError,
    RequestError,
    SigningError,
    VerificationError,
)
from policyguard.model.decision import Decision

OK = 0
FINDINGS = 1
USAGE = 64
BAD_DATA = 65
UNAVAILABLE = 69
DENIED = 77
CONFIGURATION = 78

EXIT_CODES: tuple[tuple[type[PolicyGuardError], int], ...] = (
    (RequestError, BAD_DATA),
    (PolicyError, BAD_DATA),
    (PolicyErrors, BAD_DATA),
    (ConfigurationError, CONFIGURATION),
    (SigningError, CONFIGURATION),
    (EvidenceError, UNAVAILABLE),
    (AuditError, UNAVAILABLE),
    (AccessDenied, DENIED),
    (VerificationError, DENIED),
)


def code_of_error(problem: PolicyGuardError) -> int:
    """Return the exit code for an error's family; never 0."""
    return next((code for family, code in EXIT_CODES if isinstance(problem, family)), UNAVAILABLE)


def code_of_decision(decision: Decision) -> int:
    """Return the exit code for a decision: 0 allow, 65 request outside the schema, 77 any other deny."""
    if decision.allowed:
        return OK
    return BAD_DATA if decision.reason_codes == ("engine.malformed",) else DENIED
