"""Parses the matcher of a casbin `model.conf`; nothing is evaluated as code.

    matcher  = conjunction *( "||" conjunction )
    conjunction = atom *( "&&" atom )
    atom     = "(" matcher ")" / call / operand comparison operand / operand "in" list
    call     = name "(" operand *( "," operand ) ")"
    operand  = dotted name / text / integer

Everything else in casbin's expression language is refused with its position (hazards H6, H7).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from policyguard.casbin_compat.conf import Text
from policyguard.errors import PolicyError
from policyguard.text import quoted_list
from policyguard.values import Span

MAX_ALTERNATIVES = 64
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
CALLABLE = ("g", "g2", "g3", "keyMatch", "keyMatch2", "keyMatch3", "globMatch", "regexMatch")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<text>"[^"\\]*"|'[^'\\]*')
      | (?P<integer>\d+(?![\w.]))
      | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
      | (?P<sign>&&|\|\||==|!=|<=|>=|[<>(),\[\]])""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a comparison.

    `r.obj.Owner` has kind "r" and path ("obj", "Owner"); a constant has kind "constant" and a value.
    """

    kind: str
    path: tuple[str, ...]
    value: str | int | tuple[str | int, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Atom:
    """A comparison, `in`, or a function call; `function` is the operator or the function's name."""

    function: str
    arguments: tuple[Operand, ...]
    span: Span


Alternative: TypeAlias = tuple[Atom, ...]


def alternatives(matcher: Text) -> tuple[Alternative, ...]:
    """Split the matcher into alternatives; each is a tuple of atoms that must all be true.

    Raises:
        PolicyError: PG109 at the first thing that is outside the grammar above.
    """
    parser = _Parser(matcher)
    alternatives = parser.disjunction()
    parser.end()
    return alternatives


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    span: Span


class _Parser:
    def __init__(self, matcher: Text) -> None:
        self.tokens = list(_tokens(matcher))
        self.last = matcher.at(len(matcher.text))
        self.position = 0

    def peek(self) -> str:
        return self.tokens[self.position].text if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> _Token:
        if self.position >= len(self.tokens):
            raise PolicyError(f"the matcher ends, expected {expected or 'more'}", span=self.last, code="PG109")
        token = self.tokens[self.position]
        if expected and token.text != expected:
            raise _unexpected(token, f"`{expected}`")
        self.position += 1
        return token

    def end(self) -> None:
        if self.position < len(self.tokens):
            raise _unexpected(self.tokens[self.position], "`&&`, `||` or the end")

    def disjunction(self) -> tuple[Alternative, ...]:
        alternatives = list(self.conjunction())
        while self.peek() == "||":
            self.take()
            alternatives += self.conjunction()
        if len(alternatives) > MAX_ALTERNATIVES:
            raise PolicyError(
                f"the matcher has more than {MAX_ALTERNATIVES} alternatives", span=self.last, code="PG010"
            )
        return tuple(alternatives)

    def conjunction(self) -> tuple[Alternative, ...]:
        parts = [self.atom()]
        while self.peek() == "&&":
            self.take()
            parts.append(self.atom())
        if _count(parts) > MAX_ALTERNATIVES:
            raise PolicyError(
                f"the matcher has more than {MAX_ALTERNATIVES} alternatives", span=self.last, code="PG010"
            )
        return tuple(tuple(atom for part in chosen for atom in part) for chosen in product(*parts))

    def atom(self) -> tuple[Alternative, ...]:
        if self.peek() == "(":
            self.take()
            inner = self.disjunction()
            self.take(")")
            return inner
        token = self.take()
        if token.kind == "name" and self.peek() == "(":
            return ((self.call(token),),)
        first = self.operand(token)
        sign = self.take()
        if sign.text == "in":
            return ((Atom("in", (first, self.list_of(sign.span)), sign.span),),)
        if sign.text not in COMPARISONS:
            raise _unexpected(sign, "a comparison, `in`, `&&` or `||`")
        return ((Atom(sign.text, (first, self.operand(self.take())), sign.span),),)

    def call(self, name: _Token) -> Atom:
        if name.text not in CALLABLE:
            known = quoted_list(CALLABLE)
            raise PolicyError(
                f"found the function `{name.text}`, expected one of {known}",
                span=name.span,
                code="PG109",
                help=_HELP.get(name.text),
            )
        self.take("(")
        arguments = [self.operand(self.take())]
        while self.peek() == ",":
            self.take()
            arguments.append(self.operand(self.take()))
        self.take(")")
        return Atom(name.text, tuple(arguments), name.span)

    def list_of(self, span: Span) -> Operand:
        closing = {"(": ")", "[": "]"}.get(self.take().text)
        if closing is None:
            raise PolicyError("expected a list of constants after `in`", span=span, code="PG109")
        items: list[str | int] = []
        commas = 0
        while self.peek() != closing:
            operand = self.operand(self.take())
            if isinstance(operand.value, tuple) or operand.kind != "constant":
                raise PolicyError("expected only constants in a list", span=operand.span, code="PG109")
            items.append(operand.value)
            if self.peek() == ",":
                self.take()
                commas += 1
            elif self.peek() != closing:
                break
        self.take(closing)
        if closing == ")" and not commas:
            # Python reads `x in ("abc")` as a search for x inside the text.
            raise PolicyError("expected a list in brackets after `in`", span=span, code="PG109")
        return Operand("constant", (), tuple(items), span)

    def operand(self, token: _Token) -> Operand:
        if token.kind == "text":
            return Operand("constant", (), _literal(token), token.span)
        if token.kind == "integer":
            return Operand("constant", (), int(token.text), token.span)
        head, *path = token.text.split(".")
        if token.kind != "name" or head not in ("r", "p") or not path:
            raise _unexpected(token, "`r.` or `p.` and a name, a text or an integer")
        return Operand(head, tuple(path), token.text, token.span)


_HELP = {
    "eval": "write each rule as a condition; casbin runs the row's text as code (H7)",
    "ipMatch": "make the address an attribute of the context and use `ip.in`",
    "timeMatch": "use `notBefore` and `expires`; casbin reads a clock without a zone (H20)",
}


def _count(parts: list[tuple[Alternative, ...]]) -> int:
    total = 1
    for part in parts:
        total *= len(part)
    return total


def _tokens(matcher: Text) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(matcher.text):
        match = _TOKEN.match(matcher.text, position)
        if match is None or match.lastgroup is None:
            raise PolicyError(
                f"found `{matcher.text[position]}`, which import does not translate",
                span=matcher.at(position),
                code="PG109",
            )
        if match.lastgroup != "space":
            tokens.append(_Token(match.lastgroup, match[0], matcher.at(position)))
        position = match.end()
    return tokens


def _literal(token: _Token) -> str:
    """Parse a text constant; refuse one that casbin would rewrite before it reads it (H6)."""
    text = token.text[1:-1]
    for rewritten in ("&&", "||", "!"):
        if rewritten in text:
            raise PolicyError(
                f"found `{rewritten}` inside a text, where casbin replaces it", span=token.span, code="PG109"
            )
    if re.search(r"\b[rp]\d*\.", text):
        raise PolicyError("found `r.` or `p.` inside a text, where casbin replaces it", span=token.span, code="PG109")
    return text


def _unexpected(token: _Token, expected: str) -> PolicyError:
    return PolicyError(f"found `{token.text}`, expected {expected}", span=token.span, code="PG109")
