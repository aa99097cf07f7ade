"""Splits a condition into CEL tokens, to find conditions that differ only in literals, and renames `ip.in`.

The checker's grammar does not accept the name `ip.in`. Text that this module cannot split goes to the checker as is.

token = name / integer / text / other; text = [ prefix ] quote *character quote, prefix of "r" and "b" in either case
Source: cel-spec `doc/langdef.md`, "Syntax".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<blank>[\t\n\f\r ]+|//[^\n]*)
    |(?P<text>"(?!"")[^"\\\n\r]*"|'(?!'')[^'\\\n\r]*')
    |(?P<unusual>[rRbB]{0,2}(?:\"\"\"|'''|"|')|`|[0-9]*\.[0-9]|[0-9]+(?:[eEuUxX]|\.[0-9])|[^\x00-\x7f]|\\)
    |(?P<integer>[0-9]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>==|!=|<=|>=|&&|\|\||[-+*/%<>=!?:.,()\[\]{}])""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text, as parallel tuples of `kinds`, `texts` and `starts` (in code points).

    `shape` is the text with each literal reduced to its kind: texts of one shape differ only in integers and texts.
    """

    shape: str
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    starts: tuple[int, ...]


def tokens(text: str) -> Tokens | None:
    """Split a text into tokens; None if it has escapes, unusual literals or non-ASCII characters."""
    kinds: list[str] = []
    texts: list[str] = []
    starts: list[int] = []
    shape: list[str] = []
    position = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if match.start() != position or kind == "unusual" or kind is None:
            return None
        position = match.end()
        if kind == "blank":
            continue
        token = match[0]
        kinds.append(kind)
        texts.append(token)
        starts.append(match.start())
        shape.append(f"\x00{kind[0]}" if kind in ("text", "integer") else token)
    if position != len(text):
        return None
    return Tokens("\x01".join(shape), tuple(kinds), tuple(texts), tuple(starts))


_IP_IN = re.compile(
    r"""(?P<call>(?<![\w.`])ip\s*\.\s*i[nN](?=\s*\())
    |//[^\n]*
    |[bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n\r]*"|'[^'\n\r]*')
    |[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*')
    |[A-Za-z_][A-Za-z0-9_]*""",
    re.VERBOSE | re.DOTALL,
)


def rename_ip_in(text: str) -> str:
    """Rename each call of `ip.in` to `ip.iN`, which has the same length and is no reserved word.

    A call that the author wrote as `ip.iN` becomes an undeclared name, so there is only one way to write it.

    Source: in cel-spec's grammar, `in` is always an operator.
    """
    if "ip" not in text:
        return text
    return _IP_IN.sub(_rename_call, text)


def _rename_call(match: re.Match[str]) -> str:
    if not match["call"]:
        return match[0]
    return match[0][:-1] + ("N" if match[0].endswith("n") else "_")
