"""The exit codes of every verb and hook, in one table; numbered as in sysexits.h.

`BAD_DATA` is for the subject of a call (a request, a job file, a signed decision, an approval) that is missing,
unreadable or malformed, even if the answer is a signed denial `engine.malformed`, so that a caller can tell a mistake
from a refusal. It is also for mistakes inside policy files. `CONFIGURATION` is for everything else: the paths of
policies, keys, trust and log, a compiled snapshot, the options.
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
