"""The state of a pickle while it is read: stack, marks and memo of abstract values; imports and calls.

`opcodes.py`, `literals.py` and `objects.py` change it; `machine.py` runs them.

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11; PEP 307, 3154 and 574.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from policyguard.scan.findings import Findings, Verdict
from policyguard.scan.pickles.allowlist import modern
from policyguard.scan.pickles.ordinary import judge_import
from policyguard.scan.pickles.states import kind_of
from policyguard.scan.pickles.values import MAX_WEIGHT, Abstract, Group, Import, Items, Made, depth_of, weight_of
from policyguard.scan.source import Cursor, Source

_FREE_INDEX = 2**20
MAX_DEPTH = 10_000

_TOO_HEAVY = 10**8
"""More parts than this, with references expanded, exhaust code that hashes, prints or copies the object."""

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
CHECKED = {
    ("torch.storage", "_load_from_bytes"): "ckpt.pickle_reader",
    ("_codecs", "encode"): "ckpt.pickle_reader",
    ("builtins", "getattr"): "ckpt.pickle_global",
    ("builtins", "type"): "ckpt.pickle_global",
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): "ckpt.pickle_state",
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): "ckpt.pickle_state",
}
"""Imports that are judged by the arguments of their calls, with the reason if they are not called."""


class Broken(Exception):
    """The pickle does not parse here; what was read before counts."""


@dataclass(slots=True)
class Dialect:
    """How the file's own reader differs from a plain `pickle.load`.

    `persistent` judges a persistent id and returns its value; `built` is called for each BUILD, may read array bytes
    that joblib keeps between opcodes, and then returns the array; `nested` scans bytes that the reader unpickles again;
    `indexed` remembers a tensor whose indexes into memory are data of its own, to be checked with the storages.
    """

    persistent: Callable[[Abstract], Abstract] | None = None
    built: Callable[[Cursor, Abstract], Abstract] | None = None
    nested: Callable[[Source], None] | None = None
    indexed: Callable[[Made], None] | None = None


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
    """The number of imports with a valid name."""
    called: int = 0
    lines: int = 0
    """The number of complete protocol 0 numbers and strings; ordinary text has none."""
    unfollowed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The number of `CHECKED` imports that were not called."""
    opcodes: int = 0
    ranged: int = 0
    """How many items the ranges have that are handed to calls."""
    allocated: int = 0
    """How many items calls make from numbers."""
    frame_end: int = 0

    def leave_frame(self, opcode: str) -> None:
        """Record an argument that extends past its frame: CPython's readers then read different bytes."""
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
        """Record the import and return its value; it is judged as written and by its Python 2 meaning."""
        # INVARIANT I18: every import of the interpreter's reader passes here first, under the name it would use.
        value = Import(module, name)
        self.findings.import_of(f"{module}.{name}")
        self.imported += bool(_NAME.fullmatch(module) and _NAME.fullmatch(name))
        verdict = judge_import(module, name, self.findings.extra_globals)
        if modern(module, name) in CHECKED:
            value = Import(*modern(module, name))
            self.unfollowed[value.pair] += 1
            verdict = Verdict.CLEAN
        if verdict is Verdict.HOSTILE:
            self.findings.add("ckpt.pickle_global", f"{module}.{name}")
        elif verdict is Verdict.UNKNOWN:
            self.findings.add("ckpt.pickle_unlisted", f"{module}.{name}")
        elif module in ("__builtin__", "copy_reg"):
            value = Import(*modern(module, name))
        return value

    def copied(self, value: Abstract) -> Abstract:
        if isinstance(value, Import) and value.pair in CHECKED:
            self.unfollowed[value.pair] += 1
        return value

    def remember(self, index: int) -> None:
        if index < 0:
            raise Broken("a negative memo index")
        if index > _FREE_INDEX + 4 * len(self.memo):
            # CPython's memo is an array as long as the largest index.
            self.findings.add("ckpt.pickle_expansion", f"a memo index of {index}")
        self.memo[index] = self.peek()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Broken("a memo entry that was never put")
        self.push(self.copied(self.memo[index]))

    def extend(self, target: Abstract, values: list[Abstract], kind: str) -> None:
        """Add items to the list, set or map `target`; any other target is a finding.

        Args:
            target: the collection.
            values: the items.
            kind: the expected kind of collection.
        """
        contents = target if isinstance(target, Items) else target.contents if isinstance(target, Made) else None
        if (
            isinstance(target, Made)
            and isinstance(target.callee, Import)
            and target.callee.pair in self.findings.extra_globals
        ):
            return
        if contents is None or contents.kind != kind:
            self.findings.add("ckpt.pickle_state", f"items of a {kind} put into {kind_of(target)}")
            return
        contents.extend(values)
        self.check_weight(contents)

    def group(self, values: list[Abstract]) -> Abstract:
        """Return the values as a tuple, with its size if every reference were a copy."""
        made = Group(values)
        made.weight = min(1 + sum(map(weight_of, values)), MAX_WEIGHT)
        made.depth = 1 + max(map(depth_of, values), default=0)
        self.check_weight(made)
        return made

    def check_weight(self, value: Abstract) -> None:
        if weight_of(value) > _TOO_HEAVY:
            self.findings.add("ckpt.pickle_expansion", f"more than {_TOO_HEAVY} items by reference")
        if depth_of(value) > MAX_DEPTH:
            # Comparing, hashing and printing such a value overflows the interpreter's stack; nobody saves one.
            raise Broken(f"values nested more than {MAX_DEPTH} levels deep")


__all__ = ["Broken", "Dialect", "PickleStack", "kind_of"]
