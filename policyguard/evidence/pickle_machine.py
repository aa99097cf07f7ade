"""Reads a pickle as the interpreter would, and runs nothing: what it imports, calls and builds, on abstract values.

The opcodes are those of the standard library's `pickletools`; their arguments are read here, because
`pickletools.genops` unescapes names that `pickle` does not. One machine reads one pickle, from a cursor, to its STOP.

    pickle = *( opcode argument ) STOP

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11, opcode by opcode; PEP 307, 3154 and 574.
"""

from __future__ import annotations

import codecs
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from policyguard.evidence.archive_source import BytesSource, Cursor, Source, window
from policyguard.evidence.checkpoint_report import Findings, Verdict, shown
from policyguard.evidence.pickle_allowlist import judged, modern
from policyguard.evidence.pickle_values import Abstract, Group, Import, Items, Made, Other, Payload, weight_of

TEXT_KEPT = 8_192
"""Longer text and bytes stay in the source: nothing that matters (a name, a key, a dtype) is longer."""

MAX_WEIGHT = 10**8
"""A pickle whose objects, walked, have more parts than this is a bomb for whoever hashes, prints or copies it."""

ENCODED_KEPT = 256 * 2**20
LINE_KEPT = 64 * 2**20

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_CHECKED = {("torch.storage", "_load_from_bytes"), ("_codecs", "encode")}
_MAPPINGS = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "Counter")}
_EXTENDED = {("collections", "deque"), ("builtins", "list")}
_STEP = 2_048
HIGHEST_PROTOCOL = 5


class Broken(Exception):
    """The pickle does not parse here; what was read before counts."""


class _Stop(Exception):
    pass


@dataclass(slots=True)
class Dialect:
    """How the file's own reader departs from a plain `pickle.load`.

    `persistent` judges a persistent id and returns its value; `built` is told of each BUILD and may read array bytes
    that joblib keeps between opcodes; `nested` scans bytes that the reader unpickles again.
    """

    persistent: Callable[[Abstract], Abstract] | None = None
    built: Callable[[Cursor, Abstract], None] | None = None
    nested: Callable[[Source], None] | None = None


