"""Finds template code in files that do not declare it; a page that explains templates is no template.

Source: jinja2 3.1, `lexer.py` for what a block is and `sandbox.py`, which refuses the same names; CVE-2024-34359 is a
renderer without that sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policyguard.scan.formats.chat_template import is_template

_ENCODED = re.compile(r"\\+(?:u00|x)([0-7][0-9a-fA-F])|\\+(1[0-7]{2})")
"""A character of ASCII as an escape in a string of the template: `\\u005f`, `\\x5f`, `\\137`."""

_START = re.compile(r"\{\{|\{%")
_STRING_OR_END = re.compile(r"""\}\}|%\}|"[^"\\]*+(?:\\.[^"\\]*+)*+"?|'[^'\\]*+(?:\\.[^'\\]*+)*+'?""", re.DOTALL)
_DUNDER = re.compile(r"__[a-z]\w*__")
_BEGINS = re.compile(r"""\s*\{[{%#](?:[-+]?[^\S\n]*\S|[^}]*['"])""")
"""Matches text that a template engine would run; a list of tokens may begin with a brace pair on its own line."""

_TEMPLATE_NAME = re.compile(r"\.(?:jinja2?|j2|jnj|template|tmpl|tpl|njk)\Z|chat_template(?:\.|\Z)", re.IGNORECASE)


def is_named_as_template(name: str) -> bool:
    """Return True for a file name that loaders render."""
    return _TEMPLATE_NAME.search(name) is not None


def begins_as_template(text: str) -> bool:
    """Return True for text that a template engine would run from its first character."""
    return _BEGINS.match(text) is not None and is_template(text)


def template_escape(text: str) -> str:
    """Return the first block that climbs from an object to the interpreter; empty if there is none.

    One name between underscores is a mention (`{{ x.__class__ }}`); two, or one and a call, are a way.
    """
    # INVARIANT I18: a template that reaches for Python's own attributes is code, in whatever file it lies.
    for block in _blocks(text):
        plain = _ENCODED.sub(lambda code: chr(int(code[1], 16) if code[1] else int(code[2], 8)), block)
        count = sum(1 for _ in _DUNDER.finditer(plain))
        if count > 1 or (count and "(" in plain):
            return plain.strip()[:80]
    return ""


def _blocks(text: str) -> Iterator[str]:
    """Yield the content of each template block; an end marker inside a string is ignored."""
    at = 0
    while start := _START.search(text, at):
        at = start.end()
        while (token := _STRING_OR_END.search(text, at)) and token[0][0] in "\"'":
            at = token.end()
        at = token.end() if token else len(text)
        yield text[start.end() : at]


__all__ = ["begins_as_template", "is_named_as_template", "template_escape"]
