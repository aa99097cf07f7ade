"""The calls in a pickle: each is recorded, and those whose arguments matter are checked.

Source: Lib/pickle.py of CPython 3.11; torch 2.13 `_tensor.py` and `_utils.py`; numpy 2.4 `random/_pickle.py`.
"""

from __future__ import annotations

import math
import re

from policyguard.scan.pickles.arrays import MAX_ITEMS, check_array_call, is_array, is_dtype, item_type
from policyguard.scan.pickles.stack import CHECKED, PickleStack
from policyguard.scan.pickles.states import check_shard_call, give_state, kind_of
from policyguard.scan.pickles.values import Abstract, Import, Items, Made, Other, Payload
from policyguard.scan.source import BytesSource, Source, window

MAX_ENCODED_BYTES = 256 * 2**20
_MAX_RANGE = 10**6
_MAPPINGS = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "Counter")}
_EXTENDED = {("collections", "deque"), ("builtins", "list")}
_NONE_TYPES = (Import("builtins", "Ellipsis"), Import("builtins", "NotImplemented"))
_TEXT_CODECS = ("latin1", "latin-1", "ascii", "utf-8", "utf8")
_NUMBERS = {("builtins", "int"), ("builtins", "float"), ("builtins", "complex"), ("fractions", "Fraction")}
_BUFFERS = {("builtins", "bytes"), ("builtins", "bytearray"), ("numpy", "void"), ("numpy", "bytes_"), ("numpy", "str_")}
_RESTORING = {("torch._tensor", "_rebuild_from_type_v2"), ("torch._utils", "_rebuild_parameter_with_state")}
_INDEXED = {"_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor"}


def call(m: PickleStack, target: Abstract, args: Abstract) -> Abstract:
    """Record the call and return its abstract result.

    Args:
        m: the stack of the pickle.
        target: what is called.
        args: its arguments, a tuple if the pickle is sound.
    """
    m.called += 1
    if not isinstance(target, Import):
        m.findings.add("ckpt.pickle_indirect_call", kind_of(target))
        return Made(target)
    if target.pair in CHECKED:
        m.unfollowed[target.pair] -= 1
    _check_size(m, target, args)
    if (special := _special(m, target, args)) is not None:
        return special
    made = Made(target, args)
    if target.pair in _MAPPINGS:
        made.contents = Items("map")
    elif target.pair in _EXTENDED:
        made.contents = Items("list")
    if is_array(made):
        check_array_call(target, args, m.findings)
    elif target.name in ("scalar", "_frombuffer"):
        for value in args if isinstance(args, tuple) else ():
            if is_dtype(value):
                item_type(value, m.findings)
    elif target.module == "torch._utils" and target.name in _INDEXED:
        if m.dialect.indexed is None:
            m.findings.add("ckpt.sparse_index", f"{target} without the storages that it indexes")
        else:
            m.dialect.indexed(made)
    return made


def _special(m: PickleStack, target: Import, args: Abstract) -> Abstract | None:
    """Handle functions that import, read or call what their arguments say; None for any other function."""
    values = args if isinstance(args, tuple) else ()
    match target.pair:
        case ("_codecs", "encode"):
            # Protocol 2 writes bytes as Latin-1 text; any other codec name is imported from `encodings`.
            if not (len(values) == 2 and values[1] in ("latin1", "latin-1")):
                m.findings.add("ckpt.pickle_global", "_codecs.encode with an unusual codec")
        case ("torch.storage", "_load_from_bytes"):
            inner = _bytes(m, values[0]) if len(values) == 1 else None
            if inner is None or m.dialect.nested is None:
                m.findings.add("ckpt.pickle_reader", "torch.storage._load_from_bytes of a computed value")
            else:
                m.dialect.nested(inner)
        case ("builtins", "getattr"):
            return _attribute(m, values)
        case ("builtins", "type"):
            if len(values) != 1 or not (values[0] is None or values[0] in _NONE_TYPES):
                m.findings.add("ckpt.pickle_global", "builtins.type of more than a constant")
        case ("copyreg", "_reconstructor"):
            # Protocols 0 and 1 make an object of a plain class by this.
            if len(values) == 3 and values[1] == Import("builtins", "object") and values[2] is None:
                return call(m, values[0], ())
        case ("torch.distributed.checkpoint.filesystem", "_StorageInfo"):
            check_shard_call(args, m.findings)
        case ("numpy.random._pickle", _):
            # The last argument is called with the first: it is one of numpy's own, or none.
            if any(not _is_of_random(value) for value in values):
                m.findings.add("ckpt.pickle_state", f"{target} of something that numpy does not write")
        case pair if pair in _RESTORING:
            return _restored(m, target, values)
    return None


