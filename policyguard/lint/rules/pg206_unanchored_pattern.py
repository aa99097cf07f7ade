"""A pattern in an allow is not anchored at both ends, so it matches more than it appears to."""

from __future__ import annotations

from collections.abc import Iterator

from policyguard.conditions.queries import base_name, path_of, text_of
from policyguard.lint.context import Context
from policyguard.lint.rule import Hit
from policyguard.model.expression import Call, Constant, Expression, walk

CODE = "PG206"
NAME = "unanchored-pattern"
SEVERITY = "error"
FIXABLE = True
PRODUCED_BY = "load and lint"
HELP = "write `^...$` around a regular expression, and `under(path, prefix)` or a final `/` for a prefix of a path"


def check(context: Context) -> Iterator[Hit]:
    """Yield each `matches` without both anchors and each `startsWith` that ends inside a path segment, in allows."""
    for _, condition in context.conditions("allow"):
        for node in walk(condition.expression):
            if isinstance(node, Call) and len(node.arguments) == 2 and isinstance(node.arguments[1], Constant):
                message = _problem(base_name(node.function), node.arguments[0], text_of(node.arguments[1]))
                if message is not None:
                    yield Hit(condition.at(node.arguments[1].offset), message)


def _problem(name: str, operand: Expression, text: str) -> str | None:
    if name == "matches" and not (_starts_anchored(text) and _ends_anchored(text)):
        return f"`{text}` matches anywhere in the text, expected `^` and `$` around it"
    if name == "starts_with" and "/" in text and not text.endswith("/") and path_of(operand) is not None:
        return f"`startsWith` of `{text}` also accepts `{text}-other`, expected a path that ends in `/`"
    return None


def _starts_anchored(text: str) -> bool:
    return text.startswith(("^", r"\A", ".*")) and not _has_open_alternative(text)


def _ends_anchored(text: str) -> bool:
    return (text.endswith("$") and not text.endswith(r"\$")) or text.endswith((r"\z", ".*"))


def _has_open_alternative(text: str) -> bool:
    """Return True if a `|` is outside every group: in `^a|b$` each side is anchored only once."""
    depth = 0
    for before, character in zip(" " + text, text, strict=False):
        if before == "\\":
            continue
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(character, 0)
        if character == "|" and depth == 0:
            return True
    return False