@dataclass(slots=True)
class Machine:
    """The abstract stack, marks and memo of one pickle."""

    cursor: Cursor
    findings: Findings
    dialect: Dialect = field(default_factory=Dialect)
    stack: list[Abstract] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Abstract] = field(default_factory=dict)
    imported: int = 0
    """How many imports with a proper name were seen."""
    called: int = 0
    checked_left: int = 0
    opcodes: int = 0
    frame_end: int = 0

    def run(self) -> Abstract:
        """Return what the pickle would return; findings hold what was seen, also when this raises.

        Raises:
            Broken: an opcode or argument is malformed, or the stack runs empty.
            Truncated: the source ended before STOP.
            Exhausted: a limit was reached.
        """
        cursor, table = self.cursor, _TABLE
        try:
            while True:
                self.opcodes += 1
                if self.opcodes % _STEP == 0:
                    self.findings.spend_opcodes(_STEP)
                entry, start = table[cursor.take(1)[0]], cursor.position - 1
                if entry is None:
                    raise Broken("a byte that is no opcode")
                entry[1](self, entry[0])
                if start < self.frame_end < cursor.position and entry[0] != "BUILD":
                    self.leave_frame(entry[0])
        except _Stop:
            if self.checked_left:
                # A listed function that reads its argument as a pickle or codec went somewhere other than a call.
                self.findings.add("ckpt.pickle_reader", "a reader function is passed on as a value")
            value = self.pop()
            if self.stack or self.marks:
                self.findings.add("ckpt.pickle_state", "values left behind at the end")
            return value
        except (IndexError, ValueError, OverflowError, UnicodeError):
            raise Broken("a malformed argument") from None

    def leave_frame(self, opcode: str) -> None:
        """Record that an argument reaches over the end of its frame: CPython's readers then read different bytes."""
        # INVARIANT I104: where two readers of the same bytes would go on at different places, neither is believed.
        self.findings.add("ckpt.pickle_frame", opcode)
        self.frame_end = 0

    # --- the stack -------------------------------------------------------------------------------------------------

    def push(self, value: Abstract) -> None:
        self.stack.append(value)

    def pop(self) -> Abstract:
        if not self.stack or (self.marks and self.marks[-1] >= len(self.stack)):
            raise Broken("the stack runs empty")
        return self.stack.pop()

    def peek(self) -> Abstract:
        if not self.stack or (self.marks and self.marks[-1] >= len(self.stack)):
            raise Broken("the stack runs empty")
        return self.stack[-1]

    def pop_mark(self) -> list[Abstract]:
        if not self.marks:
            raise Broken("no mark")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    # --- importing and calling ---------------------------------------------------------------------------------------

    def import_name(self, module: str, name: str) -> Import:
        """Record the import and return its value; the pair is judged as written and as Python 2 would have meant it."""
        # INVARIANT I112: every import of the interpreter's reader passes here first, under the name it would use.
        found = Import(module, name)
        self.findings.import_of(f"{module}.{name}")
        self.imported += bool(_NAME.fullmatch(module) and _NAME.fullmatch(name))
        verdict = judged(module, name, self.findings.extra_globals)
        if verdict is Verdict.HOSTILE:
            self.findings.add("ckpt.pickle_global", f"{module}.{name}")
        elif verdict is Verdict.UNKNOWN:
            self.findings.add("ckpt.pickle_unlisted", f"{module}.{name}")
        elif module in ("__builtin__", "copy_reg"):
            found = Import(*modern(module, name))
        self.checked_left += found.pair in _CHECKED
        return found

    def call(self, target: Abstract, args: Abstract) -> Abstract:
        """Record the call and return what it makes."""
        self.called += 1
        if not isinstance(target, Import):
            self.findings.add("ckpt.pickle_indirect_call", kind_of(target))
            return Made(target)
        if target.pair in _CHECKED:
            self.checked_left -= 1
            self._checked_call(target, args)
        made = Made(target, args)
        if target.pair in _MAPPINGS:
            made.contents = Items("map")
        elif target.pair in _EXTENDED:
            made.contents = Items("list")
        return made

    def _checked_call(self, target: Import, args: Abstract) -> None:
        if target.name == "encode":
            # Protocol 2 writes bytes as Latin-1 text; any other codec name is imported from `encodings`.
            if not (isinstance(args, tuple) and len(args) == 2 and args[1] in ("latin1", "latin-1")):
                self.findings.add("ckpt.pickle_global", "_codecs.encode with an unusual codec")
            return
        inner = self._bytes(args[0]) if isinstance(args, tuple) and len(args) == 1 else None
        if inner is None or self.dialect.nested is None:
            self.findings.add("ckpt.pickle_reader", "torch.storage._load_from_bytes of a computed value")
        else:
            self.dialect.nested(inner)

    def _bytes(self, value: Abstract) -> Source | None:
        """Return the bytes that a constant is, also where protocol 2 spells them as encoded text."""
        source = self.cursor.source
        if isinstance(value, Payload) and value.kind == "bytes":
            return window(source, value.offset, value.length)
        if not (isinstance(value, Made) and value.of == Import("_codecs", "encode") and isinstance(value.args, tuple)):
            return None
        text = value.args[0] if value.args else None
        if isinstance(text, Payload) and text.kind == "text" and text.length <= ENCODED_KEPT:
            text = source.read(text.offset, text.length).decode("utf-8", "surrogatepass")
        return BytesSource(text.encode("latin-1")) if type(text) is str else None

    def copied(self, value: Abstract) -> Abstract:
        if isinstance(value, Import) and value.pair in _CHECKED:
            self.checked_left += 1
        return value

    def remember(self, index: int) -> None:
        if index < 0:
            raise Broken("a negative memo index")
        self.memo[index] = self.peek()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Broken("a memo entry that was never put")
        self.push(self.copied(self.memo[index]))

    def extend(self, target: Abstract, values: list[Abstract], kind: str) -> None:
        """Put items into the list, set or map `target`; anything else is treated as what it is not."""
        contents = target if isinstance(target, Items) else target.contents if isinstance(target, Made) else None
        if isinstance(target, Made) and isinstance(target.of, Import) and target.of.pair in self.findings.extra_globals:
            return
        if contents is None or contents.kind != kind:
            self.findings.add("ckpt.pickle_state", f"items of a {kind} put into {kind_of(target)}")
            return
        contents.extend(values)
        self.check_weight(contents)

    def group(self, values: list[Abstract]) -> Abstract:
        """Return the values as a tuple that knows how much it would be if every reference were a copy."""
        made = Group(values)
        made.weight = 1 + sum(map(weight_of, values))
        self.check_weight(made)
        return made

    def check_weight(self, value: Abstract) -> None:
        if weight_of(value) > MAX_WEIGHT:
            self.findings.add("ckpt.pickle_expansion", f"more than {MAX_WEIGHT} items by reference")

    def number(self) -> int:
        return decimal(self.cursor.line())


