"""An allow of everything on everything to everyone is no policy."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.rules.pg203_star_subject import is_for_everyone
from policyguard.lint.rules.pg205_effectively_star import matches_everything

CODE = "PG204"
NAME = "admin-star-star"
SEVERITY = "error"
HELP = "remove the rule; allow what is needed to the roles that need it"


def check(context: Context) -> Iterator[Hit]:
    """Yield each unconditional allow with a star for subject, action and resource."""
    for rule in context.allows:
        every_id = rule.id_pattern is None or matches_everything(rule.id_pattern)
        if rule.any_action and rule.any_type and every_id and rule.when is None and is_for_everyone(rule):
            yield Hit(rule.span, f"`{rule.id}` allows everything on everything to everyone")
