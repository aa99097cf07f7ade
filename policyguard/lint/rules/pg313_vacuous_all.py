"""`all()` over an empty list is true, so the allow also applies when the list is empty."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import leftmost, nonempty_lists, path_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Quantifier, walk

CODE = "PG313"
NAME = "vacuous-all"
SEVERITY = "warning"
HELP = "require an element: `resource.checkpoints.size() > 0 && ...`"


def check(context: Context) -> Iterator[Hit]:
    """Yield each `all` in an allow over a list attribute that the condition does not require to have an element."""
    for _, condition in context.conditions("allow"):
        filled = nonempty_lists(condition.expression)
        for node in walk(condition.expression):
            if isinstance(node, Quantifier) and node.kind == "all":
                path = path_of(node.range)
                if path is not None and path not in filled:
                    message = f"`all` over `{'.'.join(path)}` is also true for an empty list"
                    yield Hit(condition.at(leftmost(node.range)), message)
