"""Translates casbin's patterns to prefixes and RE2 patterns that match the same ids; refuses the others.

The texts leave out the slash that all objects of a model begin with, as ids do. Ids hold no line breaks, no control
characters and no empty, `.` or `..` segments, so `$` before a trailing newline (H18) is no difference.
Source: `casbin/util/builtin_operators.py` of pycasbin 2.8.0.
"""

from __future__ import annotations

import re

from policyguard.errors import PolicyError
from policyguard.values import Span

_LITERAL = re.compile(r"[A-Za-z0-9_/@:~%,=-]*", re.ASCII)
_ALTERNATIVES = re.compile(r"\^?\(?\w+\)?(\|\(?\w+\)?)*\$?", re.ASCII)


def key_match_prefix(pattern: str, span: Span) -> tuple[str, bool]:
    """Split a `keyMatch` pattern into (text, whole); `whole` is True if the complete id is compared.

    Raises:
        PolicyError: a star is not at the end (H17).
    """
    head, star, rest = pattern.partition("*")
    if rest:
        raise PolicyError(
            f"found `{pattern}`, expected `*` at the end only: keyMatch ignores what follows it (H17)",
            span=span,
            code="PG206",
            help=f"write `{head}*`, which is what it matches",
        )
    return head, not star


def key_match2_regex(pattern: str, function: str, span: Span) -> str:
    """Translate a `keyMatch2` (`:name`) or `keyMatch3` (`{name}`) pattern to RE2.

    Args:
        pattern: the pattern.
        function: its casbin function.
        span: the position, for errors.

    Raises:
        PolicyError: casbin would read part of the pattern as a regular expression.
    """
    variable = re.compile(r":[A-Za-z0-9_]+" if function == "keyMatch2" else r"\{[A-Za-z0-9_]+\}", re.ASCII)
    segments: list[str] = []
    for segment in pattern.removeprefix("/").split("/"):
        if segment == "*" and (segments or pattern in ("*", "/*") or pattern.startswith("/")):
            segments.append(".*")
        elif variable.fullmatch(segment):
            segments.append("[^/]+")
        elif segment and _LITERAL.fullmatch(segment) and not re.search(r"[:{}]", segment):
            segments.append(re.escape(segment))
        else:
            raise PolicyError(
                f"found `{segment}` in `{pattern}`, expected plain text, a variable or `*`: {function} "
                "reads the rest as a regular expression (H18)",
                span=span,
                code="PG206",
            )
    return "/".join(segments)


def glob_regex(pattern: str, span: Span) -> str:
    """Translate a `globMatch` pattern of plain segments, `*`, and segments that end in a star to RE2.

    Raises:
        PolicyError: the pattern has syntax without an exact counterpart.
    """
    segments: list[str] = []
    for segment in pattern.removeprefix("/").split("/"):
        head = segment.removesuffix("*")
        if segment == "*":
            segments.append("[^./][^/]*")
        elif head and _LITERAL.fullmatch(head):
            segments.append(re.escape(head) + ("[^/]*" if head != segment else ""))
        else:
            raise PolicyError(
                f"found `{segment}` in `{pattern}`, expected plain segments and `*`",
                span=span,
                code="PG206",
                help="write a condition with `glob`",
            )
    return "/".join(segments)


def alternatives(pattern: str, span: Span) -> list[str]:
    """List the words of a pattern such as `(GET)|(POST)`; empty for `.*`.

    Raises:
        PolicyError: the expression is more than a choice of words.
    """
    if pattern in (".*", "^.*$"):
        return []
    if not _ALTERNATIVES.fullmatch(pattern) or not _compiles(pattern):
        raise PolicyError(
            f"found the regular expression `{pattern}`, expected words such as `(GET)|(POST)`", span=span, code="PG207"
        )
    return re.findall(r"\w+", pattern, re.ASCII)


def _compiles(pattern: str) -> bool:
    try:
        return bool(re.compile(pattern))
    except re.error:
        return False
