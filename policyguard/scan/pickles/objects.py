"""Opcodes that import, call, build, and refer to objects outside the pickle.

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11.
"""

from __future__ import annotations

from policyguard.scan.pickles.calls import call
from policyguard.scan.pickles.literals import Handler, unsigned
from policyguard.scan.pickles.stack import Broken, PickleStack, kind_of
from policyguard.scan.pickles.states import give_state
from policyguard.scan.pickles.values import Abstract, Import, Made, Other, Payload


def import_global(m: PickleStack, _: str) -> None:
    m.push(_import_lines(m))


def _import_lines(m: PickleStack) -> Import:
    # INVARIANT I5: names are the raw bytes the interpreter would use, never an unescaped or split form of them.
    module, name = m.cursor.line(), m.cursor.line()
    return m.import_name(module.decode("utf-8"), name.decode("utf-8"))


def import_from_stack(m: PickleStack, _: str) -> None:
    name, module = m.pop(), m.pop()
    if type(name) is str and type(module) is str:
        m.push(m.import_name(module, name))
        return
    if not (_may_be_text(name) and _may_be_text(module)):
        raise Broken("an import by what is no text")
    m.imported += 1
    m.findings.add("ckpt.pickle_unresolved", f"{kind_of(module)}, {kind_of(name)}")
    m.push(Other("unresolved import"))


def _may_be_text(value: Abstract) -> bool:
    """Return False for a value that every reader refuses as a name, because it cannot be text."""
    if isinstance(value, Made):
        return not (isinstance(value.callee, Import) and value.callee.pair in _NEVER_TEXT)
    return isinstance(value, str | Payload | Other)


_NEVER_TEXT = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("collections", "OrderedDict"),
}


def import_by_number(width: int) -> Handler:
    def read(m: PickleStack, _: str) -> None:
        m.imported += 1
        m.findings.add("ckpt.pickle_extension", str(unsigned(m, width)))
        m.push(Other("extension"))

    return read


def call_inst(m: PickleStack, _: str) -> None:
    target = _import_lines(m)
    m.push(call(m, target, tuple(m.pop_mark())))


def call_obj(m: PickleStack, _: str) -> None:
    values = m.pop_mark()
    if not values:
        raise Broken("a call of nothing")
    m.push(call(m, values[0], tuple(values[1:])))


def call_reduce(m: PickleStack, _: str) -> None:
    args, target = m.pop(), m.pop()
    m.push(call(m, target, args))


def call_newobj(m: PickleStack, _: str) -> None:
    args, target = m.pop(), m.pop()
    m.push(call(m, target, args))


def call_newobj_ex(m: PickleStack, _: str) -> None:
    keywords, args, target = m.pop(), m.pop(), m.pop()
    m.push(call(m, target, (args, keywords)))


def build(m: PickleStack, _: str) -> None:
    state, target = m.pop(), m.peek()
    give_state(m.findings, target, state)
    if m.dialect.built and isinstance(target, Made):
        start = m.cursor.position
        array = m.dialect.built(m.cursor, target)
        if array is not None:
            # joblib's reader puts the array in the place of its wrapper; the memo still has the wrapper.
            m.stack[-1] = array
        if start < m.frame_end and m.cursor.position > start:
            m.leave_frame("array")


def persistent_line(m: PickleStack, _: str) -> None:
    line = m.cursor.line()
    _persistent(m, line.decode("ascii"))


def persistent_value(m: PickleStack, _: str) -> None:
    _persistent(m, m.pop())


def _persistent(m: PickleStack, value: Abstract) -> None:
    if m.dialect.persistent is None:
        m.findings.add("ckpt.pickle_persistent_id", kind_of(value))
        m.push(Other("persistent object"))
    else:
        m.push(m.dialect.persistent(value))


def ask_buffer(m: PickleStack, name: str) -> None:
    m.findings.add("ckpt.pickle_buffer", name)
    if name == "NEXT_BUFFER":
        m.push(Other("buffer"))
