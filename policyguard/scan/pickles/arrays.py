"""numpy dtypes and arrays in pickles; an inconsistent state makes numpy use the file's bytes as addresses.

    dtype-state = ( version, order, subarray, names, fields, size, alignment, flags [ , metadata ] )
    array-state = ( [ version, ] shape, dtype, is-fortran, data )

Source: numpy 2.4, `arraydescr_setstate` and `array_setstate`, which believe what they are given.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from policyguard.scan.findings import Findings
from policyguard.scan.pickles.values import NOTHING, Abstract, Import, Items, Made

_CODE = re.compile(r"[<>|=]?([biufcmMOSaUV?])(\d{0,9})(?:\[[\w/]+\])?")
_REFCOUNT, _LIST_PICKLE, _POINTER = 1, 2, 4
_OBJECT_FLAGS = 63
_LARGEST_ITEM = 2**24
MAX_ITEMS = 2**24
"""The maximum number of items of an array built from arguments."""

_DTYPE = ("numpy", "dtype")
_ARRAY_NAMES = {"_reconstruct", "_mareconstruct", "ndarray", "matrix", "record", "recarray", "MaskedArray"}


@dataclass(frozen=True, slots=True)
class ItemType:
    """The item type of an array: its size in bytes, and True if it is a reference to an object."""

    size: int
    has_objects: bool


def is_dtype(value: Abstract) -> bool:
    """Return True for the result of calling `numpy.dtype` or one of numpy's dtype classes."""
    if not isinstance(value, Made) or not isinstance(value.callee, Import):
        return False
    return value.callee.pair == _DTYPE or value.callee.module == "numpy.dtypes"


def is_array(value: Abstract) -> bool:
    """Return True for the result of calling one of numpy's array functions or classes."""
    if not isinstance(value, Made) or not isinstance(value.callee, Import):
        return False
    return value.callee.module.partition(".")[0] == "numpy" and value.callee.name in _ARRAY_NAMES


def item_type(value: Abstract, findings: Findings, depth: int = 8) -> ItemType | None:
    """Read a pickled dtype; None, with a finding, if it is inconsistent or not supported here.

    Args:
        value: the dtype, as the opcodes made it.
        findings: takes what is found.
        depth: how deep fields of fields are read.
    """
    if not isinstance(value, Made) or not isinstance(value.callee, Import) or value.callee.pair != _DTYPE or not depth:
        return _unread(findings, "an array without a dtype that is read here")
    args, state = value.args, value.state
    if (
        not isinstance(args, tuple)
        or not 1 <= len(args) <= 3
        or not all(type(flag) in (bool, int) for flag in args[1:])
    ):
        return _unread(findings, "a dtype of computed arguments")
    if (measured := _code(args[0], state)) is None:
        return _unread(findings, "a dtype that is computed or not read here")
    kind, size = measured
    if size > _LARGEST_ITEM:
        findings.add("ckpt.pickle_expansion", f"a dtype of {size} bytes an item")
    if state is None:
        return ItemType(size, kind == "O")
    if value.states > 1 or not isinstance(state, tuple) or len(state) not in (8, 9):
        return _unread(findings, "a dtype with a state that is not read here")
    return _with_state(kind, size, state, findings, depth)


def _code(code: Abstract, state: Abstract) -> tuple[str, int] | None:
    """Return kind and size of a dtype's first argument; the size of a record is in its state."""
    if code in (Import("numpy", "record"), Import("numpy", "void")):
        size = state[5] if isinstance(state, tuple) and len(state) > 5 else 0
        return ("V", size) if type(size) is int and size >= 0 else None
    match = _CODE.fullmatch(code) if type(code) is str else None
    if match is None:
        return None
    kind, count = match[1], int(match[2] or "0")
    return kind, count * 4 if kind == "U" else 8 if kind in "OMm" else 1 if kind == "?" else count