def _is_of_random(value: Abstract) -> bool:
    """Return True if an argument of numpy's random-state functions is a text or comes from `numpy.random`."""
    made = value.callee if isinstance(value, Made) else value
    return type(value) is str or (isinstance(made, Import) and made.module.startswith("numpy.random"))


def _attribute(m: PickleStack, values: tuple[Abstract, ...]) -> Abstract:
    """Treat `getattr(Class, "name")`, by which older protocols write a method or inner class, as an import."""
    if len(values) == 2:
        owner, name = values
        if isinstance(owner, Made):
            # A method that is bound to an object of this class.
            owner = owner.callee
        if isinstance(owner, Import) and type(name) is str and re.fullmatch(r"(?!__)\w+", name):
            return m.import_name(owner.module, f"{owner.name}.{name}")
    m.findings.add("ckpt.pickle_global", "builtins.getattr")
    return Made(Import("builtins", "getattr"))


def _restored(m: PickleStack, target: Import, values: tuple[Abstract, ...]) -> Abstract:
    """Handle torch's functions that create an object and then set its last argument as the state."""
    if len(values) != 4:
        m.findings.add("ckpt.pickle_state", f"{target} called with computed arguments")
        return Made(target)
    by_call = target.name == "_rebuild_from_type_v2"
    made = call(m, values[0], values[2]) if by_call else Made(target, values)
    if values[3] is not None:
        give_state(m.findings, made, values[3])
    return made


def _check_size(m: PickleStack, target: Import, args: Abstract) -> None:
    """Add a finding for a call whose result is huge although the pickle is small: it exhausts the reader's memory."""
    values = args if isinstance(args, tuple) else (args,)
    lengths = [_range_length(value) for value in values]
    m.ranged += sum(length or 0 for length in lengths)
    # INVARIANT I18: many small ones are as large as one that is huge.
    if None in lengths or (any(lengths) and m.ranged > _MAX_RANGE):
        m.findings.add("ckpt.pickle_expansion", f"{target} of a range")
    elif target.pair in _NUMBERS and not all(_is_short(value) for value in values):
        m.findings.add("ckpt.pickle_expansion", f"{target} of a computed or long number")
    elif _allocates(target):
        sizes = [value for value in values if type(value) is int]
        m.allocated += math.prod(sizes) if sizes else 0
        if m.allocated > MAX_ITEMS or not all(_is_small(value) for value in values):
            m.findings.add("ckpt.pickle_expansion", f"{target} of a size, not of data")
    text_codec = values[1] if len(values) > 1 and target.pair in (*_BUFFERS, ("builtins", "str")) else "ascii"
    if text_codec not in _TEXT_CODECS:
        m.findings.add("ckpt.pickle_state", f"{target} with a codec that is imported by its name")


def _allocates(target: Import) -> bool:
    by_torch = target.module.startswith("torch") and target.name.endswith(("Tensor", "Storage"))
    return target.pair in _BUFFERS or by_torch


def _range_length(value: Abstract) -> int | None:
    """Count the items of a range: 0 for anything else, None if its numbers are computed."""
    if (
        not isinstance(value, Made)
        or not isinstance(value.callee, Import)
        or value.callee.name not in ("range", "xrange")
    ):
        return 0
    numbers = value.args if isinstance(value.args, tuple) else (value.args,)
    if not 1 <= len(numbers) <= 3:
        return 0
    if any(type(number) is not int for number in numbers) or 0 in numbers[2:]:
        return None
    spanned = range(*(number for number in numbers if type(number) is int))
    return (spanned[-1] - spanned[0]) // spanned.step + 1 if spanned else 0


def _is_short(value: Abstract) -> bool:
    if type(value) is str:
        return len(value) < 4_000 and not re.search(r"[eE][-+]?\d{4,}", value.replace("_", ""))
    return not isinstance(value, Made | Payload) and value != Other("number") and value != Other("large integer")


def _is_small(value: Abstract) -> bool:
    if isinstance(value, Made):
        return isinstance(value.callee, Import) and value.callee.name in ("encode", "_load_from_bytes")
    return not (type(value) is int and value > MAX_ITEMS) and value not in (Other("number"), Other("large integer"))


def _bytes(m: PickleStack, value: Abstract) -> Source | None:
    """Return the bytes of a constant, including those that protocol 2 writes as encoded text."""
    source = m.cursor.source
    if isinstance(value, Payload) and value.kind == "bytes":
        return window(source, value.offset, value.length)
    if not (isinstance(value, Made) and value.callee == Import("_codecs", "encode") and isinstance(value.args, tuple)):
        return None
    text = value.args[0] if value.args else None
    if isinstance(text, Payload) and text.kind == "text" and text.length <= MAX_ENCODED_BYTES:
        text = source.read(text.offset, text.length).decode("utf-8", "surrogatepass")
    return BytesSource(text.encode("latin-1")) if type(text) is str else None
