"""An allow for every resource type also covers types that are added to the schema later."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit

CODE = "PG202"
NAME = "star-resource"
SEVERITY = "warning"
HELP = 'name the type and, where it has teams, the ids: `resources: {type: job, id: "team/{team}/**"}`'


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow that names no type and whose actions could belong to more than one."""
    for rule in context.allows:
        if rule.any_type and len(rule.resource_types) > 1:
            yield Hit(context.field(rule.span, "resources"), f"`{rule.id}` allows on every type of resource")
