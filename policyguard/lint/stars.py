"""The reach of wildcards: whether a rule applies to everyone, or a pattern matches every id."""

from __future__ import annotations

from policyguard.model.expression import Variable, walk
from policyguard.model.policy import Rule


def is_for_everyone(rule: Rule) -> bool:
    """Return True if nothing in the rule depends on the subject."""
    if rule.roles or rule.subjects:
        return False
    return rule.when is None or not any(
        isinstance(node, Variable) and node.name == "subject" for node in walk(rule.when.expression)
    )


def matches_everything(pattern: str) -> bool:
    """Return True if the pattern matches every id: it has `**`, and nothing else needs more than one segment.

    `**` matches zero or more whole segments and `*` exactly one, so `**/**` and `**/*` match every id too.
    """
    segments = pattern.split("/")
    return "**" in segments and all(segment in ("**", "*") for segment in segments) and segments.count("*") <= 1


def allows_everything(rule: Rule) -> bool:
    """Return True for an unconditional allow with a star for subject, action and resource."""
    every_id = rule.id_pattern is None or matches_everything(rule.id_pattern)
    stars = rule.any_action and rule.any_type and every_id and is_for_everyone(rule)
    return rule.effect == "allow" and stars and rule.when is None
