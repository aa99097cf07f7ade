"""What a pickle has built so far, on abstract values: stack, marks, memo, and what importing and calling mean there.

The opcodes that change it are in `pickle_opcodes`; `pickle_machine` runs them.

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11; PEP 307, 3154 and 574.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.pickles.allowlist import judged, modern
from policyguard.scan.pickles.values import Abstract, Group, Import, Items, Made, Other, Payload, weight_of
from policyguard.scan.source import BytesSource, Cursor, Source, window
from policyguard.text import printable_ascii

MAX_WEIGHT = 10**8
"""A pickle whose objects, walked, have more parts than this is a bomb for code that hashes, prints or copies it."""

ENCODED_KEPT = 256 * 2**20

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_CHECKED = {("torch.storage", "_load_from_bytes"), ("_codecs", "encode")}
_MAPPINGS = {("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "Counter")}
_EXTENDED = {("collections", "deque"), ("builtins", "list")}


class Broken(Exception):
    """The pickle does not parse here; what was read before counts."""


@dataclass(slots=True)
class Dialect:
    """How the file's own reader departs from a plain `pickle.load`.

    `persistent` judges a persistent id and returns its value; `built` is called for each BUILD and may read array bytes
    that joblib keeps between opcodes; `nested` scans bytes that the reader unpickles again.
    """

    persistent: Callable[[Abstract], Abstract] | None = None
    built: Callable[[Cursor, Abstract], None] | None = None
    nested: Callable[[Source], None] | None = None


@dataclass(slots=True)
class PickleStack:
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

    def leave_frame(self, opcode: str) -> None:
        """Record that an argument reaches over the end of its frame: CPython's readers then read different bytes."""
        # INVARIANT I18: where two readers of the same bytes would go on at different places, neither is believed.
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
        # INVARIANT I18: every import of the interpreter's reader passes here first, under the name it would use.
        value = Import(module, name)
        self.findings.import_of(f"{module}.{name}")
        self.imported += bool(_NAME.fullmatch(module) and _NAME.fullmatch(name))
        verdict = judged(module, name, self.findings.extra_globals)
        if verdict is Verdict.HOSTILE:
            self.findings.add("ckpt.pickle_global", f"{module}.{name}")
        elif verdict is Verdict.UNKNOWN:
            self.findings.add("ckpt.pickle_unlisted", f"{module}.{name}")
        elif module in ("__builtin__", "copy_reg"):
            value = Import(*modern(module, name))
        self.checked_left += value.pair in _CHECKED
        return value

    def call(self, target: Abstract, args: Abstract) -> Abstract:
        """Record the call and return its abstract result."""
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
        """Return the bytes of a constant, also where protocol 2 writes them as encoded text."""
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
        """Put items into the list, set or map `target`; anything else is treated as what it is not.

        Args:
            target: the collection.
            values: the items.
            kind: the expected kind of collection.
        """
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


def kind_of(value: Abstract) -> str:
    """Return a short name for a value in a message."""
    if isinstance(value, Import):
        return printable_ascii(f"the import {value}", 80)
    if isinstance(value, Made):
        return (
            f"a result of {printable_ascii(str(value.of), 60)}" if isinstance(value.of, Import) else "a computed value"
        )
    if isinstance(value, Items | Other | Payload):
        return f"a {value.kind}"
    return "a tuple" if isinstance(value, tuple) else "a constant"


__all__ = ["Broken", "Dialect", "PickleStack", "kind_of"]
