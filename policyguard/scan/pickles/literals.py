"""Opcodes that push a constant; their arguments are read exactly as the interpreter reads them.

They are read here because `pickletools.genops` unescapes names that `pickle` does not.

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from policyguard.scan.pickles.stack import Broken, PickleStack
from policyguard.scan.pickles.values import Abstract, Other, Payload
from policyguard.scan.source import LineTooLong
from policyguard.text import printable_ascii

MAX_TEXT_BYTES = 8_192
"""Longer text and bytes stay in the source: nothing that matters (a name, a key, a dtype) is longer."""

Handler = Callable[[PickleStack, str], None]
"""Reads an opcode's argument and changes the stack; the text is the opcode's name in `pickletools`."""


_DECIMAL = re.compile(rb"[-+]?(?:0|[1-9]\d*)\s*")
_ANY_BASE = re.compile(rb"[-+]?(?:0[xXoObB]_?[\da-fA-F_]*|[\d_]*)")
_INDEX = re.compile(rb"\+?(\d[\d_]*)")
_MAX_DIGITS = 4_000


def index_of(line: bytes) -> int:
    """Return the memo index on a protocol 0 line, in base 10 and up to a zero byte, as the interpreter reads it.

    Raises:
        Broken: no number, or one of thousands of digits.
    """
    match = _INDEX.fullmatch(line.partition(b"\0")[0].strip())
    digits = match[1].lstrip(b"0_") if match else None
    if digits is None or len(digits) > _MAX_DIGITS:
        raise Broken("a malformed memo index")
    return int(digits or b"0")


def _line(m: PickleStack) -> bytes | None:
    """Return the next line; None if it is longer than anything that matters. The interpreter has no limit."""
    try:
        return m.cursor.line()
    except LineTooLong:
        return None


def _number(m: PickleStack, line: bytes | None) -> Abstract:
    """Return the integer on a protocol 0 line, or a value that no check accepts if interpreters may disagree.

    Source: `load_int` and `load_long`, Modules/_pickle.c before 3.14: base 0, up to a zero byte, whatever the length.
    """
    if line is not None and _DECIMAL.fullmatch(line) and len(line) <= _MAX_DIGITS:
        return int(line)
    # INVARIANT I18: what some reader takes for a number is one here; what follows it is read and judged.
    if line is not None and not _ANY_BASE.fullmatch(line.partition(b"\0")[0].strip()):
        raise Broken("a malformed number")
    m.findings.add("ckpt.pickle_number", printable_ascii((line or b"")[:40].decode("latin-1"), 40))
    return Other("number")


def unsigned(m: PickleStack, width: int) -> int:
    return int.from_bytes(m.cursor.take(width), "little")


def payload(m: PickleStack, kind: str, length: int) -> None:
    m.push(Payload(kind, m.cursor.skip(length), length))


def text(m: PickleStack, length: int) -> None:
    if length > MAX_TEXT_BYTES:
        payload(m, "text", length)
    else:
        m.push(m.cursor.take(length).decode("utf-8", "surrogatepass"))


def old_text(m: PickleStack, length: int) -> None:
    """Read a Python 2 `str`: text if it is ASCII, and could therefore name a module; else bytes or an error."""
    if length > MAX_TEXT_BYTES:
        payload(m, "bytes", length)
        return
    data = m.cursor.take(length)
    m.push(data.decode("ascii") if data.isascii() else Other("bytes"))


def quoted(m: PickleStack, _: str) -> None:
    if (line := _line(m)) is None:
        m.push(Other("bytes"))
        return
    data = line.strip()
    if len(data) < 2 or data[:1] != data[-1:] or data[:1] not in (b"'", b'"'):
        raise Broken("a string without quotes")
    try:
        plain = codecs.escape_decode(data[1:-1])[0]
    except (ValueError, DeprecationWarning):
        raise Broken("a malformed escape") from None
    m.push(plain.decode("ascii") if plain.isascii() else Other("bytes"))
    m.lines += 1


def unicode_line(m: PickleStack, _: str) -> None:
    line = _line(m)
    m.push(Other("text") if line is None else line.decode("raw-unicode-escape"))


def int_line(m: PickleStack, _: str) -> None:
    line = _line(m)
    m.push(line == b"01" if line in (b"00", b"01") else _number(m, line))
    m.lines += 1


def long_line(m: PickleStack, _: str) -> None:
    line = _line(m)
    m.push(_number(m, line and line.removesuffix(b"L")))
    m.lines += 1


def float_line(m: PickleStack, _: str) -> None:
    line = _line(m)
    text, zero, _rest = (line or b"0").partition(b"\0")
    float(text.decode("ascii"))
    if zero or line is None:
        m.findings.add("ckpt.pickle_number", "a float that ends at a zero byte, or is long")
    m.push(Other("float"))
    m.lines += 1


def float8(m: PickleStack, _: str) -> None:
    m.cursor.take(8)
    m.push(Other("float"))


def long_of(width: int) -> Handler:
    def read(m: PickleStack, _: str) -> None:
        length = unsigned(m, width)
        if length > MAX_TEXT_BYTES:
            m.cursor.skip(length)
            m.push(Other("large integer"))
        else:
            m.push(int.from_bytes(m.cursor.take(length), "little", signed=True))

    return read


def constant(value: Abstract) -> Handler:
    return lambda m, _: m.push(value)
