"""Splits a condition into CEL's tokens, for two purposes only: to know conditions that differ in literals alone, and
to give `ip.in` a name that the checker's grammar accepts. What it cannot split it leaves to the checker to judge.

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
    """The tokens of one text without blanks: `kinds` and `texts` beside each other, `starts` in code points.

    `shape` is the text with literals reduced to their kind: equal shapes differ in integers and texts only.
    """

    shape: str
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    starts: tuple[int, ...]


def tokens(text: str) -> Tokens | None:
    """Return the tokens, or None if the text holds anything unusual: escapes, other literals, foreign characters."""
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


def spelled_for_checker(text: str) -> str:
    """Return the text with every call of `ip.in` spelled `ip.iN`: same length, same columns, but no reserved word.

    Who writes `ip.iN` gets a name that nobody declares: there is one spelling.

    Source: cel-spec's grammar takes `in` for an operator wherever it stands.
    """
    if "ip" not in text:
        return text
    return _IP_IN.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    if not match["call"]:
        return match[0]
    return match[0][:-1] + ("N" if match[0].endswith("n") else "_")
