"""An allow for everyone on resources that belong to teams does not check the team."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import Path, paths_tested, value_reads
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.policy import ANY_DOMAIN, Rule
from policyguard.patterns.id_pattern import domain_index

CODE = "PG209"
NAME = "missing-scope-guard"
SEVERITY = "error"
HELP = "name a role (roles are held in a team), a scope, or the team in `resources.id`"

_QUANTITIES = frozenset({"int", "duration", "timestamp"})


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow without role, subject and scope, on types with teams, whose condition reads only quantities."""
    for rule in context.allows:
        if rule.roles or rule.subjects or rule.scope not in (None, ANY_DOMAIN) or not _has_teams(context, rule):
            continue
        if not _names_team(context, rule) and not _tests_owner(context, rule):
            yield Hit(
                context.field(rule.span, "resources"), f"`{rule.id}` allows on every team's resources to everyone"
            )


def _has_teams(context: Context, rule: Rule) -> bool:
    return any(domain_index(entity_type.id_pattern) is not None for entity_type in context.types(rule))


def _names_team(context: Context, rule: Rule) -> bool:
    """Return True if the rule's id pattern has a literal segment where the ids have the team."""
    segments = (rule.id_pattern or "**").split("/")
    where = [domain_index(entity_type.id_pattern) for entity_type in context.types(rule)]
    if "**" in segments and any(index is not None and index >= segments.index("**") for index in where):
        return False
    return all(index is None or (index < len(segments) and segments[index] not in ("*", "{team}")) for index in where)


def _tests_owner(context: Context, rule: Rule) -> bool:
    """Return True if the condition reads anything that could distinguish teams or subjects."""
    if rule.when is None:
        return False
    expression = rule.when.expression
    paths = {path for path, _ in value_reads(expression)} | paths_tested(expression)
    return any(not _is_quantity(context, rule, path) for path in paths if path[0] in ("subject", "resource"))


def _is_quantity(context: Context, rule: Rule, path: Path) -> bool:
    attributes = context.attributes(rule, path)
    return bool(attributes) and all(attribute.type.kind in _QUANTITIES for attribute in attributes)
