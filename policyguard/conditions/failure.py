"""The one exception of CEL's functions and operators: a value for which the function has no answer."""

from __future__ import annotations


class Failure(ValueError):
    """A function cannot compute a result for these values; in CEL terms, it evaluates to an error."""
