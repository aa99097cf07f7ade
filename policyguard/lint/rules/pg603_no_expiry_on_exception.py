"""An exception has no end date."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.vocabulary import EXCEPTION_WORDS, split_words

CODE = "PG603"
NAME = "no-expiry-on-exception"
SEVERITY = "error"
HELP = 'add `expires: "2027-01-31T00:00:00Z"`'


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow whose id calls it an exception or temporary, without `expires`."""
    for rule in context.allows:
        if rule.expires is None and set(split_words(rule.id)) & EXCEPTION_WORDS:
            yield Hit(context.field(rule.span, "id"), f"`{rule.id}` is an exception without an end date")