def decimal(line: bytes) -> int:
    """Return the integer of a protocol 0 line, as strictly as the interpreter reads it."""
    if not re.fullmatch(rb"\s*[-+]?\d[\d_]*\s*", line) or len(line) > 4_000:
        raise Broken("a malformed number")
    return int(line)


def kind_of(value: Abstract) -> str:
    """Return a short name for a value in a message."""
    if isinstance(value, Import):
        return shown(f"the import {value}", 80)
    if isinstance(value, Made):
        return f"a result of {shown(str(value.of), 60)}" if isinstance(value.of, Import) else "a computed value"
    if isinstance(value, Items | Other | Payload):
        return f"a {value.kind}"
    return "a tuple" if isinstance(value, tuple) else "a constant"


# --- opcodes: each handler reads its argument and changes the stack, as the interpreter would ---


def _unsigned(m: Machine, width: int) -> int:
    return int.from_bytes(m.cursor.take(width), "little")


def _payload(m: Machine, kind: str, length: int) -> None:
    m.push(Payload(kind, m.cursor.skip(length), length))


def _text(m: Machine, length: int) -> None:
    if length > TEXT_KEPT:
        _payload(m, "text", length)
    else:
        m.push(m.cursor.take(length).decode("utf-8", "surrogatepass"))


def _old_text(m: Machine, length: int) -> None:
    """Python 2 `str`: text when it is ASCII, which may then name a module; bytes or an error otherwise."""
    if length > TEXT_KEPT:
        _payload(m, "bytes", length)
        return
    data = m.cursor.take(length)
    m.push(data.decode("ascii") if data.isascii() else Other("bytes"))


def _quoted(m: Machine, _: str) -> None:
    data = m.cursor.line(LINE_KEPT).strip()
    if len(data) < 2 or data[:1] != data[-1:] or data[:1] not in (b"'", b'"'):
        raise Broken("a string without quotes")
    try:
        plain = codecs.escape_decode(data[1:-1])[0]
    except (ValueError, DeprecationWarning):
        raise Broken("a malformed escape") from None
    m.push(plain.decode("ascii") if plain.isascii() else Other("bytes"))


def _unicode_line(m: Machine, _: str) -> None:
    m.push(m.cursor.line(LINE_KEPT).decode("raw-unicode-escape"))


def _int_line(m: Machine, _: str) -> None:
    line = m.cursor.line()
    m.push(line == b"01" if line in (b"00", b"01") else decimal(line))


def _long_line(m: Machine, _: str) -> None:
    m.push(decimal(m.cursor.line(8192).removesuffix(b"L")))


def _float_line(m: Machine, _: str) -> None:
    float(m.cursor.line().decode("ascii"))
    m.push(Other("float"))


def _float8(m: Machine, _: str) -> None:
    m.cursor.take(8)
    m.push(Other("float"))


def _long(width: int) -> Callable[[Machine, str], None]:
    def read(m: Machine, _: str) -> None:
        length = _unsigned(m, width)
        if length > TEXT_KEPT:
            m.cursor.skip(length)
            m.push(Other("large integer"))
        else:
            m.push(int.from_bytes(m.cursor.take(length), "little", signed=True))

    return read


def _global(m: Machine, _: str) -> None:
    m.push(_import_lines(m))


def _import_lines(m: Machine) -> Import:
    # INVARIANT I101: names are the raw bytes the interpreter would use, never an unescaped or split form of them.
    module, name = m.cursor.line(), m.cursor.line()
    return m.import_name(module.decode("utf-8"), name.decode("utf-8"))


def _stack_global(m: Machine, _: str) -> None:
    name, module = m.pop(), m.pop()
    if type(name) is str and type(module) is str:
        m.push(m.import_name(module, name))
    else:
        m.imported += 1
        m.findings.add("ckpt.pickle_unresolved", f"{kind_of(module)}, {kind_of(name)}")
        m.push(Other("unresolved import"))


def _extension(width: int) -> Callable[[Machine, str], None]:
    def read(m: Machine, _: str) -> None:
        m.imported += 1
        m.findings.add("ckpt.pickle_extension", str(_unsigned(m, width)))
        m.push(Other("extension"))

    return read


def _inst(m: Machine, _: str) -> None:
    target = _import_lines(m)
    m.push(m.call(target, tuple(m.pop_mark())))


