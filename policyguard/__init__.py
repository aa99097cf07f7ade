"""Signed allow/deny decisions for training jobs and shared repositories.

Public names load on first use (PEP 562), so that `import policyguard` costs next to nothing in a hook.
"""

from __future__ import annotations

# `typing` is half of what this module would cost; checkers know the name.
TYPE_CHECKING = False

__version__ = "0.1.0"

_HOMES = {
    "AccessDenied": "policyguard.errors",
    "Approval": "policyguard.model.facts",
    "Assurance": "policyguard.model.facts",
    "AuditError": "policyguard.errors",
    "ConfigurationError": "policyguard.errors",
    "Decision": "policyguard.model.decision",
    "EvidenceError": "policyguard.errors",
    "Fact": "policyguard.model.facts",
    "Facts": "policyguard.model.facts",
    "Guard": "policyguard.guard",
    "PolicyError": "policyguard.errors",
    "PolicyErrors": "policyguard.errors",
    "PolicyGuardError": "policyguard.errors",
    "Request": "policyguard.model.request",
    "RequestError": "policyguard.errors",
    "SignedDecision": "policyguard.audit.receipt",
    "SigningError": "policyguard.errors",
    "Trust": "policyguard.attest.trust",
    "VerificationError": "policyguard.errors",
    "VerifiedDecision": "policyguard.verify",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from typing import Any

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
    from policyguard.model.facts import Approval, Assurance, Fact, Facts
    from policyguard.model.request import Request


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `policyguard` has no attribute `{name}`")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
