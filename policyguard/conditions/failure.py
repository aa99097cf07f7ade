"""The one exception of CEL's functions and operators: a value for which the function has no answer."""

from __future__ import annotations


class Failure(ValueError):
    """The function has no answer for these values; in CEL terms, it evaluates to an error."""
