"""A rule that is limited to one team names another team, so it can never apply."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import conjuncts, literals_equal_to, text_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.policy import ANY_DOMAIN

CODE = "PG208"
NAME = "cross-tenant-literal"
SEVERITY = "error"
HELP = "move the rule to a document with the other team's scope, or name this one"
PRODUCED_BY = "load and lint"


def check(context: Context) -> Iterator[Hit]:
    """Yield each scoped rule whose condition requires another team; the loader checks the id patterns."""
    for rule, condition in context.conditions():
        for part in conjuncts(condition.expression) if rule.scope not in (None, ANY_DOMAIN) else ():
            named = [literal for path, literal in literals_equal_to(part) if path == ("resource", "domain")]
            if named and all(literal.value != rule.scope for literal in named):
                message = f"condition asks for the team `{text_of(named[0])}`, the document's scope is `{rule.scope}`"
                yield Hit(condition.at(named[0].offset), message)
