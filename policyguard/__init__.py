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
"""Computed; type checkers read the aliases below, which `tests/unit/test_public_names.py` compares with it."""

if TYPE_CHECKING:
    from typing import Any

    from policyguard.attest.trust import Trust as Trust
    from policyguard.audit.receipt import SignedDecision as SignedDecision
    from policyguard.errors import AccessDenied as AccessDenied
    from policyguard.errors import AuditError as AuditError
    from policyguard.errors import ConfigurationError as ConfigurationError
    from policyguard.errors import EvidenceError as EvidenceError
    from policyguard.errors import PolicyError as PolicyError
    from policyguard.errors import PolicyErrors as PolicyErrors
    from policyguard.errors import PolicyGuardError as PolicyGuardError
    from policyguard.errors import RequestError as RequestError
    from policyguard.errors import SigningError as SigningError
    from policyguard.errors import VerificationError as VerificationError
    from policyguard.guard import Guard as Guard
    from policyguard.model.decision import Decision as Decision
    from policyguard.model.facts import Approval as Approval
    from policyguard.model.facts import Assurance as Assurance
    from policyguard.model.facts import Fact as Fact
    from policyguard.model.facts import Facts as Facts
    from policyguard.model.request import Request as Request
    from policyguard.verify import VerifiedDecision as VerifiedDecision


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module `policyguard` has no attribute `{name}`")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
