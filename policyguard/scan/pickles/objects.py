"""The opcodes that import, call, build and ask for objects from outside the pickle.

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11.
"""

from __future__ import annotations

from policyguard.scan.pickles.literals import Handler, unsigned
from policyguard.scan.pickles.stack import Broken, PickleStack, kind_of
from policyguard.scan.pickles.values import Abstract, Import, Items, Made, Other


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
    else:
        m.imported += 1
        m.findings.add("ckpt.pickle_unresolved", f"{kind_of(module)}, {kind_of(name)}")
        m.push(Other("unresolved import"))


def import_by_number(width: int) -> Handler:
    def read(m: PickleStack, _: str) -> None:
        m.imported += 1
        m.findings.add("ckpt.pickle_extension", str(unsigned(m, width)))
        m.push(Other("extension"))

    return read


def call_inst(m: PickleStack, _: str) -> None:
    target = _import_lines(m)
    m.push(m.call(target, tuple(m.pop_mark())))


def call_obj(m: PickleStack, _: str) -> None:
    values = m.pop_mark()
    if not values:
        raise Broken("a call of nothing")
    m.push(m.call(values[0], tuple(values[1:])))


def call_reduce(m: PickleStack, _: str) -> None:
    args, target = m.pop(), m.pop()
    m.push(m.call(target, args))


def call_newobj(m: PickleStack, _: str) -> None:
    args, target = m.pop(), m.pop()
    m.push(m.call(target, args))


def call_newobj_ex(m: PickleStack, _: str) -> None:
    keywords, args, target = m.pop(), m.pop(), m.pop()
    m.push(m.call(target, (args, keywords)))


def build(m: PickleStack, _: str) -> None:
    state, target = m.pop(), m.peek()
    if isinstance(target, Import | Other):
        # INVARIANT I18: a state may be given to an object that was just made, never to a class, function or module.
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
