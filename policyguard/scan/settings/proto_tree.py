"""The text format of protocol buffers as a tree: configurations of Triton, Caffe and TensorFlow.

message = *( name [ ":" ] ( scalar | "{" message "}" | "<" message ">" | "[" values "]" ) [ "," | ";" ] )

Source: protobuf.dev/reference/protobuf/textformat-spec.
"""

from __future__ import annotations

import codecs
import re

from policyguard.scan.settings.tree import MAX_NODES, Map, TooDeep, Unreadable

_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*)*+(?:(?P<text>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')|(?P<word>[-+\w./]++)|(?P<sign>[][{}<>:,;])|\Z)"""
)
_CLOSING = {"{": "}", "<": ">"}
_MAX_DEPTH = 200


def proto_tree(text: str) -> Map:
    """Read a message.

    Raises:
        Unreadable: not this syntax.
        TooDeep: nested deeper, or larger, than is read.
    """
    return _Reader(text).message("", 0)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.count = text, 0, 0
        self.kind, self.value = "", ""
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise Unreadable("not the text format of protocol buffers", f"{self.text.count(chr(10), 0, self.at) + 1}:1")
        self.at, self.count = match.end(), self.count + 1
        if self.count > MAX_NODES:
            raise TooDeep(f"more than {MAX_NODES} values")
        self.kind = match.lastgroup or ""
        self.value = match[match.lastgroup] if match.lastgroup else ""

    def message(self, end: str, depth: int) -> Map:
        if depth > _MAX_DEPTH:
            raise TooDeep(f"nested deeper than {_MAX_DEPTH} levels")
        entries = Map()
        while self.value != end or self.kind == "text":
            name = self.name()
            is_scalar = (self.kind, self.value) == ("sign", ":")
            if is_scalar:
                self.advance()
            if not is_scalar and self.value not in ("{", "<", "["):
                raise Unreadable("a field without a value")
            entries.append((name, self.one(depth)))
            if self.kind == "sign" and self.value in (",", ";"):
                self.advance()
        if end:
            self.advance()
        return entries

    def name(self) -> str:
        name = self.value
        if (self.kind, name) == ("sign", "["):
            while self.value != "]" and self.kind:
                self.advance()
        elif self.kind != "word":
            raise Unreadable("a field without a name")
        self.advance()
        return name

    def one(self, depth: int) -> object:
        kind, value = self.kind, self.value
        if not kind:
            raise Unreadable("a field without a value")
        self.advance()
        if kind == "sign" and value in _CLOSING:
            return self.message(_CLOSING[value], depth + 1)
        if kind == "sign" and value == "[":
            items: list[object] = []
            while (self.kind, self.value) != ("sign", "]"):
                items.append(self.one(depth + 1))
                if (self.kind, self.value) == ("sign", ","):
                    self.advance()
            self.advance()
            return items
        if kind == "sign":
            raise Unreadable("a sign where a value belongs")
        if kind == "word":
            return value
        parts = [value]
        while self.kind == "text":
            parts.append(self.value)
            self.advance()
        return "".join(_unescaped(part[1:-1]) for part in parts)


def _unescaped(text: str) -> str:
    try:
        return codecs.escape_decode(text.encode())[0].decode("utf-8", "replace")
    except ValueError:
        raise Unreadable("a malformed escape") from None
