"""Text in model files that a loader runs: YAML tags that name Python, script lines, and escaping chat templates.

A chat template is a Jinja program, a string in `tokenizer_config.json` or a file of its own. Rendered without a sandbox
it reaches Python through attributes whose names begin with two underscores; one that formats messages needs none.

Source: jinja2 3.1, `lexer.py` for what a block is and `sandbox.py`, which refuses the same names; CVE-2024-34359 is a
renderer without that sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_PYTHON_TAG = re.compile(r"!!?python/|!<tag:yaml\.org,2002:python/|tag:yaml\.org,2002:python/")
_ENCODED = re.compile(r"\\+(?:u00|x)([0-7][0-9a-fA-F])|\\+(1[0-7]{2})")
"""A character of ASCII as an escape in a string of the template: `\\u005f`, `\\x5f`, `\\137`."""

_START = re.compile(r"\{\{|\{%")
_STRING_OR_END = re.compile(r"""\}\}|%\}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""", re.DOTALL)
_REACHES = (
    r"\|\s*attr\b|['\"]\s*_+\s*['\"]\s*[~+*%|]|\|\s*map\s*\(\s*attribute\s*=\s*[^'\"\s]"
    r"|\b(?:lipsum|cycler|joiner|url_for|get_flashed_messages)\s*[.\[]"
)
_IN_A_STRING = re.compile(rf"__[A-Za-z]|{_REACHES}")
_IN_A_FILE = re.compile(rf"[\w)\]'\"]\s*\.\s*__[A-Za-z]|\[\s*['\"]__[A-Za-z]|{_REACHES}")
"""A file of tokens, one a line, has `{{` and `__init__` on lines of their own; that is no template."""


def names_code(text: str) -> bool:
    """Check whether a text is a script or has YAML tags that build Python objects."""
    return bool(_PYTHON_TAG.search(text)) or text.startswith("#!")


def template_escape(text: str, values: Sequence[str] | None = None) -> str:
    """Find the first part of a template that reaches beyond its inputs; empty if none does.

    Args:
        values: the texts in it, where it is JSON: then each of them is a template of its own.
    """
    if values is None:
        return _escape(text, _IN_A_FILE)
    return next(filter(None, (_escape(value, _IN_A_STRING) for value in values)), "")


def _escape(text: str, reaches: re.Pattern[str]) -> str:
    # INVARIANT I18: a template that reaches for Python's own attributes is code, in whatever file it lies.
    for block in _blocks(text):
        plain = _ENCODED.sub(lambda code: chr(int(code[1], 16) if code[1] else int(code[2], 8)), block)
        escape = reaches.search(plain)
        if escape:
            return plain[max(escape.start() - 20, 0) : escape.end() + 20]
    return ""


def _blocks(text: str) -> Iterator[str]:
    """Yield each block between its braces; an end inside a string of the template is ignored."""
    at = 0
    while start := _START.search(text, at):
        at = start.end()
        while (token := _STRING_OR_END.search(text, at)) and token[0][0] in "\"'":
            at = token.end()
        at = token.end() if token else len(text)
        yield text[start.end() : at]


__all__ = ["names_code", "template_escape"]