def _obj(m: Machine, _: str) -> None:
    values = m.pop_mark()
    if not values:
        raise Broken("a call of nothing")
    m.push(m.call(values[0], tuple(values[1:])))


def _reduce(m: Machine, _: str) -> None:
    args, target = m.pop(), m.pop()
    m.push(m.call(target, args))


def _newobj(m: Machine, _: str) -> None:
    args, target = m.pop(), m.pop()
    m.push(m.call(target, args))


def _newobj_ex(m: Machine, _: str) -> None:
    keywords, args, target = m.pop(), m.pop(), m.pop()
    m.push(m.call(target, (args, keywords)))


def _build(m: Machine, _: str) -> None:
    state, target = m.pop(), m.peek()
    if isinstance(target, Import | Other):
        # INVARIANT I102: a state may be given to an object that was just made, never to a class, function or module.
        m.findings.add("ckpt.pickle_build", kind_of(target))
    elif not isinstance(target, Made):
        m.findings.add("ckpt.pickle_state", f"a state given to {kind_of(target)}")
    else:
        target.state = state
        if _points_elsewhere(target, state):
            m.findings.add("ckpt.archive_path", "a shard of a sharded checkpoint")
        if _renames(state):
            m.findings.add("ckpt.pickle_build", f"a special attribute of {kind_of(target)}")
    if m.dialect.built and isinstance(target, Made):
        start = m.cursor.position
        m.dialect.built(m.cursor, target)
        if start < m.frame_end and m.cursor.position > start:
            m.leave_frame("array")


def _points_elsewhere(target: Made, state: Abstract) -> bool:
    """A sharded checkpoint names its files: one outside its folder would be read without having been scanned."""
    if target.of != Import("torch.distributed.checkpoint.filesystem", "_StorageInfo") or not isinstance(state, Items):
        return False
    name = state.entry("relative_path")
    return type(name) is not str or name.startswith("..") or "/" in name or "\\" in name


def _renames(state: Abstract) -> bool:
    parts = state if isinstance(state, tuple) else (state,)
    maps = [part for part in parts if isinstance(part, Items) and part.kind == "map"]
    return any(type(key) is str and key.startswith("__") and key.endswith("__") for m in maps for key in m.items[::2])


def _persid(m: Machine, _: str) -> None:
    line = m.cursor.line()
    _persistent(m, line.decode("ascii"))


def _binpersid(m: Machine, _: str) -> None:
    _persistent(m, m.pop())


def _persistent(m: Machine, value: Abstract) -> None:
    if m.dialect.persistent is None:
        m.findings.add("ckpt.pickle_persistent_id", kind_of(value))
        m.push(Other("persistent object"))
    else:
        m.push(m.dialect.persistent(value))


def _buffer(m: Machine, name: str) -> None:
    m.findings.add("ckpt.pickle_buffer", name)
    if name == "NEXT_BUFFER":
        m.push(Other("buffer"))


def _tuple_of(count: int) -> Callable[[Machine, str], None]:
    def read(m: Machine, _: str) -> None:
        values = [m.pop() for _ in range(count)]
        m.push(m.group(values[::-1]))

    return read


def _append(m: Machine, _: str) -> None:
    value = m.pop()
    m.extend(m.peek(), [value], "list")


def _appends(m: Machine, _: str) -> None:
    values = m.pop_mark()
    m.extend(m.peek(), values, "list")


def _add_items(m: Machine, _: str) -> None:
    values = m.pop_mark()
    m.extend(m.peek(), values, "set")


def _set_item(m: Machine, _: str) -> None:
    value, key = m.pop(), m.pop()
    m.extend(m.peek(), [key, value], "map")


def _set_items(m: Machine, _: str) -> None:
    values = m.pop_mark()
    if len(values) % 2:
        raise Broken("a key without a value")
    m.extend(m.peek(), values, "map")


def _dict(m: Machine, _: str) -> None:
    values = m.pop_mark()
    if len(values) % 2:
        raise Broken("a key without a value")
    made = Items("map")
    made.extend(values)
    m.push(made)


def _list(m: Machine, _: str) -> None:
    made = Items("list")
    made.extend(m.pop_mark())
    m.check_weight(made)
    m.push(made)


def _frozen_set(m: Machine, _: str) -> None:
    m.pop_mark()
    m.push(Other("frozen set"))


