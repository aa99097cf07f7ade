"""Reads marshalled code objects without loading them, to compare two of them.

Python's own reader trusts its input, so it is not used. Here every object gets a number, and equal objects get the same
number. So differences that two honest compilations can have (shared objects, interned names, the order in a set, the
file name) have no effect, and every other difference counts. Time and memory are proportional to the bytes read,
because lengths are checked, references only point back, and nothing is copied.

Also runs in the worker's interpreter, so it imports nothing from this package. It only reads what compilers write:
constants and code, in the layout of CPython 3.11 and later.

Source: CPython, `Python/marshal.c`, `r_object` and `w_complex_object`.
"""

from __future__ import annotations

from collections.abc import Callable

MAX_DEPTH = 2_000
"""`MAX_MARSHAL_STACK_DEPTH`: Python does not load anything nested deeper."""

_FLAG_REF = 0x80
_SINGLETONS = frozenset(b"NTF.")
_FIXED = {ord("i"): 4, ord("g"): 8, ord("y"): 16}
"""The sizes of a 32-bit integer, a float and a complex number."""

Numbers = dict[object, int]
"""One number per distinct object, shared by the streams that are compared."""


class Malformed(Exception):
    """The data is not the output of a Python compiler."""


class TooDeep(Malformed):
    """The data is nested deeper than Python reads."""


def read(data: bytes, numbers: Numbers) -> int:
    """Return a canonical id: two streams get the same id if and only if they encode the same code object.

    Raises:
        Malformed: truncated, bytes left over, something that no compiler writes, or code under several file names.
    """
    reader = _Reader(data, numbers)
    number = reader.value(0)
    if reader.at != len(data):
        raise Malformed(f"{len(data) - reader.at} bytes after the code")
    if not reader.files:
        raise Malformed("no code")
    # INVARIANT I17: all code of a module bears one file name, which its loader replaces; any other could lead tools
    # that read source by file name to a text that is not there.
    if len(reader.files) != 1:
        raise Malformed("code under several file names")
    return number


class _Reader:
    """Reads one stream."""

    def __init__(self, data: bytes, numbers: Numbers) -> None:
        self.data, self.at = data, 0
        self.files: set[int] = set()
        self._numbers = numbers
        self._texts: set[int] = set()
        self._seen: list[int | None] = []

    def value(self, depth: int) -> int:
        """Read the next object and return its id."""
        if depth > MAX_DEPTH:
            raise TooDeep(f"nested deeper than {MAX_DEPTH}")
        kind = self._byte()
        if kind == ord("r"):
            return self._back()
        if kind in _SINGLETONS:
            return self._number(kind)
        # INVARIANT I17: objects are counted for references exactly where Python counts them, else a reference could
        # lead us and Python to different objects. A marked singleton is refused above: Python reads it, unmarked.
        index = None
        if kind & _FLAG_REF:
            kind &= ~_FLAG_REF
            index = len(self._seen)
            self._seen.append(None)
        reader = _KINDS.get(kind)
        if reader is None:
            raise Malformed(f"found type {kind:#04x}, which no compiler writes")
        number = reader(self, kind, depth + 1)
        if index is not None:
            self._seen[index] = number
        return number

    def fixed(self, kind: int, depth: int) -> int:  # noqa: ARG002 - all readers are called alike
        return self._number((kind, self._bytes(_FIXED[kind])))

    def long(self, kind: int, depth: int) -> int:  # noqa: ARG002
        head = self._bytes(4)
        digits = abs(int.from_bytes(head, "little", signed=True))
        return self._number((kind, head, self._bytes(2 * digits)))

    def string(self, kind: int, depth: int) -> int:  # noqa: ARG002
        return self._number((kind, self._bytes(self._size())))

    def text(self, kind: int, depth: int) -> int:  # noqa: ARG002
        data = self._bytes(self._byte() if kind in b"zZ" else self._size())
        # INVARIANT I5: what says to be ASCII is ASCII; Python would read other bytes as Latin-1, not as UTF-8.
        if kind in b"zZaA" and not data.isascii():
            raise Malformed("ASCII text with other bytes")
        number = self._number((ord("u"), data))
        self._texts.add(number)
        return number

    def sequence(self, kind: int, depth: int) -> int:
        size = 3 if kind == ord(":") else self._byte() if kind == ord(")") else self._size()
        if size > len(self.data) - self.at:
            raise Malformed("truncated")
        members = []
        for _ in range(size):
            members.append(self.value(depth))
        if kind == ord(">"):
            members.sort()
        return self._number((ord("(") if kind == ord(")") else kind, *members))

    def code(self, kind: int, depth: int) -> int:
        parts: list[object] = [kind, self._bytes(20)]
        for _ in range(5):
            parts.append(self.value(depth))
        file = self.value(depth)
        if file not in self._texts:
            raise Malformed("a file name that is no text")
        self.files.add(file)
        parts.append(self.value(depth))
        parts.append(self.value(depth))
        parts.append(self._bytes(4))
        parts.append(self.value(depth))
        parts.append(self.value(depth))
        return self._number(tuple(parts))

    def _back(self) -> int:
        index = self._size()
        number = self._seen[index] if index < len(self._seen) else None
        if number is None:
            raise Malformed("a reference to nothing, or to what it is a part of")
        return number

    def _number(self, key: object) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _size(self) -> int:
        return int.from_bytes(self._bytes(4), "little")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        read = self.data[self.at : self.at + size]
        if len(read) != size:
            raise Malformed("truncated")
        self.at += size
        return read


_KINDS: dict[int, Callable[[_Reader, int, int], int]] = {
    **dict.fromkeys(_FIXED, _Reader.fixed),
    **dict.fromkeys(b"zZaAut", _Reader.text),
    **dict.fromkeys(b"()>:", _Reader.sequence),
    ord("l"): _Reader.long,
    ord("s"): _Reader.string,
    ord("c"): _Reader.code,
}
