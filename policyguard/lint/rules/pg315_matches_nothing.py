"""A path pattern that matches no path, or a branch name instead of a full reference, protects nothing."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import base_name, path_of, text_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Call, Constant, Expression, walk

CODE = "PG315"
NAME = "matches-nothing"
SEVERITY = "error"
HELP = "write paths as git does, `train/optim/**`, and references in full, `refs/heads/main`"

_REF = ("resource", "ref")


def check(context: Context) -> Iterator[Hit]:
    """Yield each `glob` pattern with an empty, `.` or `..` segment, and each `resource.ref` that is not a full name."""
    for _, condition in context.conditions("allow", "deny", "require"):
        for node in walk(condition.expression):
            if isinstance(node, Call) and len(node.arguments) == 2:
                for operand, other in (node.arguments, node.arguments[::-1]):
                    message = _problem(base_name(node.function), operand, other)
                    if message is not None:
                        yield Hit(condition.at(other.offset), message)


def _problem(function: str, operand: Expression, other: Expression) -> str | None:
    if not isinstance(other, Constant) or not isinstance(other.value, str):
        return None
    text = text_of(other)
    if path_of(operand) == _REF and function in ("equals", "glob", "starts_with") and not text.startswith("refs/"):
        return f"`{text}` is not a full reference (`refs/...`); nothing equals it"
    segments = text.removeprefix("/").split("/")
    if function == "glob" and not {"", ".", ".."}.isdisjoint(segments):
        return f"`{text}` has an empty, `.` or `..` segment; no path matches it"
    return None
