"""An allow with no role, no subject and no condition on the subject applies to everyone."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.stars import is_for_everyone
from policyguard.model.policy import Rule
from policyguard.text import quoted_list

CODE = "PG203"
NAME = "star-subject"
SEVERITY = "warning"
HELP = "name the roles: `roles: [researcher]`"


def check(context: Context) -> Iterator[Hit]:
    """Yield each allow that applies to any subject."""
    for rule in context.allows:
        if is_for_everyone(rule):
            yield Hit(rule.span, f"`{rule.id}` allows {_first_actions(rule)} to every subject")


def _first_actions(rule: Rule) -> str:
    examples = quoted_list(rule.actions[:3])
    return f"{examples} and more" if len(rule.actions) > 3 else examples
