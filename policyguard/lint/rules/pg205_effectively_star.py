"""A pattern seems to be a limit but matches every id."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import is_call, text_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.lint.stars import matches_everything
from policyguard.model.expression import Call, Constant, walk

CODE = "PG205"
NAME = "effectively-star"
SEVERITY = "warning"
HELP = "leave the pattern out, or write the part that limits it"


def check(context: Context) -> Iterator[Hit]:
    """Yield each pattern, in an allow's `resources.id` or in a call of `glob`, that matches everything."""
    for rule in context.allows:
        if rule.id_pattern is not None and matches_everything(rule.id_pattern):
            yield Hit(context.pattern_span(rule), f"the pattern `{rule.id_pattern}` matches every id")
    for _, condition in context.conditions():
        for node in walk(condition.expression):
            pattern = node.arguments[1] if isinstance(node, Call) and is_call(node, "glob") else None
            if isinstance(pattern, Constant) and matches_everything(text_of(pattern)):
                span = condition.at(pattern.offset)
                yield Hit(span, f"the pattern `{text_of(pattern)}` matches everything, so `glob` is always true")
