"""An allow for every action also allows actions that are added to the schema later."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG201"
NAME = "star-action"
SEVERITY = "warning"
HELP = "name the actions, so that a new one is denied until somebody allows it"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow whose author wrote a star for the action."""
    for rule in context.allows:
        if rule.any_action:
            yield Hit(context.field(rule.span, "actions"), f"`{rule.id}` allows every action")
