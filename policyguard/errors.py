"""Every error that policyguard raises, one family for each person who can act on it.

    PolicyGuardError
      PolicyError          the policy author     .span; a load raises PolicyErrors, all findings at once
      RequestError         the requester         .path, a JSON path into what was sent
      ConfigurationError   the operator          options, paths, configuration files
      EvidenceError        the operator          a collector cannot measure
      AccessDenied         the job's owner       .signed, with the explanation
      SigningError         the operator          a key is unusable; nothing was signed
      AuditError           the operator          the log cannot be written or is inconsistent
      VerificationError    the worker, auditor   .step, "V1" to "V12"

Wording: place first, lower case, no full stop, no line break, input in backticks, what was found, what was expected.
What to do next is in `help`, an attribute of its own. A caller's mistake in Python is a `ValueError` or `TypeError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from policyguard.values import Span


class PolicyGuardError(Exception):
    """The base class of every error about bad data. `help` says what to do next, if known."""

    def __init__(self, message: str, *, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return self.message


class PolicyError(PolicyGuardError):
    """One mistake in a policy document: `span` is where, `code` is the lint rule with a page in `docs/lint`."""

    def __init__(self, message: str, *, span: Span | None = None, code: str = "PG000", help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.span = span
        self.code = code

    def __str__(self) -> str:
        return f"{self.span}: {self.message}" if self.span is not None else self.message


class PolicyErrors(PolicyGuardError):
    """Every mistake of one load, ordered by file, line and column. Never empty."""

    def __init__(self, errors: Sequence[PolicyError]) -> None:
        if not errors:
            raise ValueError("errors: none given, expected at least one")
        self.errors = tuple(errors)
        super().__init__(f"{len(self.errors)} error{'s' if len(self.errors) > 1 else ''} in the policies")

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


class RequestError(PolicyGuardError):
    """A request, job file or hook input is malformed. `path` is a JSON path, `$.resource.properties.gpus`."""

    def __init__(self, message: str, *, path: str = "$", help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigurationError(PolicyGuardError):
    """An option, a configuration file or a file that it names is missing or invalid."""


class EvidenceError(PolicyGuardError):
    """A collector could not measure something; the fact is absent."""


class SigningError(PolicyGuardError):
    """A key cannot be read, decrypted or used; nothing was signed."""


class AuditError(PolicyGuardError):
    """The decision log cannot be read or written, or is inconsistent. `entry` is the leaf index, if it is known."""

    def __init__(self, message: str, *, entry: int | None = None, help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.entry = entry


class VerificationError(PolicyGuardError):
    """A signed decision failed a verification step. `step` is one of "V1" to "V12"."""

    def __init__(self, step: str, message: str, *, help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.step = step

    def __str__(self) -> str:
        return f"{self.step}: {self.message}"


class AccessDenied(PolicyGuardError):
    """The decision is deny. `signed` is the signed and logged decision; its explanation says what would change it."""

    def __init__(self, message: str, *, signed: Any) -> None:
        super().__init__(message)
        self.signed = signed
