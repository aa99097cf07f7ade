"""The table of opcodes, and those that move and group values on the stack.

Source: Lib/pickle.py, Lib/pickletools.py and Modules/_pickle.c of CPython 3.11, opcode by opcode.
"""

from __future__ import annotations

import pickletools
from typing import Final

from policyguard.scan.pickles.literals import (
    Handler,
    constant,
    float8,
    float_line,
    index_of,
    int_line,
    long_line,
    long_of,
    old_text,
    payload,
    quoted,
    text,
    unicode_line,
    unsigned,
)
from policyguard.scan.pickles.objects import (
    ask_buffer,
    build,
    call_inst,
    call_newobj,
    call_newobj_ex,
    call_obj,
    call_reduce,
    import_by_number,
    import_from_stack,
    import_global,
    persistent_line,
    persistent_value,
)
from policyguard.scan.pickles.stack import Broken, PickleStack
from policyguard.scan.pickles.values import Items, Other

HIGHEST_PROTOCOL = 5


class Stopped(Exception):
    """The pickle reached its STOP opcode."""


def _tuple_of(count: int) -> Handler:
    def read(m: PickleStack, _: str) -> None:
        values = [m.pop() for _ in range(count)]
        m.push(m.group(values[::-1]))

    return read


def _append(m: PickleStack, _: str) -> None:
    value = m.pop()
    m.extend(m.peek(), [value], "list")


def _appends(m: PickleStack, _: str) -> None:
    values = m.pop_mark()
    m.extend(m.peek(), values, "list")


def _add_items(m: PickleStack, _: str) -> None:
    values = m.pop_mark()
    m.extend(m.peek(), values, "set")


def _set_item(m: PickleStack, _: str) -> None:
    value, key = m.pop(), m.pop()
    m.extend(m.peek(), [key, value], "map")


def _set_items(m: PickleStack, _: str) -> None:
    values = m.pop_mark()
    if len(values) % 2:
        raise Broken("a key without a value")
    m.extend(m.peek(), values, "map")


def _dict(m: PickleStack, _: str) -> None:
    values = m.pop_mark()
    if len(values) % 2:
        raise Broken("a key without a value")
    made = Items("map")
    made.extend(values)
    m.push(made)


def _list(m: PickleStack, _: str) -> None:
    made = Items("list")
    made.extend(m.pop_mark())
    m.check_weight(made)
    m.push(made)


def _frozen_set(m: PickleStack, _: str) -> None:
    m.pop_mark()
    m.push(Other("frozen set"))


def _pop(m: PickleStack, _: str) -> None:
    if m.marks and m.marks[-1] >= len(m.stack):
        m.marks.pop()
    else:
        m.pop()


def _frame(m: PickleStack, _: str) -> None:
    start, length = m.cursor.position - 1, unsigned(m, 8)
    if start < m.frame_end:
        m.leave_frame("FRAME")
    m.frame_end = m.cursor.position + length
    if length > m.cursor.remaining:
        # One of CPython's two readers goes on here; so does this one.
        m.findings.add("ckpt.truncated", "a frame beyond the end")


def _proto(m: PickleStack, _: str) -> None:
    if m.cursor.take(1)[0] > HIGHEST_PROTOCOL:
        raise Broken("a protocol newer than is read here")


def _stop(_m: PickleStack, _: str) -> None:
    raise Stopped


_HANDLERS: Final[dict[str, Handler]] = {
    "INT": int_line,
    "LONG": long_line,
    "LONG1": long_of(1),
    "LONG4": long_of(4),
    "BININT": lambda m, _: m.push(int.from_bytes(m.cursor.take(4), "little", signed=True)),
    "BININT1": lambda m, _: m.push(unsigned(m, 1)),
    "BININT2": lambda m, _: m.push(unsigned(m, 2)),
    "STRING": quoted,
    "UNICODE": unicode_line,
    "BINSTRING": lambda m, _: old_text(m, unsigned(m, 4)),
    "SHORT_BINSTRING": lambda m, _: old_text(m, unsigned(m, 1)),
    "SHORT_BINUNICODE": lambda m, _: text(m, unsigned(m, 1)),
    "BINUNICODE": lambda m, _: text(m, unsigned(m, 4)),
    "BINUNICODE8": lambda m, _: text(m, unsigned(m, 8)),
    "SHORT_BINBYTES": lambda m, _: payload(m, "bytes", unsigned(m, 1)),
    "BINBYTES": lambda m, _: payload(m, "bytes", unsigned(m, 4)),
    "BINBYTES8": lambda m, _: payload(m, "bytes", unsigned(m, 8)),
    "BYTEARRAY8": lambda m, _: payload(m, "bytes", unsigned(m, 8)),
    "NEXT_BUFFER": ask_buffer,
    "READONLY_BUFFER": ask_buffer,
    "NONE": constant(None),
    "NEWTRUE": constant(True),
    "NEWFALSE": constant(False),
    "FLOAT": float_line,
    "BINFLOAT": float8,
    "EMPTY_LIST": lambda m, _: m.push(Items("list")),
    "APPEND": _append,
    "APPENDS": _appends,
    "LIST": _list,
    "EMPTY_TUPLE": constant(()),
    "TUPLE": lambda m, _: m.push(m.group(m.pop_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "EMPTY_DICT": lambda m, _: m.push(Items("map")),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "EMPTY_SET": lambda m, _: m.push(Items("set")),
    "ADDITEMS": _add_items,
    "FROZENSET": _frozen_set,
    "POP": _pop,
    "DUP": lambda m, _: m.push(m.copied(m.peek())),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "GET": lambda m, _: m.recall(index_of(m.cursor.line())),
    "BINGET": lambda m, _: m.recall(unsigned(m, 1)),
    "LONG_BINGET": lambda m, _: m.recall(unsigned(m, 4)),
    "PUT": lambda m, _: m.remember(index_of(m.cursor.line())),
    "BINPUT": lambda m, _: m.remember(unsigned(m, 1)),
    "LONG_BINPUT": lambda m, _: m.remember(unsigned(m, 4)),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "EXT1": import_by_number(1),
    "EXT2": import_by_number(2),
    "EXT4": import_by_number(4),
    "GLOBAL": import_global,
    "STACK_GLOBAL": import_from_stack,
    "REDUCE": call_reduce,
    "BUILD": build,
    "INST": call_inst,
    "OBJ": call_obj,
    "NEWOBJ": call_newobj,
    "NEWOBJ_EX": call_newobj_ex,
    "PROTO": _proto,
    "STOP": _stop,
    "FRAME": _frame,
    "PERSID": persistent_line,
    "BINPERSID": persistent_value,
}

TABLE: Final[list[tuple[str, Handler] | None]] = [None] * 256
for _info in pickletools.opcodes:
    TABLE[ord(_info.code)] = (_info.name, _HANDLERS[_info.name])
assert len(_HANDLERS) == len(pickletools.opcodes)

__all__ = ["TABLE", "Stopped"]