def _with_state(kind: str, size: int, state: tuple[Abstract, ...], findings: Findings, depth: int) -> ItemType | None:
    _, _, subarray, names, fields, item_bytes, _, flags = state[:8]
    if type(flags) is not int or type(item_bytes) is not int:
        return _unread(findings, "a dtype whose size or flags are computed")
    inner: ItemType | None = ItemType(size, kind == "O")
    if kind == "V" and (subarray is not None or fields is not None):
        inner = _compound(subarray, names, fields, findings, depth)
    elif subarray is not None or fields is not None or names is not None:
        return _lies(findings, "a dtype of one item with fields")
    if inner is None:
        return None
    # INVARIANT I18: numpy takes the flags and the size from here, whatever the kind; both must be those of the kind.
    if bool(flags & (_REFCOUNT | _LIST_PICKLE | _POINTER)) != inner.has_objects:
        return _lies(findings, "a dtype whose flags deny its kind")
    if kind == "O" and flags & 0xFF != _OBJECT_FLAGS:
        return _lies(findings, "a dtype whose flags deny its kind")
    if kind in "VSUa" and item_bytes != size and (item_bytes != -1 or size):
        return _lies(findings, "a dtype of two sizes")
    if item_bytes not in (-1, size):
        # For a kind of one size numpy passes the state's over.
        return _unread(findings, "a dtype of two sizes")
    if inner.size > size:
        return _lies(findings, "fields that reach over the end of the item")
    return ItemType(size, inner.has_objects)


def _compound(subarray: Abstract, names: Abstract, fields: Abstract, findings: Findings, depth: int) -> ItemType | None:
    """Return the extent of a structured dtype's fields, and True if one is an object."""
    if isinstance(subarray, tuple) and len(subarray) == 2 and fields is None:
        base, count = item_type(subarray[0], findings, depth - 1), items_of(subarray[1])
        if base is None or count is None:
            return _unread(findings, "a dtype of a computed shape")
        return ItemType(base.size * count, base.has_objects)
    if subarray is not None or not isinstance(names, tuple) or not isinstance(fields, Items) or fields.kind != "map":
        return _unread(findings, "a structured dtype that is not read here")
    keys = fields.items[::2]
    if fields.count != 2 * len(names) or any(type(key) is not str for key in keys) or set(keys) != set(names):
        return _lies(findings, "fields and names of a dtype that differ")
    spans: list[tuple[int, int, bool]] = []
    for field in fields.items[1::2]:
        if not isinstance(field, tuple) or len(field) not in (2, 3) or type(field[1]) is not int or field[1] < 0:
            return _unread(findings, "a field of a dtype without a place")
        if (part := item_type(field[0], findings, depth - 1)) is None:
            return None
        spans.append((field[1], field[1] + part.size, part.has_objects))
    reach, has_objects = 0, any(is_object for *_, is_object in spans)
    for start, end, _ in sorted(spans):
        if start < reach and has_objects:
            return _lies(findings, "fields that share their bytes, in a dtype with objects")
        reach = max(reach, end)
    return ItemType(reach, has_objects)


def items_of(shape: Abstract) -> int | None:
    """Return the number of items of an array with this shape; None if the shape is computed."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if not all(type(size) is int and size >= 0 for size in sizes):
        return None
    return math.prod(size for size in sizes if type(size) is int)


def check_array_state(state: Abstract, findings: Findings) -> None:
    """Check the state that BUILD gives to an array: its dtype, and the number of listed objects."""
    parts = state[-4:] if isinstance(state, tuple) and len(state) in (4, 5, 7) else None
    if isinstance(state, tuple) and len(state) == 7:
        parts = state[1:5]
    if parts is None:
        _unread(findings, "an array with a state that is not read here")
        return
    shape, dtype, _, data = parts
    item, count = item_type(dtype, findings), items_of(shape)
    if item is None:
        return
    if count is None:
        _unread(findings, "an array of a computed shape")
    elif item.has_objects and not (isinstance(data, Items) and data.kind == "list"):
        _unread(findings, "an array of objects whose data is no list")
    elif item.has_objects and isinstance(data, Items) and data.count != count:
        # numpy reads as many references as the shape says, whether the list has them or not.
        _lies(findings, f"an array of {count} objects with a list of {data.count}")


def check_array_call(target: Import, args: Abstract, findings: Findings) -> None:
    """Check a call that creates an array: it must be empty, to be filled by a state.

    Args:
        target: the function or class of numpy.
        args: what it is called with.
        findings: takes what is found.
    """
    if target.name in ("_reconstruct", "_mareconstruct"):
        at = 1 if target.name == "_reconstruct" else 2
        shape = args[at] if isinstance(args, tuple) and len(args) > at else NOTHING
        count = items_of(shape)
        if count is None:
            _unread(findings, "an array of a computed shape")
        elif count > MAX_ITEMS:
            findings.add("ckpt.pickle_expansion", f"an empty array of {count} items")
    elif args != ():
        _unread(findings, f"{target} called with arguments")


def _unread(findings: Findings, detail: str) -> ItemType | None:
    findings.add("ckpt.numpy_dtype", detail)
    return None


def _lies(findings: Findings, detail: str) -> ItemType | None:
    findings.add("ckpt.numpy_pointer", detail)
    return None