def _pop(m: Machine, _: str) -> None:
    if m.marks and m.marks[-1] >= len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _frame(m: Machine, _: str) -> None:
    start, length = m.cursor.position - 1, _unsigned(m, 8)
    if start < m.frame_end:
        m.leave_frame("FRAME")
    m.frame_end = m.cursor.position + length
    if length > m.cursor.left:
        # One of CPython's two readers goes on here; so does this one.
        m.findings.add("ckpt.truncated", "a frame beyond the end")


def _proto(m: Machine, _: str) -> None:
    if m.cursor.take(1)[0] > HIGHEST_PROTOCOL:
        raise Broken("a protocol newer than is read here")


def _stop(_m: Machine, _: str) -> None:
    raise _Stop


def _constant(value: Abstract) -> Callable[[Machine, str], None]:
    return lambda m, _: m.push(value)


_HANDLERS: Final[dict[str, Callable[[Machine, str], None]]] = {
    "INT": _int_line, "LONG": _long_line, "LONG1": _long(1), "LONG4": _long(4),
    "BININT": lambda m, _: m.push(int.from_bytes(m.cursor.take(4), "little", signed=True)),
    "BININT1": lambda m, _: m.push(_unsigned(m, 1)), "BININT2": lambda m, _: m.push(_unsigned(m, 2)),
    "STRING": _quoted, "UNICODE": _unicode_line,
    "BINSTRING": lambda m, _: _old_text(m, _unsigned(m, 4)),
    "SHORT_BINSTRING": lambda m, _: _old_text(m, _unsigned(m, 1)),
    "SHORT_BINUNICODE": lambda m, _: _text(m, _unsigned(m, 1)), "BINUNICODE": lambda m, _: _text(m, _unsigned(m, 4)),
    "BINUNICODE8": lambda m, _: _text(m, _unsigned(m, 8)),
    "SHORT_BINBYTES": lambda m, _: _payload(m, "bytes", _unsigned(m, 1)),
    "BINBYTES": lambda m, _: _payload(m, "bytes", _unsigned(m, 4)),
    "BINBYTES8": lambda m, _: _payload(m, "bytes", _unsigned(m, 8)),
    "BYTEARRAY8": lambda m, _: _payload(m, "bytes", _unsigned(m, 8)),
    "NEXT_BUFFER": _buffer, "READONLY_BUFFER": _buffer,
    "NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False),
    "FLOAT": _float_line, "BINFLOAT": _float8,
    "EMPTY_LIST": lambda m, _: m.push(Items("list")), "APPEND": _append, "APPENDS": _appends, "LIST": _list,
    "EMPTY_TUPLE": _constant(()), "TUPLE": lambda m, _: m.push(m.group(m.pop_mark())),
    "TUPLE1": _tuple_of(1), "TUPLE2": _tuple_of(2), "TUPLE3": _tuple_of(3),
    "EMPTY_DICT": lambda m, _: m.push(Items("map")), "DICT": _dict, "SETITEM": _set_item, "SETITEMS": _set_items,
    "EMPTY_SET": lambda m, _: m.push(Items("set")), "ADDITEMS": _add_items,
    "FROZENSET": _frozen_set,
    "POP": _pop, "DUP": lambda m, _: m.push(m.copied(m.peek())), "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "GET": lambda m, _: m.recall(m.number()), "BINGET": lambda m, _: m.recall(_unsigned(m, 1)),
    "LONG_BINGET": lambda m, _: m.recall(_unsigned(m, 4)),
    "PUT": lambda m, _: m.remember(m.number()), "BINPUT": lambda m, _: m.remember(_unsigned(m, 1)),
    "LONG_BINPUT": lambda m, _: m.remember(_unsigned(m, 4)), "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "EXT1": _extension(1), "EXT2": _extension(2), "EXT4": _extension(4),
    "GLOBAL": _global, "STACK_GLOBAL": _stack_global, "REDUCE": _reduce, "BUILD": _build, "INST": _inst, "OBJ": _obj,
    "NEWOBJ": _newobj, "NEWOBJ_EX": _newobj_ex, "PROTO": _proto, "STOP": _stop, "FRAME": _frame,
    "PERSID": _persid, "BINPERSID": _binpersid,
}  # fmt: skip

_TABLE: Final[list[tuple[str, Callable[[Machine, str], None]] | None]] = [None] * 256
for _info in pickletools.opcodes:
    _TABLE[ord(_info.code)] = (_info.name, _HANDLERS[_info.name])
assert len(_HANDLERS) == len(pickletools.opcodes)

__all__ = ["Broken", "Dialect", "Machine", "kind_of"]
