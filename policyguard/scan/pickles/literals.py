"""The opcodes that push a constant: their arguments, read as the interpreter reads them.

They are read here because `pickletools.genops` unescapes names that `pickle` does not.

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from policyguard.scan.pickles.stack import Broken, PickleStack
from policyguard.scan.pickles.values import Abstract, Other, Payload

TEXT_KEPT = 8_192
"""Longer text and bytes stay in the source: nothing that matters (a name, a key, a dtype) is longer."""

LINE_KEPT = 64 * 2**20

Handler = Callable[[PickleStack, str], None]
"""Reads an opcode's argument and changes the stack; the text is the opcode's name in `pickletools`."""


def decimal(line: bytes) -> int:
    """Return the integer of a protocol 0 line, as strictly as the interpreter reads it.

    Raises:
        Broken: the line is not a number.
    """
    if not re.fullmatch(rb"\s*[-+]?\d[\d_]*\s*", line) or len(line) > 4_000:
        raise Broken("a malformed number")
    return int(line)


def unsigned(m: PickleStack, width: int) -> int:
    return int.from_bytes(m.cursor.take(width), "little")


def payload(m: PickleStack, kind: str, length: int) -> None:
    m.push(Payload(kind, m.cursor.skip(length), length))


def text(m: PickleStack, length: int) -> None:
    if length > TEXT_KEPT:
        payload(m, "text", length)
    else:
        m.push(m.cursor.take(length).decode("utf-8", "surrogatepass"))


def old_text(m: PickleStack, length: int) -> None:
    """Python 2 `str`: text when it is ASCII, which may then name a module; bytes or an error otherwise."""
    if length > TEXT_KEPT:
        payload(m, "bytes", length)
        return
    data = m.cursor.take(length)
    m.push(data.decode("ascii") if data.isascii() else Other("bytes"))


def quoted(m: PickleStack, _: str) -> None:
    data = m.cursor.line(LINE_KEPT).strip()
    if len(data) < 2 or data[:1] != data[-1:] or data[:1] not in (b"'", b'"'):
        raise Broken("a string without quotes")
    try:
        plain = codecs.escape_decode(data[1:-1])[0]
    except (ValueError, DeprecationWarning):
        raise Broken("a malformed escape") from None
    m.push(plain.decode("ascii") if plain.isascii() else Other("bytes"))


def unicode_line(m: PickleStack, _: str) -> None:
    m.push(m.cursor.line(LINE_KEPT).decode("raw-unicode-escape"))


def int_line(m: PickleStack, _: str) -> None:
    line = m.cursor.line()
    m.push(line == b"01" if line in (b"00", b"01") else decimal(line))


def long_line(m: PickleStack, _: str) -> None:
    m.push(decimal(m.cursor.line(8192).removesuffix(b"L")))


def float_line(m: PickleStack, _: str) -> None:
    float(m.cursor.line().decode("ascii"))
    m.push(Other("float"))


def float8(m: PickleStack, _: str) -> None:
    m.cursor.take(8)
    m.push(Other("float"))


def long_of(width: int) -> Handler:
    def read(m: PickleStack, _: str) -> None:
        length = unsigned(m, width)
        if length > TEXT_KEPT:
            m.cursor.skip(length)
            m.push(Other("large integer"))
        else:
            m.push(int.from_bytes(m.cursor.take(length), "little", signed=True))

    return read


def constant(value: Abstract) -> Handler:
    return lambda m, _: m.push(value)
