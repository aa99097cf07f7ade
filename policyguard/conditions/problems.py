"""The errors of conditions, as data. Imports no checker, so that lint and loaders can use them cheaply."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from policyguard.errors import PolicyGuardError


class ConditionError(msgspec.Struct, frozen=True):
    """One mistake in a condition: its offset in code points, message, help and lint code."""

    offset: int
    message: str
    help: str | None = None
    code: str = "PG104"


class ConditionErrors(PolicyGuardError):
    """Every mistake of one condition, ordered by offset. Never empty."""

    def __init__(self, errors: Sequence[ConditionError]) -> None:
        if not errors:
            raise ValueError("errors: none given, expected at least one")
        self.errors = tuple(sorted(errors, key=lambda error: (error.offset, error.message)))
        super().__init__("; ".join(error.message for error in self.errors))


class ProfileError(PolicyGuardError):
    """A construct is outside the profile of `docs/conditions.md`, or bytes are not a checked expression.

    `name` is the construct's name on that page (`float`, `null`, `bytes`); `offset` is a code-point offset in the text.
    """

    def __init__(self, message: str, offset: int = 0, *, name: str = "malformed", help: str | None = None) -> None:
        super().__init__(message, help=help)
        self.offset = offset
        self.name = name


class Failure(ValueError):
    """A function has no result for these values; the expression evaluates to an error."""
